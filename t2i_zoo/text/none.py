"""No text at all: the encoder of unconditional models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from t2i_zoo.text.features import TextEncoder, TextFeatures


class NoText(TextEncoder):
    """Ignores captions: their features have dimension 0. A model with this encoder draws images from noise alone."""

    device_marker: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.dim = self.word_dim = self.max_words = 0
        self.register_buffer("device_marker", torch.empty(0), persistent=False)

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Sentence embeddings (B, 0) on the encoder's device."""
        return TextFeatures(self.device_marker.new_empty(len(captions), 0))

    def fingerprint(self) -> str:
        """Always the same: there is nothing to encode."""
        return "none"
