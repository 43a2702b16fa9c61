"""The losses of GAN-CLS and GAN-INT (Reed et al. 2016, algorithm 1 and equations 3 to 5) as functions of logits.

The authors' code takes log(D + 1e-12) of a sigmoid; see ``t2i_zoo.nn.adversarial``. All results are float32 scalars,
means over the batch.
"""

from __future__ import annotations

from torch import Tensor

from t2i_zoo import nn
from t2i_zoo.nn import PAPER, AdversarialLoss, Logits, discriminator_terms, weighted


def discriminator_loss(
    real: Logits,
    wrong: Logits | None,
    fake: Logits,
    *,
    mismatch_weight: float = 0.5,
    fake_weight: float | None = None,
    label_smoothing: float = 0.0,
    loss: AdversarialLoss = PAPER,
) -> dict[str, Tensor]:
    """Sum real, mismatched and fake terms, weighted 1, w and 1 - w (paper: w = 1/2; authors' ``cls_weight``).

    Unconditional logits, which the paper's discriminator lacks and a projected one has, add two terms of weight 1.

    Args:
        real: of B real images with their captions.
        wrong: of mismatched pairs; None, with ``mismatch_weight=0``, is a plain conditional GAN.
        fake: of generated images with the captions they were generated from.
        mismatch_weight: w.
        fake_weight: weight of the fake term; 1 - w by default (the PyTorch port has 1).
        label_smoothing: subtracted from the target of the real term (the port has 0.1).
        loss: the adversarial loss; only the paper's has a label to smooth.
    """
    terms = discriminator_terms(real, wrong, fake, target=1.0 - label_smoothing, loss=loss)
    return weighted(terms, wrong=mismatch_weight, fake=1.0 - mismatch_weight if fake_weight is None else fake_weight)


def generator_loss(
    fake: Logits,
    matched: int,
    interpolation_weight: float = 0.0,
    *,
    real: Logits | None = None,
    loss: AdversarialLoss = PAPER,
) -> dict[str, Tensor]:
    """Adversarial loss on B matched and, with GAN-INT, up to B/2 interpolated sentences.

    As in ``main_cls_int.lua`` the sum over both is divided by their joint number, so with a weight of 1 every sample
    counts the same and the matched term has 2/3 of its usual weight.

    Args:
        fake: of B + I generated images, the ``matched`` ones first.
        matched: B.
        interpolation_weight: weight of an interpolated sample (authors' ``interp_weight``; equation 5).
        real: of real images with the matched sentences, for a relative ``loss``.
        loss: the adversarial loss.
    """
    assert fake.matched is not None
    count = len(fake.matched) - matched
    if not count:
        return {"loss": nn.generator_loss(fake, real, loss)}
    terms = {
        "matched": nn.generator_loss(fake.rows(slice(matched)), real, loss),
        "interpolated": nn.generator_loss(fake.rows(slice(matched, None)), real and real.rows(slice(count)), loss),
    }
    share = matched / len(fake.matched)
    return weighted(terms, matched=share, interpolated=(1.0 - share) * interpolation_weight)


def interpolate(sentences: Tensor, spread: Tensor | None = None) -> Tensor:
    """GAN-INT sentences between the two halves of a batch: (B, D) to (B // 2, D).

    Args:
        sentences: the batch's sentence embeddings.
        spread: (B // 2, 1) in [-1, 1] to move along the line and beyond its ends (authors' ``interp_type 2``, beta from
            -0.5 to 1.5); by default the midpoint (``interp_type 1``, beta = 0.5, the authors' default).
    """
    half = sentences.shape[0] // 2
    first, second = sentences[:half], sentences[half : 2 * half]
    middle = 0.5 * (first + second)
    return middle if spread is None else middle + spread * (second - first)
