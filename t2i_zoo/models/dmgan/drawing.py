"""The drawing half of DM-GAN."""

from __future__ import annotations

from t2i_zoo.models.dmgan.networks import NextStage
from t2i_zoo.models.drawing import AttentiveDrawing


class Half(AttentiveDrawing):
    """Dynamic memory, residual blocks, doubling."""

    stage = NextStage
