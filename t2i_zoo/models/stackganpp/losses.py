"""The losses of StackGAN++ (Zhang et al. 2017, equations 4 to 7) as functions of logits and images.

All results are scalars in float32. Where equations and authors' code differ in weights, these are the code's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn import PAPER, AdversarialLoss, Logits, mean


def discriminator_loss(
    real: Logits, wrong: Logits | None, fake: Logits, uncond_weight: float = 1.0, loss: AdversarialLoss = PAPER
) -> dict[str, Tensor]:
    """One discriminator's loss: the sum of its terms on real, mismatched and generated images.

    A mismatched image does not belong to the text, but it is real: its unconditional target is 1. The code gives all
    six terms the weight 1, or with ``UNCOND_LOSS = 0`` the three conditional ones 1, 1/2 and 1/2.

    Args:
        real: of images with their own text.
        wrong: of images of other classes with the same text; None without text.
        fake: of generated images with the text that they were generated from.
        uncond_weight: of the unconditional terms; without text these are the loss, and it has no effect.
        loss: the adversarial loss.
    """
    assert real.unconditional is not None
    assert fake.unconditional is not None
    alone = {
        "real": mean(loss.real(real.unconditional, fake.unconditional)),
        "fake": mean(loss.fake(fake.unconditional, real.unconditional)),
    }
    if real.matched is None or wrong is None or fake.matched is None:
        return {"loss": alone["real"] + alone["fake"], **alone}
    assert wrong.matched is not None
    assert wrong.unconditional is not None
    terms = {
        "real": mean(loss.real(real.matched, fake.matched)),
        "wrong": mean(loss.fake(wrong.matched, real.matched)),
        "fake": mean(loss.fake(fake.matched, real.matched)),
    }
    if uncond_weight == 0:
        return {"loss": terms["real"] + 0.5 * (terms["wrong"] + terms["fake"]), **terms}
    alone["wrong"] = mean(loss.real(wrong.unconditional, fake.unconditional))
    terms = {name: term + uncond_weight * alone[name] for name, term in terms.items()}
    return {"loss": terms["real"] + terms["wrong"] + terms["fake"], **terms}


def generator_loss(
    fake: Logits, uncond_weight: float = 1.0, *, real: Logits | None = None, loss: AdversarialLoss = PAPER
) -> Tensor:
    """Adversarial loss of one branch: images are to look real and, with their text, to belong to it."""
    assert fake.unconditional is not None
    real = real or Logits()
    alone = mean(loss.generator(fake.unconditional, real.unconditional))
    if fake.matched is None:
        return alone
    return mean(loss.generator(fake.matched, real.matched)) + uncond_weight * alone


def colour_consistency(high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances between two branches' colour means and colour covariances, as means over B * 3 and B * 9.

    The paper (equation 7) sums over the channels and averages over the images alone; the code averages over all.

    Args:
        high: (B, 3, S, S), which is pulled towards the other.
        low: (B, 3, s, s) of the branch before; it gets no gradient.
    """
    (mean, covariance), (low_mean, low_covariance) = _colours(high), _colours(low.detach())
    return F.mse_loss(mean, low_mean), F.mse_loss(covariance, low_covariance)


def _colours(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, 3) and biased covariance (B, 3, 3) of each image's colours."""
    with torch.autocast(images.device.type, enabled=False):  # it would make the product half precision
        pixels = images.float().flatten(2)
        mean = pixels.mean(2, keepdim=True)
        centred = pixels - mean
        return mean[..., 0], centred @ centred.transpose(1, 2) / pixels.shape[2]
