"""The drawing half of MirrorGAN."""

from __future__ import annotations

from t2i_zoo.models.drawing import AttentiveDrawing
from t2i_zoo.models.mirrorgan.networks import NextStage


class Half(AttentiveDrawing):
    """Attention to words and to the sentence, residual blocks, doubling."""

    stage = NextStage
    stage_options = ("condition_dim", *AttentiveDrawing.stage_options)
