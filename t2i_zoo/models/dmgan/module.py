"""DM-GAN: a memory of the words that fit the image so far, which each place of the image reads to refine itself.

Zhu, Pan, Chen, Yang: DM-GAN: Dynamic Memory Generative Adversarial Networks for Text-to-Image Synthesis, 2019, arXiv
1904.01310. Authors' code: MinfengZhu/DM-GAN, built on AttnGAN's. Deviations, all listed in the card: those of AttnGAN,
and spectral norm does not change the discriminators' weights in evaluation.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.models.attentive import AttentiveGAN
from t2i_zoo.models.dmgan import losses
from t2i_zoo.models.dmgan.drawing import Half
from t2i_zoo.nn import Norm
from t2i_zoo.ranges import Count


class DMGAN(Half, AttentiveGAN):
    """DM-GAN; defaults are those of the authors' ``bird_DMGAN``.

    Args:
        generator_width: channels of every stage (``GF_DIM``).
        discriminator_width: channels after the first layer of each discriminator (``DF_DIM``).
        options: options of ``AttentiveGAN``.
    """

    discriminator_norm: Norm = "spectral"

    def __init__(self, *, generator_width: Count = 64, discriminator_width: Count = 32, **options: Any) -> None:
        super().__init__(generator_width=generator_width, discriminator_width=discriminator_width, **options)

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The losses of ``AttentiveGAN``, and DAMSM's of the largest images."""
        terms, matching = super().generator_loss(batch, fakes), self.matching_losses(batch, fakes)
        loss = losses.generator_objective(terms["loss"], matching, self.hparams["damsm_weight"])
        return {**terms, **matching, "loss": loss}
