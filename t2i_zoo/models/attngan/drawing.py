"""The drawing half of AttnGAN."""

from __future__ import annotations

from t2i_zoo.models.attngan.networks import NextStage
from t2i_zoo.models.drawing import AttentiveDrawing


class Half(AttentiveDrawing):
    """Word attention, residual blocks, doubling."""

    stage = NextStage
