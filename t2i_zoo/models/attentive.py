"""What AttnGAN and MirrorGAN have in common: words at every stage, joint discriminators, the matching loss of DAMSM.

Source: taoxugit/AttnGAN, on whose code MirrorGAN is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, BatchNeeds, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model, state
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.nn import JointDiscriminator, WordGenerator, bce, discriminator_loss, kl_to_normal
from t2i_zoo.nn.damsm import sentence_loss, words_loss
from t2i_zoo.text import TextFeatures


class AttentiveGAN(TextToImageGAN):
    """Base of AttnGAN and MirrorGAN; a subclass writes ``next_stage``.

    Args:
        text_encoder: of sentence and words; None takes the one of ``damsm``, or hashed words where there is none.
        damsm: run of a DAMSM, as a folder or a .ckpt file, whose text encoder reads the captions and whose picture
            encoder judges pictures. It is read again when a run is resumed; for drawing, a checkpoint needs it no more.
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
    builds_on: tuple[str, ...] = ("damsm",)

    def __init__(
        self,
        *,
        text_encoder: str | dict[str, Any] | None = None,
        damsm: str | None = None,
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
        if damsm and text_encoder is not None and _kind(text_encoder) != "rnn":
            raise T2IError(
                f"found --model.text_encoder {_kind(text_encoder)} beside --model.damsm, whose own text encoder reads "
                "the captions: leave out the former"
            )
        if damsm:
            _require_run(damsm, "damsm")
        if text_encoder is None:
            text_encoder = {"kind": "rnn", "path": damsm} if damsm else "hashing"
        super().__init__(text_encoder=text_encoder, image_size=image_size, **options)
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
        self.noise_width += condition_dim
        self._frozen: dict[str, ZooModule] = {}  # networks of other runs; a dict, so that no checkpoint holds them
        self._digests: dict[str, str] = {}
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

    # Networks of other runs -----------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load what the losses look at, and raise where it is missing."""
        super().setup(stage)
        if stage != "predict" and self.hparams["damsm_weight"]:
            self.take("damsm", "features", "or set --model.damsm_weight 0")

    def take(self, name: str, method: str, otherwise: str) -> None:
        """Load the run that the option ``name`` gives, once; it must have ``method``."""
        path = self.hparams[name]
        if name in self._frozen:
            return
        if not path:
            raise T2IError(f"found no --model.{name}: {_how_to_make(name)} and give its run there, {otherwise}")
        _require_run(path, name)
        model = load_model(path)
        if not hasattr(model, method):
            raise T2IError(f"--model.{name} {path} holds a {type(model).__name__}: {_how_to_make(name)}")
        self._digests[name] = state.digest(model)
        self._frozen[name] = model.requires_grad_(False).eval()

    def frozen(self, name: str) -> Any:
        """The network of another run, on this model's device."""
        model = self._frozen[name]
        return model if model.device == self.device else model.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add by what the networks of other runs are known again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["t2i_zoo"]["companions"] = self._digests

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take that back, and compare where they are there already."""
        super().on_load_checkpoint(checkpoint)
        own, self._digests = self._digests, dict(checkpoint["t2i_zoo"].get("companions", {}))
        if differing := [name for name in own if self._digests.get(name, own[name]) != own[name]]:
            raise T2IError(
                f"--model.{differing[0]} {self.hparams[differing[0]]} holds other weights than this run began with: "
                "give the former, or start a new run with --model.weights"
            )

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

    @overload
    def generate(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        return_attention: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def generate(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        return_attention: Literal[True],
    ) -> tuple[Tensor, list[Tensor]]: ...

    @torch.no_grad()
    def generate(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
        return_attention: bool = False,
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Draw one picture a caption, as every model does, and on request show which words each place looked at.

        With ``return_attention`` the pictures come with the attention of each further stage, (B, T, H, H) over the
        words that ``text_encoder.tokens`` names; it sums to 1 over the words of each place.
        """
        fakes = self.sampled(captions, noise, generator, ema)
        images = fakes.images[-1].float()
        if not return_attention:
            return images
        return images, [fakes.extras[f"attention_{i}"] for i in range(len(self.generator.stages))]

    # Losses ---------------------------------------------------------------------------------------------------------

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The sum over all sizes, of which each also has its own entry."""
        sentence, shift = fakes.text.sentence, self.hparams["mismatch"] == "shift"
        order, keep, other = None, None, sentence
        if shift:
            assert fakes.text.mask is not None
            order = fakes.text.mask.sum(1).argsort(descending=True, stable=True)
            if self.hparams["exclude_same_class"]:
                labels = batch["labels"][order]
                keep = (labels[:-1] != labels[1:]) | (labels[:-1] < 0)  # -1: no class, and surely another picture
        else:
            other = self.encode_wrong(batch).sentence
        total: dict[str, Tensor] = {}
        for i, (size, judge) in enumerate(zip(self.needs.sizes, self.discriminator, strict=True)):
            assert isinstance(judge, JointDiscriminator)
            heads = judge.heads
            real, fake = judge.features(batch["images"][i - len(self.needs.sizes)]), judge.features(fakes.images[i])
            matched, drawn = heads.match(real, sentence), heads.match(fake, sentence)  # batch norm follows the order
            wrong = heads.match(real, other) if order is None else heads.match(real[order[:-1]], sentence[order[1:]])
            alone = {} if len(self.needs.sizes) < len(self.generator.stages) + 1 else {
                "real_alone": heads.alone(real),
                "fake_alone": heads.alone(fake),
            }  # fmt: skip
            terms = discriminator_loss(matched, wrong, drawn, keep=keep, **alone)
            for key, term in terms.items():
                total[key] = total[key] + term if key in total else term
            total[f"at_{size}"] = terms["loss"]
        return total

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Adversarial terms of all sizes and the divergence of the condition; a paper adds its own."""
        terms: dict[str, Tensor] = {}
        for size, judge, images in zip(self.needs.sizes, self.discriminator, fakes.images, strict=True):
            assert isinstance(judge, JointDiscriminator)
            features = judge.features(images)
            term = bce(judge.heads.match(features, fakes.text.sentence), 1.0)
            terms[f"at_{size}"] = term if self.hparams["last_only"] else term + bce(judge.heads.alone(features), 1.0)
        terms["kl"] = kl_to_normal(fakes.extras["mu"], fakes.extras["logvar"])
        loss = torch.stack([term for name, term in terms.items() if name != "kl"]).sum()
        loss = loss + self.hparams["kl_weight"] * terms["kl"]
        return {"loss": loss, **terms}

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


def _kind(spec: str | dict[str, Any]) -> str:
    return str(spec.get("kind")) if isinstance(spec, dict) else spec


def _how_to_make(name: str) -> str:
    return f"train one, as `t2i-zoo fit --config {name}_flowers` does"


def _require_run(path: str, name: str) -> None:
    if not Path(path).expanduser().exists():
        raise T2IError(
            f"--model.{name} {path} is not there: {_how_to_make(name)}, or let `t2i-zoo pipeline CONFIG` train all "
            "that a config builds on"
        )
