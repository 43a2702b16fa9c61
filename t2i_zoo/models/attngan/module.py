"""AttnGAN: words attended to at each place of the image, and DAMSM's judgement of how image and words match.

Xu, Zhang, Huang, Zhang, Gan, Huang, He: AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative
Adversarial Networks, 2018, arXiv 1711.10485. Authors' code: taoxugit/AttnGAN. Deviations, all listed in the card:
padding is masked within each caption (``legacy_mask`` restores the authors' mix-up); one Adam for all discriminators; a
warm-up of the moving average.
"""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.models.attentive import AttentiveGAN
from t2i_zoo.models.attngan import losses
from t2i_zoo.models.attngan.drawing import Half


class AttnGAN(Half, AttentiveGAN):
    """AttnGAN; defaults are those of the authors' ``bird_attn2``, and the card has their other configs.

    All options are those of ``AttentiveGAN``.
    """

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The losses of ``AttentiveGAN``, and DAMSM's of the largest images."""
        terms, matching = super().generator_loss(batch, fakes), self.matching_losses(batch, fakes)
        loss = losses.generator_objective(terms["loss"], matching, self.hparams["damsm_weight"])
        return {**terms, **matching, "loss": loss}
