"""The six terms of TAC-GAN (Dash et al. 2017, section 3.3, weighted as in the authors' code) as functions of logits.

All results are float32 scalars, means over the batch. Class logits are (B, C); labels are (B,) int64 in [0, C).
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from t2i_zoo import nn
from t2i_zoo.nn import PAPER, AdversarialLoss, Logits, discriminator_terms, weighted

ClassLoss = Literal["sigmoid", "softmax"]


def class_term(logits: Tensor, labels: Tensor, kind: ClassLoss = "sigmoid") -> Tensor:
    """Class loss of the logits of the class head.

    Args:
        logits: (B, C) of the class head.
        labels: (B,) classes.
        kind: ``sigmoid``, as in the authors' code, is the binary cross-entropy of C independent outputs against the
            one-hot label, mean over batch **and** classes, which is 1 / C of the sum; ``softmax`` is the cross-entropy
            of one distribution over the classes, as the paper words it.
    """
    logits = logits.float()
    if kind == "softmax":
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))


def discriminator_loss(
    real: Logits,
    wrong: Logits,
    fake: Logits,
    labels: Tensor,
    wrong_labels: Tensor,
    kind: ClassLoss = "sigmoid",
    loss: AdversarialLoss = PAPER,
) -> dict[str, Tensor]:
    """Sum of the six terms, each with weight 1; unconditional logits, which the paper lacks, add two.

    Args:
        real: of real images with their captions.
        wrong: of mismatched images with the same captions.
        fake: of generated images with the captions they were generated from.
        labels: classes of the captions' own images; fakes are to be recognised as these too.
        wrong_labels: the mismatched images' own classes, although their captions are of another.
        kind: as in ``class_term``.
        loss: the adversarial loss.
    """
    terms = discriminator_terms(real, wrong, fake, loss=loss)
    for name, logits, own in (("real", real, labels), ("wrong", wrong, wrong_labels), ("fake", fake, labels)):
        assert logits.classes is not None
        terms[f"class_{name}"] = class_term(logits.classes, own, kind)
    return weighted(terms)


def generator_loss(
    fake: Logits,
    labels: Tensor,
    kind: ClassLoss = "sigmoid",
    *,
    real: Logits | None = None,
    loss: AdversarialLoss = PAPER,
) -> dict[str, Tensor]:
    """Adversarial term and class term of generated images, each with weight 1."""
    assert fake.classes is not None
    terms = {"fake": nn.generator_loss(fake, real, loss), "class_fake": class_term(fake.classes, labels, kind)}
    return weighted(terms)
