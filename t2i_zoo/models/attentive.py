"""What AttnGAN, MirrorGAN and DM-GAN have in common: words at every stage, and the matching losses of DAMSM.

Source: taoxugit/AttnGAN, on whose code the two others are built.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from torch import Tensor

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.models.checks import check_mismatch
from t2i_zoo.models.drawing import AttentiveDrawing
from t2i_zoo.models.pyramid import PyramidGAN
from t2i_zoo.nn import discriminator_loss, of_other_classes, over_sizes
from t2i_zoo.nn.damsm import sentence_loss, words_loss
from t2i_zoo.ranges import Count, Weight


class AttentiveGAN(AttentiveDrawing, PyramidGAN):
    """Base of AttnGAN, MirrorGAN and DM-GAN. All branches have the same width.

    Args:
        damsm_weight: weight lambda of the two matching losses on the largest image; 0 leaves them out.
        condition_dim: dimension C of the augmented condition.
        generator_width: channels of every stage (``GF_DIM``).
        last_only: only one image and one discriminator, without unconditional terms (``B_DCGAN``).
        kl_weight: weight of the condition's KL divergence from N(0, 1), a mean over batch and dimensions.
        mismatch: ``shift`` sorts the batch by the length of its captions and pairs each image with the next one's
            sentence, B - 1 pairs whatever their classes; ``class`` with a sentence of another class.
        exclude_same_class: leave those pairs of a shift out of the mean whose images are of one class.
        legacy_mask: mask the padding of captions as the authors' code does, which mixes up the captions of a batch.
        options: options of ``PyramidGAN``.
    """

    def __init__(
        self,
        *,
        damsm_weight: Weight = 5.0,
        condition_dim: Count = 100,
        generator_width: Count = 32,
        last_only: bool = False,
        kl_weight: Weight = 1.0,
        mismatch: Literal["shift", "class"] = "shift",
        exclude_same_class: bool = False,
        legacy_mask: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(condition_dim=condition_dim, generator_width=generator_width, kl_weight=kl_weight, **options)
        check_mismatch(mismatch, exclude_same_class)
        self.needs = replace(self.needs, wrong_text=mismatch == "class")
        self.set_pyramid(self.text_encoder.dim, condition_first=False, last_only=last_only)

    def setup(self, stage: str) -> None:
        """Load what the losses look at, and raise where it is missing."""
        super().setup(stage)
        if stage != "predict" and self.hparams["damsm_weight"]:
            self.take("damsm", "features", "or set --model.damsm_weight 0")

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The sum over all sizes, each of which also has its own entry."""
        sentence = fakes.text.sentence
        images, drawn = self.observe(batch["images"], real=True), self.observe(fakes.images, real=False)
        reals, generated = images.judge(sentence), drawn.judge(sentence)  # batch norm follows the order
        keep: Tensor | None = None
        rows: Tensor | slice = slice(None)
        if self.hparams["mismatch"] == "class":
            wrongs = images.judge(self.encode_wrong(batch).sentence)
        else:
            assert fakes.text.mask is not None
            # The authors sort each batch by length for their LSTM, and shift the sorted sentences by one.
            order = fakes.text.mask.sum(1).argsort(descending=True, stable=True)
            rows, others = order[:-1], order[1:]
            wrongs = images.judge(sentence[others], rows)
            if self.hparams["exclude_same_class"]:
                keep = of_other_classes(batch["labels"], rows, others)
        terms = [
            discriminator_loss(real, wrong, fake, keep=keep, against=real.rows(rows), loss=self.adversarial)
            for real, wrong, fake in zip(reals, wrongs, generated, strict=True)
        ]
        return over_sizes(self.needs.sizes, terms)

    def matching_losses(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """DAMSM's losses of the largest images, ``words`` by regions and ``sentence``; none with a weight of 0."""
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
