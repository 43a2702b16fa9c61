"""The losses of GAN-CLS and GAN-INT (Reed et al. 2016, algorithm 1 and equations 3 to 5) as functions of logits.

The authors' code takes log(D + 1e-12) of a sigmoid; here the binary cross-entropy is taken of the logits, in float32,
which differs only where the sigmoid saturates and is safe in half precision. All results are scalars, means over the
batch.
"""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.nn import bce


def discriminator_loss(
    real: Tensor,
    wrong: Tensor | None,
    fake: Tensor,
    *,
    mismatch_weight: float = 0.5,
    fake_weight: float | None = None,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Sum real, mismatched and fake terms, weighted 1, w and 1 - w (paper: w = 1/2; authors' ``cls_weight``).

    Args:
        real: logits (B,) of real pictures with their captions.
        wrong: logits (B,) of mismatched pairs; None, with ``mismatch_weight=0``, is a plain conditional GAN.
        fake: logits (B,) of generated pictures with the captions they were drawn from.
        mismatch_weight: w.
        fake_weight: the weight of the fake term where it is not to be 1 - w (the PyTorch port has 1).
        label_smoothing: subtracted from the target of the real term (the port has 0.1).
    """
    terms = {"real": bce(real, 1.0 - label_smoothing), "fake": bce(fake, 0.0)}
    loss = terms["real"] + (1.0 - mismatch_weight if fake_weight is None else fake_weight) * terms["fake"]
    if wrong is not None:
        terms["wrong"] = bce(wrong, 0.0)
        loss = loss + mismatch_weight * terms["wrong"]
    return {"loss": loss, **terms}


def generator_loss(fake: Tensor, matched: int, interpolation_weight: float = 0.0) -> dict[str, Tensor]:
    """Adversarial loss on B matched and, with GAN-INT, up to B/2 interpolated sentences.

    As in ``main_cls_int.lua`` the sum over both is divided by their joint number, so with a weight of 1 every sample
    counts the same and the matched term has 2/3 of its usual weight.

    Args:
        fake: logits (B + I,) of generated pictures, the ``matched`` ones first.
        matched: B.
        interpolation_weight: what an interpolated sample counts (authors' ``interp_weight``; equation 5).
    """
    if fake.shape[0] == matched:
        return {"loss": bce(fake, 1.0)}
    real_text, between = bce(fake[:matched], 1.0), bce(fake[matched:], 1.0)
    share = matched / fake.shape[0]
    loss = share * real_text + (1.0 - share) * interpolation_weight * between
    return {"loss": loss, "matched": real_text, "interpolated": between}


def interpolate(sentences: Tensor, spread: Tensor | None = None) -> Tensor:
    """GAN-INT sentences between the two halves of a batch: (B, D) to (B // 2, D).

    Args:
        sentences: the batch's sentence embeddings.
        spread: (B // 2, 1) in [-1, 1] to move along the line and beyond its ends (authors' ``interp_type 2``, beta from
            -0.5 to 1.5); None is the midpoint (``interp_type 1``, beta = 0.5, the default).
    """
    half = sentences.shape[0] // 2
    first, second = sentences[:half], sentences[half : 2 * half]
    middle = 0.5 * (first + second)
    return middle if spread is None else middle + spread * (second - first)
