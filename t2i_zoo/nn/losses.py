"""Losses that several papers share and mean the same by; all results are float32 scalars."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn.adversarial import PAPER, AdversarialLoss, mean
from t2i_zoo.nn.discriminator import Logits


def over_sizes(sizes: Sequence[int], terms: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sum the discriminators' terms over the image sizes; each size's own loss is kept as ``at_<size>``."""
    total = {key: torch.stack([term[key] for term in terms]).sum() for key in terms[0]}
    return total | {f"at_{size}": term["loss"] for size, term in zip(sizes, terms, strict=True)}


def kl_to_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), mean over the batch **and** its dimensions: (B, C) twice.

    The StackGAN paper sums over dimensions (equation 2); the code of StackGAN, StackGAN++, AttnGAN and MirrorGAN
    takes the mean, and their weights belong to that.
    """
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * torch.mean(1 + logvar - mu.square() - logvar.exp())


def discriminator_loss(
    real: Logits,
    wrong: Logits,
    fake: Logits,
    *,
    keep: Tensor | None = None,
    against: Logits | None = None,
    loss: AdversarialLoss = PAPER,
) -> dict[str, Tensor]:
    """Pairs: real + (fake + wrong) / 2. With images alone: (real + alone) / 2 + (fake + wrong + fake alone) / 3.

    The former in StackGAN's Stage I and AttnGAN's DCGAN variant, the latter in Stage II, AttnGAN and MirrorGAN: it
    follows from the unconditional logits, which are there or not.

    Args:
        real: of B real images with their captions.
        wrong: of P mismatched pairs, whose unconditional logits are not looked at.
        fake: of B generated images with the captions they were generated from.
        keep: (P,) bool, the mismatched pairs that count; by default all.
        against: the real pairs that mismatched ones are compared with; by default ``real``, row by row.
        loss: the adversarial loss.
    """
    assert real.matched is not None
    assert wrong.matched is not None
    assert fake.matched is not None
    terms = {
        "real": mean(loss.real(real.matched, fake.matched)),
        "wrong": mean(loss.fake(wrong.matched, (against or real).matched), keep),
        "fake": mean(loss.fake(fake.matched, real.matched)),
    }
    if real.unconditional is None or fake.unconditional is None:
        return {"loss": terms["real"] + (terms["fake"] + terms["wrong"]) / 2, **terms}
    terms |= {
        "real_alone": mean(loss.real(real.unconditional, fake.unconditional)),
        "fake_alone": mean(loss.fake(fake.unconditional, real.unconditional)),
    }
    total = (terms["real"] + terms["real_alone"]) / 2 + (terms["fake"] + terms["wrong"] + terms["fake_alone"]) / 3
    return {"loss": total, **terms}


def generator_loss(fake: Logits, real: Logits | None = None, loss: AdversarialLoss = PAPER) -> Tensor:
    """Sum of the generator's loss on images with their text and on images alone, whichever are there.

    Args:
        fake: of generated images.
        real: of real images with the same text, where ``loss`` is relative.
        loss: the adversarial loss.
    """
    pairs = zip(fake[:2], (real or Logits())[:2], strict=True)
    return torch.stack([mean(loss.generator(ours, theirs)) for ours, theirs in pairs if ours is not None]).sum()


def class_loss(scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of class scores (B, K) against labels (B,), a float32 mean over the images that have a class.

    Of a batch without any class it is 0. ``smoothing`` is the share of the target that is spread evenly over all
    classes (Szegedy et al. 2016, section 7).
    """
    count = (labels >= 0).sum().clamp_min(1)
    total = F.cross_entropy(scores.float(), labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
    return total / count
