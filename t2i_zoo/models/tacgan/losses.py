"""The six terms of TAC-GAN (Dash et al. 2017, section 3.3, as weighted in the authors' code) as functions of logits.

All results are float32 scalars, means over the batch. A pair of heads is logits (B,) of a real, matching pair and
logits (B, C) of the class; labels are (B,) int64 in [0, C).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn import bce

ClassLoss = Literal["sigmoid", "softmax"]
Heads = tuple[Tensor, Tensor]


def class_term(logits: Tensor, labels: Tensor, kind: ClassLoss = "sigmoid") -> Tensor:
    """Class loss of logits (B, C) against labels (B,).

    Args:
        logits: of the class head.
        labels: the classes.
        kind: ``sigmoid``, as in the authors' code, is the binary cross-entropy of C independent outputs against the
            one-hot label, mean over batch **and** classes, which is 1 / C of the sum; ``softmax`` is the cross-entropy
            of one distribution over the classes, as the paper words it.
    """
    logits = logits.float()
    if kind == "softmax":
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, F.one_hot(labels, logits.shape[1]).to(logits.dtype))


def discriminator_loss(
    real: Heads, wrong: Heads, fake: Heads, labels: Tensor, wrong_labels: Tensor, kind: ClassLoss = "sigmoid"
) -> dict[str, Tensor]:
    """Sum of the six terms, each with weight 1.

    Args:
        real: of real pictures with their captions.
        wrong: of mismatched pictures with the same captions.
        fake: of generated pictures with the captions they were drawn from.
        labels: classes of the captions' own pictures; fakes are to be recognised as these too.
        wrong_labels: the mismatched pictures' own classes, although their captions are of another.
        kind: of ``class_term``.
    """
    terms = {
        "real": bce(real[0], 1.0),
        "wrong": bce(wrong[0], 0.0),
        "fake": bce(fake[0], 0.0),
        "class_real": class_term(real[1], labels, kind),
        "class_wrong": class_term(wrong[1], wrong_labels, kind),
        "class_fake": class_term(fake[1], labels, kind),
    }
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


def generator_loss(fake: Heads, labels: Tensor, kind: ClassLoss = "sigmoid") -> dict[str, Tensor]:
    """Adversarial (non-saturating) term and class term of generated pictures, each with weight 1."""
    terms = {"fake": bce(fake[0], 1.0), "class_fake": class_term(fake[1], labels, kind)}
    return {"loss": terms["fake"] + terms["class_fake"], **terms}
