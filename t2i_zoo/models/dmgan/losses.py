"""DM-GAN's objective for the generator (Zhu et al. 2019, section 3.4)."""

from __future__ import annotations

from torch import Tensor


def generator_objective(adversarial: Tensor, matching: dict[str, Tensor], weight: float) -> Tensor:
    """Adversarial losses of all sizes plus lambda 2 times the losses of DAMSM; all are float32 scalars.

    Args:
        adversarial: sum over all sizes, with the condition's divergence times lambda 1.
        matching: the losses of words and sentence; empty without a DAMSM.
        weight: lambda 2.
    """
    return adversarial + weight * sum(matching.values()) if matching else adversarial
