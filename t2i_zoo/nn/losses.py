"""Losses that several papers share with the same meaning; all results are float32 scalars."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn.adversarial import PAPER, AdversarialLoss, mean
from t2i_zoo.nn.discriminator import Logits

Terms = dict[str, Tensor]


def weighted(terms: Terms, **weights: float) -> Terms:
    """The terms with their weighted sum as ``loss``; a term without a weight counts once."""
    return {"loss": torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum(), **terms}


def over_sizes(sizes: Sequence[int], terms: Sequence[Terms]) -> Terms:
    """Sum the discriminators' terms over the image sizes; each size's own loss is kept as ``at_<size>``."""
    total = {key: torch.stack([term[key] for term in terms]).sum() for key in terms[0]}
    return total | {f"at_{size}": term["loss"] for size, term in zip(sizes, terms, strict=True)}


def kl_to_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), mean over the batch **and** the dimensions: (B, C) each.

    The StackGAN paper sums over dimensions (equation 2); the code of StackGAN, StackGAN++, AttnGAN and MirrorGAN takes
    the mean, and their weights belong to that.
    """
    mu, logvar = mu.float(), logvar.float()
    return -0.5 * torch.mean(1 + logvar - mu.square() - logvar.exp())


def of_other_classes(labels: Tensor, images: Tensor | slice, captions: Tensor | slice) -> Tensor:
    """Which pairs of an image and a caption of one batch are of different classes: (P,) bool.

    Args:
        labels: (B,) int64 class of each image; -1 is no class, and its pairs count as different.
        images: rows of the P images.
        captions: rows of the P captions.
    """
    ours, theirs = labels[images], labels[captions]
    return (ours != theirs) | (ours < 0)


def discriminator_terms(
    real: Logits,
    wrong: Logits | None,
    fake: Logits,
    *,
    keep: Tensor | None = None,
    against: Logits | None = None,
    target: float = 1.0,
    loss: AdversarialLoss = PAPER,
) -> Terms:
    """The terms that papers weigh, of all logits that are present.

    Args:
        real: of B real images with their captions.
        wrong: of P mismatched pairs, whose unconditional logits are ignored; None for none.
        fake: of B generated images with the captions they were generated from.
        keep: (P,) bool, the mismatched pairs that count; all by default.
        against: the real pairs that a relative loss compares mismatched ones with; ``real`` by default, row by row.
        target: of real pairs; below 1 it is one-sided label smoothing.
        loss: the adversarial loss.

    Returns:
        ``real``, ``wrong`` and ``fake`` of matched logits, ``real_alone`` and ``fake_alone`` of unconditional ones.
    """
    terms: Terms = {}
    if real.matched is not None and fake.matched is not None:
        terms["real"] = mean(loss.real(real.matched, fake.matched, target))
        terms["fake"] = mean(loss.fake(fake.matched, real.matched))
        if wrong is not None and wrong.matched is not None:
            terms["wrong"] = mean(loss.fake(wrong.matched, (against or real).matched), keep)
    if real.unconditional is not None and fake.unconditional is not None:
        terms["real_alone"] = mean(loss.real(real.unconditional, fake.unconditional))
        terms["fake_alone"] = mean(loss.fake(fake.unconditional, real.unconditional))
    return terms


def discriminator_loss(
    real: Logits,
    wrong: Logits,
    fake: Logits,
    *,
    keep: Tensor | None = None,
    against: Logits | None = None,
    loss: AdversarialLoss = PAPER,
) -> Terms:
    """Pairs: real + (fake + wrong) / 2. With images alone: (real + alone) / 2 + (fake + wrong + fake alone) / 3.

    The former in StackGAN's Stage I and AttnGAN's DCGAN variant, the latter in Stage II, AttnGAN and MirrorGAN; whether
    there are unconditional logits decides. Arguments are those of ``discriminator_terms``.
    """
    terms = discriminator_terms(real, wrong, fake, keep=keep, against=against, loss=loss)
    if "real_alone" not in terms:
        return weighted(terms, wrong=1 / 2, fake=1 / 2)
    return weighted(terms, real=1 / 2, real_alone=1 / 2, wrong=1 / 3, fake=1 / 3, fake_alone=1 / 3)


def generator_loss(
    fake: Logits, real: Logits | None = None, loss: AdversarialLoss = PAPER, *, alone: float = 1.0
) -> Tensor:
    """The generator's loss on images with their text plus its loss on images alone, whichever logits are present.

    Args:
        fake: of generated images.
        real: of real images with the same text, for a relative ``loss``.
        loss: the adversarial loss.
        alone: weight of images alone beside those with text; without text they are the whole loss.
    """
    matched, unconditional, _ = fake
    real = real or Logits()
    terms = [] if matched is None else [mean(loss.generator(matched, real.matched))]
    if unconditional is not None:
        weight = alone if terms else 1.0
        terms.append(weight * mean(loss.generator(unconditional, real.unconditional)))
    return torch.stack(terms).sum()


def class_loss(scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of class scores (B, K) against labels (B,), mean over the images that have a class.

    It is 0 for a batch without any class. ``smoothing`` is the share of the target that is spread evenly over all
    classes (Szegedy et al. 2016, section 7).
    """
    count = (labels >= 0).sum().clamp_min(1)
    total = F.cross_entropy(scores.float(), labels, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
    return total / count
