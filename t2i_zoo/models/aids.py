"""Training aids that every GAN of the zoo takes as options: what they do to images, networks, losses and averages.

Sources are named with the options of ``TextToImageGAN``; the pure functions are in ``t2i_zoo.nn``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.projection import load_network, replace_discriminator
from t2i_zoo.nn import (
    ConditionalDiscriminator,
    Logits,
    adaptive_probability,
    augment,
    matching_aware_penalty,
    overfitting,
    squared_gradients,
)

if TYPE_CHECKING:
    from t2i_zoo.models.base import TextToImageGAN


NEEDS_CONTRACT = ("r1", "r2", "matching_penalty", "augment", "lecam")  #: options that look inside


def check_options(options: Mapping[str, Any]) -> None:
    """Raise for values that no training can have."""
    for name, low, wanted in (
        ("lr_decay_every", 1, "at least 1 epoch"),
        ("penalty_every", 1, "at least 1 batch"),
        ("r1", 0, "0 (off) or more"),
        ("r2", 0, "0 (off) or more"),
        ("matching_penalty", 0, "0 (off) or more"),
        ("lecam", 0, "0 (off) or more"),
    ):
        if options[name] < low:
            raise T2IError(f"found --model.{name} {options[name]}, expected {wanted}")
    if (clip := options["gradient_clip"]) is not None and clip <= 0:
        raise T2IError(f"found --model.gradient_clip {clip}, expected a norm above 0, or null not to clip")
    if not 0 <= options["ema_decay"] < 1:
        raise T2IError(
            f"found --model.ema_decay {options['ema_decay']}, expected 0 (no averaging) or more, and less than 1"
        )
    if (half_life := options["ema_half_life"]) is not None and half_life <= 0:
        raise T2IError(f"found --model.ema_half_life {half_life}, expected a number of images above 0")
    if options["augment_target"] is not None and not options["augment"]:
        raise T2IError(
            "found --model.augment_target without --model.augment: name what to augment with, such as [translation]"
        )


def changed(model: TextToImageGAN, discriminator: nn.Module) -> nn.Module:
    """A paper's discriminator as the options ``projected`` and ``spectral_norm`` have it."""
    if model.hparams["projected"]:
        discriminator = replace_discriminator(model, discriminator)
    if model.hparams["spectral_norm"]:
        for module in list(discriminator.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)) and not parametrized(module):
                parametrizations.spectral_norm(module)
    return discriminator


def parametrized(module: nn.Module) -> bool:
    """Whether a layer computes its weight from others already."""
    return torch.nn.utils.parametrize.is_parametrized(module)


def augmented(model: TextToImageGAN, images: list[Tensor]) -> list[Tensor]:
    """Images of each size with the option ``augment``; each size draws random numbers of its own."""
    if not (policy := model.hparams["augment"]):
        return images
    probability = getattr(model, "augment_probability", None)
    return [augment(x, policy, model.rng, probability=probability) for x in images]


def penalties(model: TextToImageGAN, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
    """The gradient penalties of the options, under their names, and their weighted sum as ``loss``; empty without any.

    Gradients are those of raw logits with respect to images before augmentation, summed over all dimensions of a
    sample. R1 and R2 are of the sum of matched and unconditional logits, MA-GP of matched ones; where there are several
    sizes, their penalties are added.
    """
    options = model.hparams
    condition = model.condition(fakes)
    count = len(batch["images"][-1])
    condition = condition if condition is None else condition[:count].detach().float().requires_grad_()
    terms: dict[str, Tensor] = {}
    total: list[Tensor] = []
    # Half precision overflows where a gradient is squared, or raised to the sixth power.
    with torch.autocast(model.device.type, enabled=False):
        for name, pyramid, real in (("r1", batch["images"], True), ("r2", fakes.images, False)):
            matching = options["matching_penalty"] if real and condition is not None else 0
            if not (options[name] or matching):
                continue
            images = [x[:count].detach().float().requires_grad_() for x in pyramid[-len(model.discriminators) :]]
            judged = model.observe(images, real=real).judge(condition)
            if options[name]:
                squares = squared_gradients(torch.stack([_score(logits).sum() for logits in judged]), images)
                terms[name] = torch.stack([square.mean() for square in squares]).sum()
                total.append(options[name] / 2 * terms[name])
            if matching:
                assert condition is not None
                found = []
                for logits, x in zip(judged, images, strict=True):
                    assert logits.matched is not None
                    found.append(
                        matching_aware_penalty(logits.matched, x, condition, matching, options["matching_power"])
                    )
                terms["matching"] = torch.stack([one.penalty for one in found]).sum()
                terms["image_norm"] = torch.stack([one.image_norm for one in found]).mean()
                terms["sentence_norm"] = torch.stack([one.sentence_norm for one in found]).mean()
                total.append(terms["matching"])
    return {"loss": torch.stack(total).sum(), **terms} if total else {}


def _score(logits: Logits) -> Tensor:
    """One number an image: matched plus unconditional logit, each averaged where a discriminator has several."""
    parts = [x.flatten(1).mean(1) if x.dim() > 1 else x for x in logits[:2] if x is not None]
    return torch.stack(parts).sum(0)


def regularised(
    model: TextToImageGAN, losses: dict[str, Tensor], judged: Mapping[bool, list[Logits]]
) -> dict[str, Tensor]:
    """The discriminator's loss with LeCam's penalty, and the meter of overfitting that adaptive augmentation follows.

    Args:
        model: whose buffers are updated.
        losses: the paper's.
        judged: the logits that they were computed from, of real images (True) and of generated ones (False).
    """
    options = model.hparams
    if not options["lecam"] and options["augment_target"] is None:
        return losses
    real, fake = (torch.cat([logits.all().flatten() for logits in judged[side]]) for side in (True, False))
    losses = losses | {"overfitting": overfitting(real)}
    if options["augment_target"] is not None:
        p, count = model.augment_probability, len(judged[True][0].all())
        p.copy_(adaptive_probability(p, losses["overfitting"], count, options["augment_target"]))
    if options["lecam"]:
        losses["lecam"] = model.lecam(real, fake)
        losses["loss"] = losses["loss"] + options["lecam"] * losses["lecam"]
    return losses


def prepare(model: TextToImageGAN) -> None:
    """Raise where an option asks for what the discriminator is not made for; load what the options look at.

    Raises:
        T2IError: where a discriminator of your own is no ``ConditionalDiscriminator``.
    """
    asked = next((name for name in NEEDS_CONTRACT if model.hparams[name]), None)
    odd = [type(one).__name__ for one in model.discriminators if not isinstance(one, ConditionalDiscriminator)]
    if asked and odd:
        raise T2IError(
            f"found --model.{asked} with a {odd[0]}, expected a discriminator derived from t2i_zoo.nn's "
            "ConditionalDiscriminator: derive it, or leave the option out"
        )
    if model.hparams["projected"]:
        load_network(model)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    penalty = next((name for name in ("r1", "r2", "matching_penalty") if model.hparams[name]), None)
    if penalty and any(isinstance(m, norms) for m in model.discriminator.modules()):
        warnings.warn(
            f"--model.{penalty} with batch norm in the discriminator: each image's gradient depends on the "
            "others of its batch, so that the penalty is not quite the paper's",
            stacklevel=2,
        )
