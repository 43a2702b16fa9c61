"""The losses of StackGAN++ (Zhang et al. 2017, equations 4 to 7) as functions of logits and pictures.

All results are scalars in float32. Where equations and authors' code differ in weights, these are the code's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn import Logits, bce


def discriminator_loss(
    real: Logits, wrong: Logits | None, fake: Logits, uncond_weight: float = 1.0
) -> dict[str, Tensor]:
    """One discriminator's loss: the sum of its terms on real, mismatched and generated pictures.

    A mismatched picture does not belong to the text, but it is real: its unconditional target is 1. The code gives all
    six terms the weight 1, or with ``UNCOND_LOSS = 0`` the three conditional ones 1, 1/2 and 1/2.

    Args:
        real: of pictures with their own text.
        wrong: of pictures of other classes with the same text; None without text.
        fake: of generated pictures with the text that they were drawn from.
        uncond_weight: of the unconditional terms; without text these are the loss, and it has no effect.
    """
    if real.conditional is None or wrong is None or fake.conditional is None:
        terms = {"real": bce(real.unconditional, 1.0), "fake": bce(fake.unconditional, 0.0)}
        return {"loss": terms["real"] + terms["fake"], **terms}
    assert wrong.conditional is not None
    terms = {
        "real": bce(real.conditional, 1.0),
        "wrong": bce(wrong.conditional, 0.0),
        "fake": bce(fake.conditional, 0.0),
    }
    if uncond_weight == 0:
        return {"loss": terms["real"] + 0.5 * (terms["wrong"] + terms["fake"]), **terms}
    terms["real"] = terms["real"] + uncond_weight * bce(real.unconditional, 1.0)
    terms["wrong"] = terms["wrong"] + uncond_weight * bce(wrong.unconditional, 1.0)
    terms["fake"] = terms["fake"] + uncond_weight * bce(fake.unconditional, 0.0)
    return {"loss": terms["real"] + terms["wrong"] + terms["fake"], **terms}


def generator_loss(fake: Logits, uncond_weight: float = 1.0) -> Tensor:
    """Adversarial loss of one branch: pictures are to look real and, with their text, to belong to it."""
    unconditional = bce(fake.unconditional, 1.0)
    if fake.conditional is None:
        return unconditional
    return bce(fake.conditional, 1.0) + uncond_weight * unconditional


def colour_consistency(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances between two branches' colour means and colour covariances, as means over B * 3 and B * 9.

    The paper (equation 7) sums over the channels and averages over the pictures alone; the code averages over all.

    Args:
        high: (B, 3, S, S), which is pulled towards the other.
        low: (B, 3, s, s) of the branch before; it gets no gradient.
    """
    (mean, covariance), (low_mean, low_covariance) = _colours(high), _colours(low.detach())
    return F.mse_loss(mean, low_mean), F.mse_loss(covariance, low_covariance)


def _colours(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 3) and biased covariance (B, 3, 3) of each picture's colours."""
    with torch.autocast(images.device.type, enabled=False):  # it would make the product half precision
        pixels = images.float().flatten(2)
        mean = pixels.mean(2, keepdim=True)
        centred = pixels - mean
        return mean[..., 0], centred @ centred.transpose(1, 2) / pixels.shape[2]
