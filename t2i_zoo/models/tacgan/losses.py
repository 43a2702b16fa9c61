"""The six terms of TAC-GAN (Dash et al. 2017, section 3.3, as weighted in the authors' code) as functions of logits.

All results are float32 scalars, means over the batch. Class logits are (B, C); labels are (B,) int64 in [0, C).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo import nn
from t2i_zoo.nn import PAPER, AdversarialLoss, Logits, mean

ClassLoss = Literal["sigmoid", "softmax"]


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
        kind: of ``class_term``.
        loss: the adversarial loss.
    """
    assert real.matched is not None
    assert wrong.matched is not None
    assert fake.matched is not None
    terms = {
        "real": mean(loss.real(real.matched, fake.matched)),
        "wrong": mean(loss.fake(wrong.matched, real.matched)),
        "fake": mean(loss.fake(fake.matched, real.matched)),
    }
    if real.unconditional is not None and fake.unconditional is not None:
        terms["real_alone"] = mean(loss.real(real.unconditional, fake.unconditional))
        terms["fake_alone"] = mean(loss.fake(fake.unconditional, real.unconditional))
    for name, logits, own in (("real", real, labels), ("wrong", wrong, wrong_labels), ("fake", fake, labels)):
        assert logits.classes is not None
        terms[f"class_{name}"] = class_term(logits.classes, own, kind)
    return {"loss": torch.stack(list(terms.values())).sum(), **terms}


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
    return {"loss": terms["fake"] + terms["class_fake"], **terms}
