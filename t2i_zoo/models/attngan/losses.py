"""AttnGAN's objective for the generator (Xu et al. 2018, equation 4)."""

from __future__ import annotations

from torch import Tensor


def generator_objective(adversarial: Tensor, matching: dict[str, Tensor], weight: float) -> Tensor:
    """Adversarial losses of all sizes plus lambda times the losses of DAMSM; all are float32 scalars.

    Args:
        adversarial: sum over all sizes, with the condition's divergence, which the code has and the equation lacks.
        matching: the losses of words and sentence; empty without a DAMSM.
        weight: lambda.
    """
    return adversarial + weight * sum(matching.values()) if matching else adversarial
