"""The losses of StackGAN++ (Zhang et al. 2017, equations 4 to 7) as functions of logits and images.

All results are float32 scalars. Where equations and authors' code differ in weights, these are the code's. The
generator's adversarial loss is ``t2i_zoo.nn.generator_loss``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn import PAPER, AdversarialLoss, Logits, discriminator_terms, mean, weighted


def discriminator_loss(
    real: Logits, wrong: Logits | None, fake: Logits, uncond_weight: float = 1.0, loss: AdversarialLoss = PAPER
) -> dict[str, Tensor]:
    """One discriminator's loss: the sum of its terms on real, mismatched and generated images.

    A mismatched image does not belong to the text, but it is real: its unconditional target is 1. The code gives all
    six terms the weight 1, or with ``UNCOND_LOSS = 0`` the three conditional ones 1, 1/2 and 1/2.

    Args:
        real: of images with their own text.
        wrong: of images of other classes with the same text; None without text.
        fake: of generated images with the text they were generated from.
        uncond_weight: of the unconditional terms; without text they are the whole loss, and it has no effect.
        loss: the adversarial loss.
    """
    terms = discriminator_terms(real, wrong, fake, loss=loss)
    if wrong is None or "wrong" not in terms:
        return weighted({"real": terms["real_alone"], "fake": terms["fake_alone"]})
    names = ("real", "wrong", "fake")
    if uncond_weight == 0:
        return weighted({name: terms[name] for name in names}, wrong=0.5, fake=0.5)
    assert wrong.unconditional is not None
    terms["wrong_alone"] = mean(loss.real(wrong.unconditional, fake.unconditional))
    return weighted({name: terms[name] + uncond_weight * terms[f"{name}_alone"] for name in names})


def colour_consistency(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances between two branches' colour means and colour covariances, as means over B * 3 and B * 9.

    The paper (equation 7) sums over the channels and averages over the images alone; the code averages over all.

    Args:
        high: (B, 3, S, S) in [-1, 1], which is pulled towards the other.
        low: (B, 3, s, s) of the branch before; it gets no gradient.
    """
    (mean, covariance), (low_mean, low_covariance) = _colours(high), _colours(low.detach())
    return F.mse_loss(mean, low_mean), F.mse_loss(covariance, low_covariance)


def _colours(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 3) and biased covariance (B, 3, 3) of each image's colours."""
    with torch.autocast(images.device.type, enabled=False):  # it would compute the product in half precision
        pixels = images.float().flatten(2)
        mean = pixels.mean(2, keepdim=True)
        centred = pixels - mean
        return mean[..., 0], centred @ centred.transpose(1, 2) / pixels.shape[2]
