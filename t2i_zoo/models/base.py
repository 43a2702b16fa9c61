"""The adversarial step of every GAN of the zoo, and all that surrounds it.

A paper supplies two networks and two losses; the base owns the optimizers, the order of the step, the discriminator's
training aids, the moving average, the random numbers of each rank, and the content of a checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.aids import check_options
from t2i_zoo.models.companions import reader
from t2i_zoo.models.compiling import compile_networks, compiled, uncompiled
from t2i_zoo.models.ddp import check_strategy, exchanged
from t2i_zoo.models.evaluated import EvaluatedModule
from t2i_zoo.models.optimization import (
    NOT_FOR_TWO_OPTIMIZERS,
    Part,
    adams,
    decays,
    ema_decay,
    frozen,
    micro_batches,
    move_average,
    update,
)
from t2i_zoo.nn import ADVERSARIAL, AdversarialName, Augmentation
from t2i_zoo.paths import find_weights
from t2i_zoo.ranges import Count, Fraction, Positive, Power, Sign, Weight
from t2i_zoo.text import build_text_encoder


class TextToImageGAN(EvaluatedModule):
    """Base of every GAN of the zoo; a subclass writes two losses and calls ``set_networks`` in its ``__init__``.

    Hyperparameters are plain values (they are saved for loading with ``weights_only=True``) and are saved here for
    subclasses too. One training batch is one step of each of the two optimizers, and of the generator's
    as many as ``generator_steps``; ``clock`` counts batches, Lightning's ``global_step`` optimizer steps.

    Training aids are off by default, so that each model is its paper's; docs/training_aids.md explains each.

    Args:
        text_encoder: ``"hashing"``, or a mapping with ``kind`` and the encoder's own arguments; by default the encoder
            of ``damsm``, or hashed words without one.
        damsm: run of a DAMSM, as a folder or a .ckpt file, whose text encoder reads the captions.
        image_size: side S of the generated images in pixels.
        noise_dim: dimension of the noise vector z.
        learning_rate: learning rate of both networks' Adam.
        discriminator_learning_rate: learning rate of the discriminator's Adam, ``learning_rate`` by default.
        beta1: Adam's first-moment decay.
        beta2: Adam's second-moment decay.
        lr_decay: factor on the learning rate every ``lr_decay_every`` epochs; 1 keeps it constant.
        lr_decay_every: epochs, counted from 1 as in GAN-CLS's code, in StackGAN from 0; the cut is at an epoch's start.
        ema_decay: decay per batch of the moving average of the generator's weights; 0 copies them.
        ema_warmup: after t batches the decay is at most (1 + t) / (10 + t), which reaches 0.999 after 8,990 batches;
            False has ``ema_decay`` from the first batch on, as the papers' codes have.
        ema_half_life: half-life of the moving average in images, instead of ``ema_decay``; at first 5 % of the images
            seen so far (StyleGAN2-ADA; Karras et al. 2020).
        accumulate: micro-batches that each batch is cut into, to save memory: their gradients are added, those of the
            discriminator first. Batch norm, and losses between images, see one micro-batch at a time.
        gradient_clip: largest norm of one network's gradient; by default gradients are not clipped.
        adversarial_loss: ``paper`` for the paper's own loss, ``hinge``, ``relativistic`` for pairs of a real and a fake
            image, or ``relativistic_average`` for comparison with the mean of the batch. With a projected discriminator
            ``paper`` is the hinge.
        r1: gamma of the penalty ``gamma / 2 * mean(norm(dD/dx)**2)`` on real images (Mescheder et al. 2018); 0 is off.
        r2: gamma of the same penalty on generated images; 0 leaves it out.
        matching_penalty: coefficient k of DF-GAN's matching-aware penalty ``k * mean(norm(dD/dx, dD/ds)**p)`` on real
            images with their own captions (2 in the paper); 0 leaves it out. By default the paper's own, which is none
            but in DF-GAN, and none with a projected discriminator.
        matching_power: exponent p of that penalty (6 in the paper).
        penalty_every: number n of batches per computation of the penalties, which are then multiplied by n.
        penalty_step: add the penalties to the discriminator's loss (``joint``), or take a separate step after it; by
            default as the paper does, which is ``joint`` except in DF-GAN's preprint.
        augment: operations on all images that the discriminator sees: ``color``, ``translation``, ``cutout`` (Zhao et
            al. 2020). Color contradicts captions that name colours.
        augment_target: adapt the probability of augmenting so that the mean sign of real images' logits approaches this
            value, 0.6 in StyleGAN2-ADA; by default everything is augmented.
        spectral_norm: divide the discriminator's weights by their largest singular value (Miyato et al. 2018).
        lecam: weight of LeCam's penalty (Tseng et al. 2021), which keeps logits near moving averages; 0 leaves it out.
        mode_seeking: weight of the mode-seeking loss (Mao et al. 2019), a second forward of the generator that keeps
            it from ignoring the noise; 0 leaves it out. Computed every ``penalty_every`` batches.
        projected: a projected discriminator (Sauer et al. 2021) on a vision network, ``efficientnet_lite0`` or
            ``torchvision:NAME``; or a mapping with ``network`` and the arguments of ``models.projection.Projection``.
        channels_last: keep the channels of a place together in memory, which is faster in half precision.
        compile: train with ``networks`` compiled by ``torch.compile``, except in gradient penalties and validation.
        weights: checkpoint or .safetensors file whose networks a fine-tuning run starts from.
    """

    own_penalty_step = "joint"  #: what ``penalty_step: null`` means
    own_loss: AdversarialName = "paper"  #: what ``adversarial_loss: paper`` means: the paper's own loss
    first_epoch = 1  #: number of the first epoch in the authors' code, for ``lr_decay_every``
    compile_backend = "inductor"  #: of ``torch.compile``
    generator_steps = 1  #: generator steps per batch, all with the same noise; TAC-GAN has two
    parts = ("generator.", "generator_ema.", "discriminator.")
    decay_on_device: Tensor | None = None  #: of the moving average, where a graphed step fills it
    builds_on: tuple[str, ...] = ("damsm",)

    def __init__(
        self,
        *,
        text_encoder: str | dict[str, Any] | None = None,
        damsm: str | None = None,
        image_size: Count = 64,
        noise_dim: Count = 100,
        learning_rate: Weight = 2e-4,
        discriminator_learning_rate: Weight | None = None,
        beta1: Fraction = 0.5,
        beta2: Fraction = 0.999,
        lr_decay: Positive = 1.0,
        lr_decay_every: Count = 100,
        ema_decay: Fraction = 0.999,
        ema_warmup: bool = True,
        ema_half_life: Positive | None = None,
        accumulate: Count = 1,
        gradient_clip: Positive | None = None,
        adversarial_loss: AdversarialName = "paper",
        r1: Weight = 0.0,
        r2: Weight = 0.0,
        matching_penalty: Weight | None = None,
        matching_power: Power = 6.0,
        penalty_every: Count = 1,
        penalty_step: Literal["joint", "separate"] | None = None,
        augment: list[Augmentation] | None = None,
        augment_target: Sign | None = None,
        spectral_norm: bool = False,
        lecam: Weight = 0.0,
        mode_seeking: Weight = 0.0,
        projected: str | dict[str, Any] | None = None,
        channels_last: bool = False,
        compile: Literal["none", "networks"] = "none",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.save_hyperparameters()
        check_options(self.hparams)
        self.text_encoder = build_text_encoder(text_encoder := reader(text_encoder, damsm))
        if not (self.conditional or self.text_is_optional):
            raise T2IError(f"found --model.text_encoder none, but {type(self).__name__} reads text: choose an encoder")
        if self.needs.words and not self.text_encoder.word_dim:
            kind = text_encoder["kind"] if isinstance(text_encoder, dict) else text_encoder
            raise T2IError(
                f"found --model.text_encoder {kind}, which has no word vectors, but {type(self).__name__} reads words: "
                "choose an encoder that has them, such as hashing"
            )
        # The files that rebuild the encoder are kept in checkpoints only, not in the hyperparameters of a run.
        bare = {k: v for k, v in text_encoder.items() if k != "assets"} if isinstance(text_encoder, dict) else None
        self.hparams["text_encoder"] = bare or text_encoder
        own = "hinge" if projected else self.own_loss
        self.adversarial = ADVERSARIAL[own if adversarial_loss == "paper" else adversarial_loss]
        self.needs = replace(self.needs, sizes=(image_size,), least=2 if projected else self.needs.least)

    # What a paper supplies ------------------------------------------------------------------------------------------

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Discriminator's loss under the key ``"loss"`` (scalar), with its terms for the log; ``fakes`` is detached.

        It decides which pairs are judged in which order (batch norm depends on it), through ``observe``.
        """
        raise NotImplementedError

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Generator's loss under the key ``"loss"`` (scalar), with its terms for the log."""
        raise NotImplementedError

    def discriminator_penalty(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Penalty on the discriminator every ``penalty_every`` batches under the key ``"loss"``; may be empty.

        It is called only in training, where gradients are enabled, and may differentiate through the discriminator. By
        default it sums the penalties of the options.
        """
        return self.gradient_penalties(batch, fakes)

    def generator_penalty(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The same for the generator's loss; ``fakes`` has its graph."""
        return self.mode_seeking(fakes)

    def fake(self, batch: Batch) -> Fakes:
        """The generator's forward pass of the training step."""
        return self.draw(self.generator, self.noise(len(batch["captions"]), self.rng), batch["text"])

    # Networks -------------------------------------------------------------------------------------------------------

    def set_networks(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Adopt both networks with their training aids, copy the generator for the average, and load ``weights``."""
        self.prepare_drawing()
        self.generator, self.discriminator = generator, self.aided(discriminator)
        self.generator_ema = copy.deepcopy(generator).requires_grad_(False).eval()
        if self.hparams["weights"]:
            state.load_networks(self, find_weights(self.hparams["weights"]), self.parts)

    # The step -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch through both networks; see ``step``."""
        optimizers: Any = self.optimizers()
        backward, hold = exchanged(self, len(batch["captions"]))
        terms = self.step(batch, *optimizers, backward=backward, hold=hold)
        self.note_losses({f"{network}_loss": found["loss"] for network, found in terms.items()})
        self._log("train", len(batch["captions"]), terms)

    def step(
        self,
        batch: Batch,
        optimizer_d: Any,
        optimizer_g: Any,
        *,
        backward: Callable[[Tensor], Any] = torch.autograd.backward,
        hold: Callable[[], AbstractContextManager[Any]] = nullcontext,
        lap: Callable[[str], Any] = lambda part: None,
    ) -> dict[str, dict[str, Tensor]]:
        """Encode, one generator forward, discriminator step, generator step, moving average.

        Args:
            batch: on this model's device.
            optimizer_d: of the discriminator.
            optimizer_g: of the generator.
            backward: computes the gradients of a loss.
            hold: entered around the backward passes of all micro-batches but the last.
            lap: called with the name of each part as it ends, for benchmarks.

        Returns:
            The terms of both losses.
        """
        batch["text"] = self.encode(batch)
        lap("text")
        parts = micro_batches(batch, self.hparams["accumulate"], self.needs.least)
        # Before either network is frozen, so that one forward serves both steps and batch norm sees the batch once.
        # Of several micro-batches the images alone are kept: they are drawn again, one graph at a time.
        with frozen(self.generator) if (several := len(parts) > 1) else nullcontext():
            parts = [part._replace(fakes=self.fake(part.batch)) for part in parts]
        lap("generator forward")
        with frozen(self.generator):
            shown = [part._replace(fakes=part.fakes.detach()) for part in parts]
            losses_d = self._discriminator_step(shown, optimizer_d, backward, hold)
        lap("discriminator")
        with frozen(self.discriminator):
            losses: list[Any] = [self.generator_loss, partial(self._due, self.generator_penalty)]
            for repeat in range(self.generator_steps):
                if repeat:
                    torch.clear_autocast_cache()  # it may hold half-precision copies of the former weights
                drawn = map(self._drawn_again, parts) if repeat or several else parts
                losses_g = update(optimizer_g, drawn, losses, backward, hold)
        lap("generator")
        self.clock += 1
        self.update_ema(len(batch["captions"]))
        lap("ema")
        return {"discriminator": losses_d, "generator": losses_g}

    def _drawn_again(self, part: Part) -> Part:
        return part._replace(fakes=self.draw(self.generator, part.fakes.noise, part.fakes.text))

    def _discriminator_step(self, parts: list[Part], optimizer: Any, *how: Any) -> dict[str, Tensor]:
        def penalty(*at: Any) -> dict[str, Tensor]:
            with uncompiled(self.hparams):
                return self._due(self.discriminator_penalty, *at)

        if (self.hparams["penalty_step"] or self.own_penalty_step) == "joint":
            return update(optimizer, parts, [self._regularised_loss, penalty], *how)
        losses = update(optimizer, parts, [self._regularised_loss], *how)
        return losses | update(optimizer, parts, [penalty], *how) | {"loss": losses["loss"]}

    def _regularised_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        self._judged = {}
        losses = self.discriminator_loss(batch, fakes)
        losses, self._judged = self.regularised(losses, self._judged), None
        return losses

    def _due(self, penalty: Callable[[Batch, Fakes], dict[str, Tensor]], *at: Any) -> dict[str, Tensor]:
        """The terms of a penalty, if this batch computes it; their ``loss`` stands for all batches until the next."""
        every = self.hparams["penalty_every"]
        terms = penalty(*at) if self.clock % every == 0 else {}
        return {
            f"penalty_{name}" if name != "loss" else name: x * (every if name == "loss" else 1)
            for name, x in terms.items()
        }

    def update_ema(self, count: int) -> None:
        """Move the averaged weights towards the live ones, after a batch of ``count`` images in each process."""
        images = count * (self._trainer.world_size if self._trainer is not None else 1)
        decay: Any = self.decay_on_device
        decay = ema_decay(self.hparams, self.clock, images) if decay is None else decay
        move_average(self.generator_ema, self.generator, decay)

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """Two Adams, the discriminator's first, each with its learning-rate decay."""
        # Fused is three times as fast as foreach on a CPU, but hides unscaled half-precision gradients from clipping.
        fused = self._trainer is None or self._trainer.precision != "16-mixed"
        found = adams([self.discriminator, self.generator], self.hparams, fused)
        return found, decays(found, self.hparams, self.first_epoch)

    def on_train_epoch_end(self) -> None:
        """Step the learning rates: Lightning leaves that to the module under manual optimization."""
        super().on_train_epoch_end()
        schedulers: Any = self.lr_schedulers()
        for scheduler in schedulers:
            scheduler.step()

    # Guards and modes -----------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Any]:
        """None; Lightning asks for them first of all, ahead of its own check of what two optimizers exclude."""
        if self.trainer.state.fn == "fit":
            self.check_training_options()
        for option, (default, remedy) in NOT_FOR_TWO_OPTIMIZERS.items():
            if (value := getattr(self.trainer, option)) != default:
                raise T2IError(f"found Trainer({option}={value}), which does not work with two optimizers: {remedy}")
        return []

    def setup(self, stage: str) -> None:
        """Raise for mistakes that would only show, or mislead, in training, and load the projected features."""
        super().setup(stage)
        if stage != "predict":
            self.prepare_aids()
        if stage == "fit" and self.hparams["compile"] == "networks":
            compile_networks(self.generator, self.discriminator, backend=self.compile_backend)
        elif stage == "fit" and any(map(compiled, [*self.generator.modules(), *self.discriminator.modules()])):
            raise T2IError("found networks compiled by torch.compile: leave that to --model.compile networks")
        if stage == "fit":
            check_strategy(self.trainer.strategy)
            count, data = self.hparams["accumulate"], self.data_module
            if data is not None and data.batch_size < count * self.needs.least:
                raise T2IError(
                    f"found --model.accumulate {count} for --data.batch_size {data.batch_size}, expected micro-batches "
                    f"of at least {self.needs.least} images: accumulate fewer, or raise --data.batch_size"
                )

    def train(self, mode: bool = True) -> TextToImageGAN:
        """Set the mode; the averaged generator and the frozen text encoder stay in eval mode."""
        super().train(mode)
        if hasattr(self, "generator_ema"):
            self.generator_ema.eval()
        return self
