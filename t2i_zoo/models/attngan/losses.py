"""AttnGAN's objective for the generator (Xu et al. 2018, equation 4)."""

from __future__ import annotations

from torch import Tensor


def generator_objective(adversarial: Tensor, words: Tensor | None, sentence: Tensor | None, weight: float) -> Tensor:
    """Adversarial losses of all sizes plus lambda times both losses of DAMSM; all are float32 scalars.

    The divergence of the condition's distribution, which the code has and the equation lacks, is part of the former.
    Without DAMSM (None) nothing is added.
    """
    if words is None or sentence is None:
        return adversarial
    return adversarial + weight * (words + sentence)
