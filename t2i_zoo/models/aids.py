"""Training aids that every GAN of the zoo takes as options: their effects on images, networks and losses.

Sources are named with the options of ``TextToImageGAN``; the pure functions are in ``t2i_zoo.nn``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.companions import CompanionModule
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.observed import Observed
from t2i_zoo.models.projection import Projected, Projection, projected
from t2i_zoo.nn import (
    ADVERSARIAL,
    AdversarialLoss,
    Augmentation,
    ConditionalDiscriminator,
    LeCam,
    Logits,
    adaptive_probability,
    augment,
    matching_aware_penalty,
    overfitting,
    squared_gradients,
)

NEEDS_CONTRACT = ("r1", "r2", "matching_penalty", "augment", "lecam")  #: options that need a ConditionalDiscriminator


def check_options(options: Mapping[str, Any]) -> None:
    """Raise for names that are none of an aid, and for aids that do not go together."""
    choices = {
        "augment": get_args(Augmentation),
        "adversarial_loss": tuple(ADVERSARIAL),
        "compile": ("none", "networks"),
    }
    for name, allowed in choices.items():
        given = options[name] if isinstance(options[name], list) else [options[name]] if options[name] else []
        if odd := [value for value in given if value not in allowed]:
            raise T2IError(f"found {odd[0]} in --model.{name}, expected one of {', '.join(allowed)}")
    if options["spectral_norm"] and options.get("gradient_checkpointing"):
        raise T2IError(  # the second forward would take another power iteration, and so other weights
            "found --model.spectral_norm with --model.gradient_checkpointing, whose gradients would be wrong: leave "
            "one of them out"
        )
    if options["augment_target"] is not None and not options["augment"]:
        raise T2IError(
            "found --model.augment_target without --model.augment: name what to augment with, such as [translation]"
        )


class AidedModule(Drawing, CompanionModule):
    """The discriminator's half of ``TextToImageGAN``: how losses reach it, and how options change it."""

    discriminator: nn.Module  #: one ``ConditionalDiscriminator``, or an ``nn.ModuleList`` of one per size
    adversarial: AdversarialLoss
    augment_probability: Tensor  #: of each augmentation, with ``augment_target``
    lecam: LeCam  #: with the option ``lecam``
    own_matching_penalty = 0.0  #: what ``matching_penalty: null`` means without a projected discriminator

    def __init__(self) -> None:
        super().__init__()
        self._judged: dict[bool, list[Logits]] | None = None  # first logits of real and of fake images, in D's step

    def aided(self, discriminator: nn.Module) -> nn.Module:
        """A paper's discriminator, changed as the options ``projected`` and ``spectral_norm`` say."""
        options = self.hparams
        if options["matching_penalty"] and not self.conditional:
            raise T2IError(
                "found --model.matching_penalty with --model.text_encoder none, which leaves nothing to match: use "
                "--model.r1"
            )
        if options["augment_target"] is not None:
            self.register_buffer("augment_probability", torch.zeros(()))
        if options["lecam"]:
            self.lecam = LeCam()
        if options["projected"]:
            discriminator = projected(Projection.of(options["projected"]), discriminator, self.needs.sizes or ())
        if options["spectral_norm"]:
            for module in list(discriminator.modules()):
                if isinstance(module, (nn.Conv2d, nn.Linear)) and not parametrize.is_parametrized(module):
                    parametrizations.spectral_norm(module)
        return discriminator

    def check_training_options(self) -> None:
        """Raise for an option of penalties that would do nothing; a subclass may have penalties of its own.

        Called ahead of training alone, so that a run that was trained with such an option can be loaded.
        """
        options, given, own = self.hparams, dict[str, bool](), type(self).discriminator_penalty  # type: ignore[attr-defined]
        if not (self.matching_penalty or self.own_matching_penalty):
            given = {"matching_power": options["matching_power"] != 6}
        # a config of DF-GAN may have options of its own penalty, which another option then leaves out
        penalised = options["r1"] or options["r2"] or self.matching_penalty or self.own_matching_penalty
        if own.__module__ == "t2i_zoo.models.base" and not penalised:
            given |= {"penalty_step": options["penalty_step"] is not None}
            given |= {"penalty_every": options["penalty_every"] > 1 and not options["mode_seeking"]}
        if idle := [name for name, asked in given.items() if asked]:
            needed = "--model.matching_penalty" if idle[0] == "matching_power" else "--model.r1 or another penalty"
            raise T2IError(
                f"found --model.{idle[0]} {options[idle[0]]}, which does nothing without {needed}: add that, or leave "
                "it out"
            )

    @property
    def matching_penalty(self) -> float:
        """Coefficient of the matching-aware penalty in effect."""
        given: float | None = self.hparams["matching_penalty"]
        own = 0.0 if self.hparams["projected"] else self.own_matching_penalty
        return own if given is None else given

    def condition(self, fakes: Fakes) -> Tensor | None:
        """The discriminator's input from the text: (B, C), by default the sentence embedding; None without text."""
        return fakes.text.sentence

    @property
    def discriminators(self) -> list[ConditionalDiscriminator]:
        """The discriminator of each size, smallest first."""
        found: Any = self.discriminator
        return [*found] if isinstance(self.discriminator, nn.ModuleList) else [found]

    def observe(self, images: list[Tensor], *, real: bool) -> Observed:
        """Show images to the discriminators: the one door to them, which augments in training.

        Args:
            images: pyramid of (B, 3, S, S) in [-1, 1], smallest first.
            real: whether they come from the data.
        """
        if self.training:
            images = self.augmented(images[-len(self.discriminators) :])
        if self.hparams["channels_last"]:
            images = [x.contiguous(memory_format=torch.channels_last) for x in images]
        judged = self._judged
        note = (lambda logits: None) if judged is None else (lambda logits: judged.setdefault(real, logits))
        return Observed(self.discriminators, images, note, self.judges_alone)

    @property
    def judges_alone(self) -> bool:
        """Whether discriminators with unconditional logits are asked for them."""
        return True

    def opponents(self, batch: Batch, condition: Tensor | None) -> list[Logits] | list[None]:
        """Logits of the batch's real images for the generator's loss, if the adversarial loss compares with them.

        Otherwise None for each size, at no cost. No gradient flows through them.
        """
        if not self.adversarial.relative:
            return [None] * len(self.discriminators)
        with torch.no_grad():
            return self.observe(batch["images"], real=True).judge(condition)

    def augmented(self, images: list[Tensor]) -> list[Tensor]:
        """Images of each size with the option ``augment``; each size draws its own random numbers."""
        if not (policy := self.hparams["augment"]):
            return images
        probability = getattr(self, "augment_probability", None)
        return [augment(x, policy, self.rng, probability=probability) for x in images]

    def gradient_penalties(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The penalties of the options under their names, and their weighted sum as ``loss``; empty without any.

        Gradients are of raw logits by images before augmentation, and their squares are summed over all dimensions of
        a sample. R1 and R2 are of the sum of matched and unconditional logits, MA-GP of matched ones; the penalties of
        all image sizes are added.
        """
        options, count, terms = self.hparams, len(batch["images"][-1]), dict[str, Tensor]()
        condition = self.condition(fakes)
        condition = condition if condition is None else condition[:count].detach().float().requires_grad_()
        # Half precision overflows when a gradient is squared or raised to the sixth power.
        with torch.autocast(self.device.type, enabled=False):
            for name, pyramid, real in (("r1", batch["images"], True), ("r2", fakes.images, False)):
                matching = real and condition is not None and self.matching_penalty > 0
                if not (options[name] or matching):
                    continue
                images = [x[:count].detach().float().requires_grad_() for x in pyramid[-len(self.discriminators) :]]
                judged = self.observe(images, real=real).judge(condition)
                if options[name]:
                    squares = squared_gradients(torch.stack([_score(logits).sum() for logits in judged]), images)
                    terms[name] = torch.stack([square.mean() for square in squares]).sum()
                if matching:
                    terms |= self._matching(judged, images, condition)
        weights = {"r1": options["r1"] / 2, "r2": options["r2"] / 2, "matching": 1.0}
        weighted = [weight * terms[name] for name, weight in weights.items() if name in terms]
        return {"loss": torch.stack(weighted).sum(), **terms} if weighted else {}

    def _matching(self, judged: list[Logits], images: list[Tensor], condition: Any) -> dict[str, Tensor]:
        """MA-GP of all sizes, and the mean norms of its two gradients."""
        weight, power = self.matching_penalty, self.hparams["matching_power"]
        found = [
            matching_aware_penalty(_averaged(logits.matched), x, condition, weight, power)  # type: ignore[arg-type]
            for logits, x in zip(judged, images, strict=True)
        ]
        penalties, image_norms, sentence_norms = (torch.stack(parts) for parts in zip(*found, strict=True))
        return {
            "matching": penalties.sum(),
            "image_norm": image_norms.mean(),
            "sentence_norm": sentence_norms.mean(),
        }

    def mode_seeking(self, fakes: Fakes) -> dict[str, Tensor]:
        """The option ``mode_seeking``: the inverse of how far images move with their noise; empty without it.

        Mao et al. 2019 (arXiv 1903.05628), equation 4, with their code's inverse and 1e-5. Distances are of pixels, as
        in the paper. With a projected discriminator they are of unit vectors of its features, and of images in grey
        with equal mean and contrast: otherwise noise learns to change colours and brightness, and no shapes.
        """
        if not (weight := self.hparams["mode_seeking"]):
            return {}
        noise = self.noise(len(fakes.noise), self.rng)
        others = self.draw(self.generator, noise, fakes.text)
        pair = [fakes.images[-1].float(), others.images[-1].float()]
        if self.hparams["projected"]:
            looks = (self.frozen("projected").taps(_shapes(images)) for images in pair)
            units = ([F.normalize(tap, dim=1) for tap in taps] for taps in looks)
            moved = torch.stack([(a - b).square().sum(1).mean() for a, b in zip(*units, strict=True)])
        else:
            moved = (pair[0] - pair[1]).abs()
        inverse = 1 / (moved.mean() / (fakes.noise - noise).abs().mean() + 1e-5)
        return {"loss": weight * inverse, "mode_seeking": inverse}

    def regularised(self, losses: dict[str, Tensor], judged: Mapping[bool, list[Logits]]) -> dict[str, Tensor]:
        """The discriminator's loss with LeCam's penalty, and the overfitting that adaptive augmentation follows.

        Args:
            losses: the paper's.
            judged: the logits that they were computed from, of real images (True) and of generated ones (False).
        """
        options = self.hparams
        if not options["lecam"] and options["augment_target"] is None:
            return losses
        real, fake = (torch.cat([logits.all().flatten() for logits in judged[side]]) for side in (True, False))
        losses = losses | {"overfitting": overfitting(real)}
        if options["augment_target"] is not None:
            p, images, signs = self.augment_probability, len(judged[True][0].all()), losses["overfitting"]
            if self._trainer is not None:  # all processes see the batch, and take the same step
                images *= self._trainer.world_size
                signs = self._trainer.strategy.reduce(signs.clone(), reduce_op="mean")
            p.copy_(adaptive_probability(p, signs, images, options["augment_target"]))
        if options["lecam"]:
            losses["lecam"] = self.lecam(real, fake)
            losses["loss"] = losses["loss"] + options["lecam"] * losses["lecam"]
        return losses

    def prepare_aids(self) -> None:
        """Check that the discriminator suits the options, and load the network that the option ``projected`` names.

        Raises:
            T2IError: if an option needs a ``ConditionalDiscriminator`` and your own is none.
        """
        asked = next((name for name in NEEDS_CONTRACT if self.hparams[name]), None)
        odd = [type(one).__name__ for one in self.discriminators if not isinstance(one, ConditionalDiscriminator)]
        if asked and odd:
            raise T2IError(
                f"found --model.{asked} with a {odd[0]}, expected a discriminator derived from t2i_zoo.nn's "
                "ConditionalDiscriminator: derive it, or leave the option out"
            )
        if self.hparams["projected"]:
            option = Projection.of(self.hparams["projected"])
            self.adopt("projected", lambda: option.build(option.weights))
            for one in self.discriminators:
                assert isinstance(one, Projected)
                one.look = lambda images: self.frozen("projected").taps(images)
        if self.hparams["channels_last"]:
            for network in (self, *self._frozen.values()):
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        in_effect = {"r1": self.hparams["r1"], "r2": self.hparams["r2"], "matching_penalty": self.matching_penalty}
        penalty = next((name for name, weight in in_effect.items() if weight), None)
        kinds = {type(module).__name__ for module in self.discriminator.modules()}  # TAC-GAN has its own
        if penalty and any("BatchNorm" in kind for kind in kinds):
            warnings.warn(
                f"--model.{penalty} with batch norm in the discriminator: each image's gradient depends on the "
                "others of its batch, so the penalty is not quite the paper's",
                stacklevel=2,
            )


def _score(logits: Logits) -> Tensor:
    """One number per image: matched plus unconditional logit, each averaged if a discriminator has several."""
    return torch.stack([_averaged(x) for x in logits[:2] if x is not None]).sum(0)


def _averaged(logits: Tensor) -> Tensor:
    """(B,) or (B, N) to (B,): the sum of a projected discriminator's places would grow with their number."""
    return logits.flatten(1).mean(1) if logits.dim() > 1 else logits


def _shapes(images: Tensor) -> Tensor:
    """Images (B, 3, S, S) in grey, with mean 0 and the standard deviation 1/2 each."""
    grey = images.mean(1, keepdim=True)
    centred = grey - grey.mean((2, 3), keepdim=True)
    deviation = (centred.square().mean((2, 3), keepdim=True) + 1e-6).sqrt()  # the root of 0 has no gradient
    return (centred / (2 * deviation)).expand_as(images)
