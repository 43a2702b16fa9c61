"""MirrorGAN: images that can be described by the caption they were generated from.

Qiao, Zhang, Xu, Tao: MirrorGAN: Learning Text-to-image Generation by Redescription, 2019, arXiv 1903.05854. Authors'
code: qiaott/MirrorGAN, built on AttnGAN's. STEM is the text encoder of a DAMSM, GLAM the attention of the generator,
STREAM the caption writer. Deviations, all listed in the card: those of AttnGAN, and STREAM sees the images as in its
own training (``imagenet_norm`` of STREAM).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.models.attentive import AttentiveGAN
from t2i_zoo.models.mirrorgan import losses
from t2i_zoo.models.mirrorgan.drawing import Half
from t2i_zoo.ranges import Weight


class MirrorGAN(Half, AttentiveGAN):
    """MirrorGAN; defaults are those of the authors' ``train_bird``.

    Args:
        stream: run of a STREAM that describes the largest images, as a folder or a .ckpt file. A resumed run reads it
            again; sampling does not need it.
        stream_weight: weight lambda of the description's loss, 10 in the authors' config and 20 in the paper; 0 leaves
            it out.
        damsm_weight: weight lambda of DAMSM's matching losses, which the authors' code leaves out.
        options: options of ``AttentiveGAN``.
    """

    builds_on = ("damsm", "stream")

    def __init__(
        self, *, stream: str | None = None, stream_weight: Weight = 10.0, damsm_weight: Weight = 0.0, **options: Any
    ) -> None:
        super().__init__(damsm_weight=damsm_weight, **options)

    def setup(self, stage: str) -> None:
        """Load STREAM too, and raise where it is missing."""
        super().setup(stage)
        if stage != "predict" and self.hparams["stream_weight"]:
            self.take("stream", "caption_loss", "or set --model.stream_weight 0")

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The losses of ``AttentiveGAN``, and how unlikely STREAM finds the captions for the largest images."""
        terms, options = super().generator_loss(batch, fakes), self.hparams
        matching, caption = self.matching_losses(batch, fakes), None
        if options["stream_weight"]:
            caption = self.frozen("stream").caption_loss(fakes.images[-1], batch["captions"])
            terms["caption"] = caption
        weights = (options["stream_weight"], matching, options["damsm_weight"])
        return {**terms, **matching, "loss": losses.generator_objective(terms["loss"], caption, *weights)}
