"""MirrorGAN's objective for the generator (Qiao et al. 2019, equation 13)."""

from __future__ import annotations

from torch import Tensor


def generator_objective(
    adversarial: Tensor, caption: Tensor | None, weight: float, matching: dict[str, Tensor], matching_weight: float
) -> Tensor:
    """Adversarial losses of all sizes plus lambda times the cross-entropy of the caption; all are float32 scalars.

    Args:
        adversarial: sum over all sizes, with the condition's divergence, which the code has and the equation lacks.
        caption: mean over words, as STREAM finds them in the largest images; None leaves it out.
        weight: lambda.
        matching: DAMSM's losses of words and sentence, which neither paper nor code has; empty without a DAMSM.
        matching_weight: their weight.
    """
    loss = adversarial if caption is None else adversarial + weight * caption
    return loss + matching_weight * sum(matching.values()) if matching else loss
