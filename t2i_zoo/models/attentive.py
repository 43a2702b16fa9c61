"""What AttnGAN and MirrorGAN have in common: words at every stage, joint discriminators, the matching loss of DAMSM.

Source: taoxugit/AttnGAN, on whose code MirrorGAN is built.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, BatchNeeds, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.nn import JointDiscriminator, WordGenerator, discriminator_loss, generator_loss, kl_to_normal, over_sizes
from t2i_zoo.nn.damsm import sentence_loss, words_loss
from t2i_zoo.text import TextFeatures


class AttentiveGAN(TextToImageGAN):
    """Base of AttnGAN and MirrorGAN; a subclass writes ``next_stage``.

    Args:
        damsm_weight: lambda of the two matching losses on the largest picture; 0 leaves them out.
        image_size: side of the largest pictures; each branch before has half the side of the next.
        branches: picture sizes (``BRANCH_NUM``).
        condition_dim: length C of the augmented condition.
        generator_width: channels of every stage (``GF_DIM``).
        discriminator_width: channels after the first layer of each discriminator (``DF_DIM``).
        residual_blocks: in each stage after the first (``R_NUM``).
        last_only: one picture and one discriminator, without unconditional terms (``B_DCGAN``).
        kl_weight: of conditioning augmentation's divergence from N(0, 1), a mean over batch and dimensions.
        mismatch: ``shift`` sorts the batch by the length of its captions and pairs each picture with the next one's
            sentence, B - 1 pairs whatever their classes; ``class`` with a sentence of another class.
        exclude_same_class: leave those pairs of a shift out of the mean whose pictures are of one class.
        legacy_mask: mask the padding of captions as the authors' code does, which mixes up the captions of a batch.
        sampling_noise: draw the condition around its mean when sampling too, as the authors do; False takes the mean.
        gradient_checkpointing: less memory for one more forward of both networks; the results are the same.
        options: what every model takes; see ``TextToImageGAN``.
    """

    generator: WordGenerator
    generator_ema: WordGenerator
    discriminator: nn.ModuleList  #: of ``JointDiscriminator``, one a size, smallest first
    needs = BatchNeeds(words=True)
    attends = True

    def __init__(
        self,
        *,
        damsm_weight: float = 5.0,
        image_size: int = 256,
        branches: int = 3,
        condition_dim: int = 100,
        generator_width: int = 32,
        discriminator_width: int = 64,
        residual_blocks: int = 2,
        last_only: bool = False,
        kl_weight: float = 1.0,
        mismatch: Literal["shift", "class"] = "shift",
        exclude_same_class: bool = False,
        legacy_mask: bool = False,
        sampling_noise: bool = True,
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(image_size=image_size, **options)
        if branches < 1:
            raise T2IError(f"found --model.branches {branches}, expected at least 1")
        least = 8 * 2 ** (branches - 1)
        if image_size < least or image_size & (image_size - 1):
            raise T2IError(
                f"found --model.image_size {image_size} with {branches} branches, expected a power of two of at least "
                f"{least}: change it, or --model.branches"
            )
        if exclude_same_class and mismatch == "class":
            raise T2IError("found --model.exclude_same_class with --model.mismatch class, which has no such pairs")
        sizes = [image_size >> i for i in reversed(range(branches))]
        self.needs = replace(self.needs, sizes=tuple(sizes[-1:] if last_only else sizes))
        self.total_noise_dim += condition_dim
        generator = WordGenerator(
            self.text_encoder.dim,
            self.hparams["noise_dim"],
            condition_dim,
            generator_width,
            sizes[0],
            [self.next_stage() for _ in sizes[1:]],
            last_only=last_only,
            checkpointing=gradient_checkpointing,
        )
        discriminator = nn.ModuleList(
            JointDiscriminator(
                self.text_encoder.dim,
                discriminator_width,
                size,
                condition_first=False,
                unconditional=not last_only,
                checkpointing=gradient_checkpointing,
            )
            for size in self.needs.sizes
        )
        self.set_networks(generator, discriminator)

    def next_stage(self) -> nn.Module:
        """One of the generator's further stages, as ``WordGenerator`` describes them."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Load what the losses look at, and raise where it is missing."""
        super().setup(stage)
        if stage != "predict" and self.hparams["damsm_weight"]:
            self.take("damsm", "features", "or set --model.damsm_weight 0")

    # Drawing --------------------------------------------------------------------------------------------------------

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Pictures of every size; ``extras`` hold the attention of each further stage as ``attention_0`` and so on."""
        lengths = [self.hparams["noise_dim"], self.hparams["condition_dim"]]
        z, augmentation = torch.split(noise, lengths, dim=1)
        if not network.training and not self.hparams["sampling_noise"]:
            augmentation = torch.zeros_like(augmentation)
        images, extras, attention = network(z, text.sentence, text.words, text.mask, augmentation)
        extras |= {f"attention_{i}": weights for i, weights in enumerate(attention)}
        return Fakes(images, text, extras, noise)

    # Losses ---------------------------------------------------------------------------------------------------------

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The sum over all sizes, of which each also has its own entry."""
        sentence = fakes.text.sentence
        images, drawn = self.observe(batch["images"], real=True), self.observe(fakes.images, real=False)
        reals, generated = images.judge(sentence), drawn.judge(sentence)  # batch norm follows the order
        keep: Tensor | None = None
        rows: Tensor | slice = slice(None)
        if self.hparams["mismatch"] == "class":
            wrongs = images.judge(self.encode_wrong(batch).sentence)
        else:
            assert fakes.text.mask is not None
            order = fakes.text.mask.sum(1).argsort(descending=True, stable=True)
            rows, others = order[:-1], order[1:]
            if self.hparams["exclude_same_class"]:
                one, two = batch["labels"][rows], batch["labels"][others]
                keep = (one != two) | (one < 0)  # -1: no class, and surely another image
            wrongs = images.judge(sentence[others], rows)
        terms = [
            discriminator_loss(real, wrong, fake, keep=keep, against=real.rows(rows), loss=self.adversarial)
            for real, wrong, fake in zip(reals, wrongs, generated, strict=True)
        ]
        return over_sizes(self.needs.sizes, terms)

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Adversarial terms of all sizes and the divergence of the condition; a paper adds its own."""
        sentence = self.condition(fakes)
        drawn, reals = self.observe(fakes.images, real=False).judge(sentence), self.opponents(batch, sentence)
        terms = {
            f"at_{size}": generator_loss(fake, real, self.adversarial)
            for size, fake, real in zip(self.needs.sizes, drawn, reals, strict=True)
        }
        loss = torch.stack(list(terms.values())).sum()
        terms["kl"] = kl_to_normal(fakes.extras["mu"], fakes.extras["logvar"])
        return {"loss": loss + self.hparams["kl_weight"] * terms["kl"], **terms}

    def matching_losses(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """DAMSM's losses of the largest pictures, ``words`` by regions and ``sentence``; none where they weigh 0."""
        if not self.hparams["damsm_weight"]:
            return {}
        damsm, text, labels = self.frozen("damsm"), fakes.text, batch["labels"]
        assert text.words is not None
        assert text.mask is not None
        gammas = [damsm.hparams[f"gamma{i}"] for i in (1, 2, 3)]
        regions, codes = damsm.features(fakes.images[-1])
        by_words = words_loss(regions, text.words, text.mask, labels, *gammas)
        by_sentence = sentence_loss(codes, text.sentence, labels, gammas[2])
        return {
            "words": by_words.image_to_text + by_words.text_to_image,
            "sentence": by_sentence.image_to_text + by_sentence.text_to_image,
        }
