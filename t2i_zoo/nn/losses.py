"""Losses that several papers share and mean the same by; all results are float32 scalars."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bce(logits: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of logits of any shape against one target in [0, 1], mean over all of them.

    The references take it of a sigmoid; of logits it differs only where the sigmoid saturates, and half precision is
    safe.
    """
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def kl_to_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), mean over the batch **and** its dimensions: (B, C) twice.

    The StackGAN paper sums over dimensions (equation 2); the code of StackGAN, StackGAN++, AttnGAN and MirrorGAN
    takes the mean, and their weights belong to that.
    """
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * torch.mean(1 + logvar - mu.square() - logvar.exp())


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
    """Pairs: real + (fake + wrong) / 2. With pictures alone: (real + alone) / 2 + (fake + wrong + fake alone) / 3.

    The former in StackGAN's Stage I and AttnGAN's DCGAN variant, the latter in Stage II, AttnGAN and MirrorGAN.

    Args:
        real: logits (B,) of real pictures with their captions.
        wrong: logits (P,) of mismatched pairs.
        fake: logits (B,) of generated pictures with the captions they were drawn from.
        real_alone: logits (B,) of real pictures without captions; None, with ``fake_alone``, leaves both out.
        fake_alone: logits (B,) of generated pictures without captions.
        keep: (P,) bool, the mismatched pairs that count; None counts all.
    """
    terms = {"real": bce(real, 1.0), "wrong": mismatched(wrong, keep), "fake": bce(fake, 0.0)}
    if real_alone is None or fake_alone is None:
        return {"loss": terms["real"] + (terms["fake"] + terms["wrong"]) / 2, **terms}
    terms |= {"real_alone": bce(real_alone, 1.0), "fake_alone": bce(fake_alone, 0.0)}
    loss = (terms["real"] + terms["real_alone"]) / 2 + (terms["fake"] + terms["wrong"] + terms["fake_alone"]) / 3
    return {"loss": loss, **terms}


def class_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of class scores (B, K) against labels (B,), a float32 mean over the pictures that have a class.

    Of a batch without any class it is 0.
    """
    count = (labels >= 0).sum().clamp_min(1)
    return F.cross_entropy(scores.float(), labels, ignore_index=-1, reduction="sum") / count
