"""The losses of StackGAN as its PyTorch code weighs them, as functions of logits; all results are float32 scalars.

The authors take the binary cross-entropy of a sigmoid; see ``t2i_zoo.nn.bce``. The paper's equations 3 to 6 have one
real and one fake term; the mismatched one, the unconditional ones and all weights are the code's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn import bce, kl_to_normal


def mismatched(logits: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of mismatched pairs (P,) against 0, over those that ``keep`` (P, bool) marks; 0 for none.

    A mean over a mask rather than over a selection: how many are kept need not be known on the host.
    """
    losses = F.softplus(logits.float())  # -log(1 - sigmoid)
    if keep is None:
        return losses.sum() / max(len(losses), 1)
    return (losses * keep).sum() / keep.sum().clamp(min=1)


def discriminator_loss(
    real: Tensor,
    wrong: Tensor,
    fake: Tensor,
    *,
    real_alone: Tensor | None = None,
    fake_alone: Tensor | None = None,
    keep: Tensor | None = None,
) -> dict[str, Tensor]:
    """Stage I: real + (fake + wrong) / 2. Stage II: (real + real alone) / 2 + (fake + wrong + fake alone) / 3.

    Args:
        real: logits (B,) of real pictures with their captions.
        wrong: logits (P,) of mismatched pairs.
        fake: logits (B,) of generated pictures with the captions they were drawn from.
        real_alone: logits (B,) of real pictures without captions; None, with ``fake_alone``, is Stage I.
        fake_alone: logits (B,) of generated pictures without captions.
        keep: (P,) bool, the mismatched pairs that count; None counts all.
    """
    terms = {"real": bce(real, 1.0), "wrong": mismatched(wrong, keep), "fake": bce(fake, 0.0)}
    if real_alone is None or fake_alone is None:
        return {"loss": terms["real"] + (terms["fake"] + terms["wrong"]) / 2, **terms}
    terms |= {"real_alone": bce(real_alone, 1.0), "fake_alone": bce(fake_alone, 0.0)}
    loss = (terms["real"] + terms["real_alone"]) / 2 + (terms["fake"] + terms["wrong"] + terms["fake_alone"]) / 3
    return {"loss": loss, **terms}


def generator_loss(
    fake: Tensor, mu: Tensor, logvar: Tensor, *, fake_alone: Tensor | None = None, kl_weight: float = 2.0
) -> dict[str, Tensor]:
    """Non-saturating loss, in Stage II on pictures alone too, and the weighted KL divergence of the condition.

    Args:
        fake: logits (B,) of generated pictures with their captions.
        mu: (B, C), mean of the condition.
        logvar: (B, C), its log-variance.
        fake_alone: logits (B,) of generated pictures without captions; None in Stage I.
        kl_weight: the authors' ``COEFF.KL``.
    """
    terms = {"adversarial": bce(fake, 1.0), "kl": kl_to_normal(mu, logvar)}
    loss = terms["adversarial"] + kl_weight * terms["kl"]
    if fake_alone is not None:
        terms["alone"] = bce(fake_alone, 1.0)
        loss = loss + terms["alone"]
    return {"loss": loss, **terms}
