"""The base of every discriminator: features of images, and judgements of the features with a condition."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Logits(NamedTuple):
    """What a discriminator says of B images.

    Attributes:
        matched: (B,), or (B, N) for N judgements per image, that it is real and belongs to its text; None without text.
        unconditional: (B,) or (B, N), that it is real whatever its text; None without such a head.
        classes: (B, K) of its class; None without such a head.
    """

    matched: Tensor | None = None
    unconditional: Tensor | None = None
    classes: Tensor | None = None

    def rows(self, rows: Tensor | slice) -> Logits:
        """The logits of some of the images."""
        return Logits(*(None if logits is None else logits[rows] for logits in self))

    def all(self) -> Tensor:
        """All logits that judge an image as real, matched and unconditional, side by side: (B, N)."""
        found = [logits for logits in (self.matched, self.unconditional) if logits is not None]
        return torch.cat([logits.flatten(1) if logits.dim() > 1 else logits[:, None] for logits in found], 1)


class ConditionalDiscriminator(nn.Module):
    """Base of every discriminator; a subclass writes ``features``, and ``judge`` or ``judge_alone`` or both.

    Features are separate from judgements because one image may be judged with two captions.

    Attributes:
        condition_dim: C of the condition (B, C); 0 without text.
        num_classes: K of the class logits; 0 without a class head.
    """

    condition_dim: int = 0
    num_classes: int = 0

    def features(self, images: Tensor) -> Any:
        """Features of images (B, 3, S, S) in [-1, 1] before any text joins, whose rows an index can select."""
        raise NotImplementedError

    def judge(self, features: Any, condition: Tensor) -> Logits:
        """Matched logits and, with a class head, class logits of features with a condition (B, C)."""
        raise NotImplementedError

    def judge_alone(self, features: Any) -> Tensor | None:
        """Unconditional logits, or None without such a head."""
        return None

    def forward(self, images: Tensor, condition: Tensor | None) -> Logits:
        """All logits of images with a condition."""
        features = self.features(images)
        logits = Logits() if condition is None else self.judge(features, condition)
        return logits._replace(unconditional=self.judge_alone(features))
