"""Adversarial losses that any model of the zoo can be trained with, as functions of raw logits.

Each loss gives one float32 value per logit; a paper weighs and averages them. ``real`` are logits of real images with
their captions, ``fake`` those of generated images or of mismatched pairs, row by row against the same real image.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

AdversarialName = Literal["paper", "hinge", "relativistic", "relativistic_average"]


class AdversarialLoss:
    """The non-saturating loss (Goodfellow et al. 2014): binary cross-entropy of logits.

    The references take it of a sigmoid. Taken of logits it differs only where the sigmoid saturates, and is safe in
    half precision.
    """

    relative = False  #: whether the generator's loss compares with logits of real images

    def real(self, real: Tensor, fake: Tensor | None = None, target: float = 1.0) -> Tensor:
        """Discriminator's loss of real pairs; ``target`` below 1 is one-sided label smoothing."""
        real = real.float()
        return F.binary_cross_entropy_with_logits(real, torch.full_like(real, target), reduction="none")

    def fake(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Discriminator's loss of generated images or mismatched pairs."""
        return F.softplus(fake.float())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Generator's loss of its images."""
        return F.softplus(-fake.float())


class Hinge(AdversarialLoss):
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018)."""

    def real(self, real: Tensor, fake: Tensor | None = None, target: float = 1.0) -> Tensor:
        """Zero from a margin of 1 on; there is no label to smooth."""
        return F.relu(1 - real.float())

    def fake(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Zero up to a margin of -1."""
        return F.relu(1 + fake.float())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Linear."""
        return -fake.float()


class Relativistic(AdversarialLoss):
    """Relativistic pairing (Jolicoeur-Martineau 2018, as in R3GAN): each fake against the real image of its row.

    The discriminator's whole loss is in the pairs, so the term of real images alone is zero.
    """

    relative = True

    def real(self, real: Tensor, fake: Tensor | None = None, target: float = 1.0) -> Tensor:
        """Zero."""
        return torch.zeros_like(real, dtype=torch.float32)

    def fake(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """How far the real image is from winning."""
        assert real is not None
        return F.softplus(fake.float() - real.float())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """How far the fake is from winning."""
        assert real is not None
        return F.softplus(real.float() - fake.float())


class RelativisticAverage(AdversarialLoss):
    """Relativistic average: each logit against the mean of the other side in this process's batch."""

    relative = True

    def real(self, real: Tensor, fake: Tensor | None = None, target: float = 1.0) -> Tensor:
        """Real images against the average fake."""
        assert fake is not None
        return F.softplus(fake.float().mean() - real.float())

    def fake(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Fakes against the average real image."""
        assert real is not None
        return F.softplus(fake.float() - real.float().mean())

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Both of these with the sides exchanged."""
        assert real is not None
        fake, real = fake.float(), real.float()
        return F.softplus(real.mean() - fake) + F.softplus(real - fake.mean()).mean()


ADVERSARIAL: dict[AdversarialName, AdversarialLoss] = {
    "paper": AdversarialLoss(),
    "hinge": Hinge(),
    "relativistic": Relativistic(),
    "relativistic_average": RelativisticAverage(),
}
PAPER = ADVERSARIAL["paper"]


def mean(losses: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean of losses (P,) or (P, N), over the rows that ``keep`` (P, bool) marks; 0 where there are none."""
    if keep is None:
        return losses.sum() / max(losses.numel(), 1)
    # Over a mask rather than a selection: the number of rows need not be known on the host, which would wait for it.
    return (losses.flatten(1).mean(1) if losses.dim() > 1 else losses).mul(keep).sum() / keep.sum().clamp(min=1)
