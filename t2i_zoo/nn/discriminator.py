"""What every discriminator of the zoo is: features of images, and judgements of the features with a condition."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Logits(NamedTuple):
    """What a discriminator says of B images.

    Attributes:
        matched: (B,), or (B, N) for several judgements an image: it is real and belongs to its text; None without text.
        unconditional: (B,) or (B, N): it is real, whatever its text; None where there is no such head.
        classes: (B, K) of its class; None where there is no such head.
    """

    matched: Tensor | None = None
    unconditional: Tensor | None = None
    classes: Tensor | None = None

    def rows(self, rows: Tensor | slice) -> Logits:
        """The logits of some of the images."""
        return Logits(*(None if logits is None else logits[rows] for logits in self))

    def all(self) -> Tensor:
        """(B, N): whatever judges an image as real, side by side."""
        return torch.cat([logits.flatten(1) if logits.dim() > 1 else logits[:, None]
                          for logits in (self.matched, self.unconditional) if logits is not None], 1)  # fmt: skip


class ConditionalDiscriminator(nn.Module):
    """Base of every discriminator; a subclass writes ``features``, and ``judge`` or ``judge_alone`` or both.

    Features come apart from judgements since one image may be judged with two captions.

    Attributes:
        condition_dim: length of the condition (B, C); 0 without text.
        num_classes: K of the class logits; 0 where there are none.
    """

    condition_dim: int = 0
    num_classes: int = 0

    def features(self, images: Tensor) -> Any:
        """What the image (B, 3, S, S) in [-1, 1] has to say before any text joins; rows can be selected by an index."""
        raise NotImplementedError

    def judge(self, features: Any, condition: Tensor) -> Logits:
        """Matched logits and, where there are any, class logits of features with a condition (B, C)."""
        raise NotImplementedError

    def judge_alone(self, features: Any) -> Tensor | None:
        """Unconditional logits, or None where there is no such head."""
        return None

    def forward(self, images: Tensor, condition: Tensor | None) -> Logits:
        """Everything that it says of images with a condition."""
        features = self.features(images)
        logits = Logits() if condition is None else self.judge(features, condition)
        return logits._replace(unconditional=self.judge_alone(features))
