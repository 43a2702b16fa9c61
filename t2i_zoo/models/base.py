"""The adversarial step of every GAN of the zoo, and all that surrounds it.

A paper supplies two networks and two losses; the base owns the optimizers, the order of the step, the discriminator's
training aids, the moving average, the random numbers of each rank, and the content of a checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.aids import AidedModule, check_options
from t2i_zoo.models.companions import reader
from t2i_zoo.models.compiling import compile_networks, compiled, uncompiled
from t2i_zoo.models.optimization import NOT_FOR_TWO_OPTIMIZERS, adams, decays, ema_decay, frozen, move_average, update
from t2i_zoo.nn import ADVERSARIAL, AdversarialName, Augmentation
from t2i_zoo.paths import find_weights
from t2i_zoo.ranges import Count, Fraction, Positive, Power, Sign, Weight
from t2i_zoo.text import build_text_encoder


class TextToImageGAN(AidedModule):
    """Base of every GAN of the zoo; a subclass writes two losses and calls ``set_networks`` in its ``__init__``.

    Hyperparameters are plain values (they are saved for loading with ``weights_only=True``) and are saved here for
    subclasses too. One training batch is one step of each of the two optimizers; ``clock`` counts batches, whereas
    Lightning's ``global_step`` counts optimizer steps and so runs twice as fast.

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
        # The files that rebuild the encoder are kept in checkpoints only, not in the hyperparameters of a run.
        bare = {k: v for k, v in text_encoder.items() if k != "assets"} if isinstance(text_encoder, dict) else None
        self.hparams["text_encoder"] = bare or text_encoder
        own = "hinge" if projected else self.own_loss
        self.adversarial = ADVERSARIAL[own if adversarial_loss == "paper" else adversarial_loss]
        self.needs = replace(self.needs, sizes=(image_size,), least=2 if projected else self.needs.least)
        self._unlogged: dict[str, Tensor] = {}

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
        terms = self.step(batch, *optimizers, backward=self.manual_backward)
        self.note_losses({f"{network}_loss": found["loss"] for network, found in terms.items()})
        self._log("train", len(batch["captions"]), terms)

    def step(
        self,
        batch: Batch,
        optimizer_d: Any,
        optimizer_g: Any,
        *,
        backward: Callable[[Tensor], Any] = torch.autograd.backward,
        lap: Callable[[str], Any] = lambda part: None,
    ) -> dict[str, dict[str, Tensor]]:
        """Encode, one generator forward, discriminator step, generator step, moving average.

        Args:
            batch: on this model's device.
            optimizer_d: of the discriminator.
            optimizer_g: of the generator.
            backward: computes the gradients of a loss.
            lap: called with the name of each part as it ends, for benchmarks.

        Returns:
            The terms of both losses.
        """
        batch["text"] = self.encode(batch)
        lap("text")
        # Before either network is frozen, so that one forward serves both steps and batch norm sees the batch once.
        fakes = self.fake(batch)
        lap("generator forward")
        with frozen(self.generator):
            losses_d = self._discriminator_step(batch, fakes.detach(), optimizer_d, backward)
        lap("discriminator")
        with frozen(self.discriminator):
            for repeat in range(self.generator_steps):
                fakes = self.draw(self.generator, fakes.noise, fakes.text) if repeat else fakes
                losses_g, penalties = self.generator_loss(batch, fakes), self._due(self.generator_penalty, batch, fakes)
                update(optimizer_g, losses_g["loss"] + penalties.pop("loss", 0), backward)
        lap("generator")
        self.clock += 1
        self.update_ema(len(batch["captions"]))
        lap("ema")
        return {"discriminator": losses_d, "generator": losses_g | penalties}

    def _discriminator_step(self, batch: Batch, fakes: Fakes, optimizer: Any, backward: Any) -> dict[str, Tensor]:
        self._judged = {}
        losses = self.discriminator_loss(batch, fakes)
        losses, self._judged = self.regularised(losses, self._judged), None
        if separate := (self.hparams["penalty_step"] or self.own_penalty_step) == "separate":
            update(optimizer, losses["loss"], backward)
        with uncompiled(self.hparams):
            penalties = self._due(self.discriminator_penalty, batch, fakes)
        added = penalties.pop("loss", None)
        if not separate:
            update(optimizer, losses["loss"] if added is None else losses["loss"] + added, backward)
        elif added is not None:
            update(optimizer, added, backward)
        return losses | penalties

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
        move_average(self.generator_ema, self.generator, ema_decay(self.hparams, self.clock, images))

    def _log(self, stage: str, count: int, losses: dict[str, dict[str, Tensor]]) -> None:
        values = {
            f"{stage}/{network}_{key}": value.detach()
            for network, terms in losses.items()
            for key, value in terms.items()
        }
        if stage != "train":
            self.log_dict(values, batch_size=count, sync_dist=True)
            return
        # Lightning would keep the values of every batch, at a cost, without writing them. What a logged batch does not
        # compute, such as a lazy penalty, is logged with its last value.
        self._unlogged |= values
        if self.clock % max(self.trainer.log_every_n_steps, 1):  # type: ignore[attr-defined]
            return
        self.log_dict(self._unlogged, batch_size=count)
        self._unlogged = {}
        self.check_losses()

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

    @torch.no_grad()
    def _evaluate(self, stage: str, batch: Batch) -> None:
        batch["text"] = self.encode(batch)
        rng = torch.Generator().manual_seed(int(batch["index"][0]))  # the same noise in every evaluation
        count = len(batch["captions"])
        fakes = self.draw(self.generator_ema, self.noise(count, rng), batch["text"])
        with uncompiled(self.hparams):
            losses_d, losses_g = self.discriminator_loss(batch, fakes), self.generator_loss(batch, fakes)
        self._log(stage, count, {"discriminator": losses_d, "generator": losses_g})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Both losses on held-out images, with the averaged generator."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Both losses on the test split."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One generated image for each caption of the test split."""
        rng = torch.Generator().manual_seed(int(batch["index"][0]))
        return {"images": self.generate(self.encode(batch), rng=rng), "captions": batch["captions"]}

    # Guards and modes -----------------------------------------------------------------------------------------------

    def configure_callbacks(self) -> list[Any]:
        """None; Lightning asks for them first of all, ahead of its own check of what two optimizers exclude."""
        if self.trainer.state.fn == "fit":
            self.check_penalty_options()
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
        strategy: Any = self.trainer.strategy
        ddp = stage == "fit" and isinstance(strategy, DDPStrategy)
        if ddp and not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise T2IError(
                "found DDP without unused-parameter search, but each step of a GAN uses one network only: "
                "use --trainer.strategy ddp_find_unused_parameters_true"
            )

    def train(self, mode: bool = True) -> TextToImageGAN:
        """Set the mode; the averaged generator and the frozen text encoder stay in eval mode."""
        super().train(mode)
        if hasattr(self, "generator_ema"):
            self.generator_ema.eval()
        return self
