"""MirrorGAN's objective for the generator (Qiao et al. 2019, equation 13)."""

from __future__ import annotations

from torch import Tensor


def generator_objective(
    adversarial: Tensor,
    caption: Tensor | None,
    weight: float,
    matching: Tensor | None = None,
    matching_weight: float = 0.0,
) -> Tensor:
    """Adversarial losses of all sizes plus lambda times the cross-entropy of the caption; all are float32 scalars.

    The divergence of the condition's distribution, which the code has and the equation lacks, is part of the first.

    Args:
        adversarial: sum over all sizes.
        caption: mean over words, as STREAM finds them in the largest pictures; None leaves it out.
        weight: lambda.
        matching: sum of DAMSM's losses, which neither paper nor code has; None leaves it out.
        matching_weight: its weight.
    """
    loss = adversarial if caption is None else adversarial + weight * caption
    return loss if matching is None else loss + matching_weight * matching
