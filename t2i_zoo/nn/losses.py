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
