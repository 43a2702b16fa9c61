"""The one adversarial step, and everything that all seven papers share around it.

A paper supplies two networks and two losses; this class owns the optimizers, the order of the step, the moving average,
the random numbers of each rank, sampling, and what a checkpoint must hold to encode a sentence by itself.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.paths import find_checkpoint
from t2i_zoo.pictures import interpolate_noise
from t2i_zoo.text import TextEncoder, TextFeatures, build_text_encoder


class TextToImageGAN(ZooModule):
    """Base of every model of the zoo; a subclass writes four methods and calls ``set_networks`` in its ``__init__``.

    Hyperparameters are plain values (they are saved for loading with ``weights_only=True``) and are saved here for
    subclasses too. One training batch is one step of each of the two optimizers; ``clock`` counts batches, whereas
    Lightning's ``global_step`` counts optimizer steps and so runs twice as fast.

    Args:
        text_encoder: ``"hashing"`` or a mapping with ``kind`` and the encoder's own arguments.
        image_size: side S of the generated pictures in pixels.
        noise_dim: length of the noise vector z.
        learning_rate: of both networks' Adam.
        discriminator_learning_rate: where it is to differ.
        beta1: Adam's first-moment decay.
        lr_decay: factor on the learning rate every ``lr_decay_every`` epochs; 1 keeps it.
        lr_decay_every: epochs; as in the authors' code the first cut comes at the start of that very epoch, 1-based.
        ema_decay: decay a batch of the moving average of the generator's weights, with a warm-up; 0 copies the weights.
        gradient_clip: largest norm of one network's gradient; None does not clip.
        weights: checkpoint or .safetensors whose networks are the start of a fine-tuning run.
    """

    text_encoder: TextEncoder
    generator: nn.Module
    discriminator: nn.Module
    generator_ema: nn.Module
    attends = False  #: whether ``generate`` can return attention over words
    text_is_optional = False  #: whether the model can draw from noise alone, with ``text_encoder: none``
    noise_is_normal = True  #: whether the noise is standard normal, which a truncation cuts
    generator_steps = 1  #: generator steps a batch, all with the same noise; TAC-GAN has two
    parts = ("generator.", "generator_ema.", "discriminator.")

    def __init__(
        self,
        *,
        text_encoder: str | dict[str, Any] = "hashing",
        image_size: int = 64,
        noise_dim: int = 100,
        learning_rate: float = 2e-4,
        discriminator_learning_rate: float | None = None,
        beta1: float = 0.5,
        lr_decay: float = 1.0,
        lr_decay_every: int = 100,
        ema_decay: float = 0.999,
        gradient_clip: float | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if lr_decay_every < 1:
            raise T2IError(f"found --model.lr_decay_every {lr_decay_every}, expected at least 1 epoch")
        if gradient_clip is not None and gradient_clip <= 0:
            raise T2IError(f"found --model.gradient_clip {gradient_clip}, expected a norm above 0, or null not to clip")
        if not 0 <= ema_decay < 1:
            raise T2IError(f"found --model.ema_decay {ema_decay}, expected 0 (no averaging) or more, and less than 1")
        self.automatic_optimization = False
        self.save_hyperparameters()
        self.text_encoder = build_text_encoder(text_encoder)
        if not (self.conditional or self.text_is_optional):
            raise T2IError(f"found --model.text_encoder none, but {type(self).__name__} reads text: choose an encoder")
        # of the frame above, where a paper leaves the choice open; files that rebuild it travel in checkpoints alone
        bare = {k: v for k, v in text_encoder.items() if k != "assets"} if isinstance(text_encoder, dict) else None
        self.hparams["text_encoder"] = bare or text_encoder
        self.noise_width = noise_dim  # a paper whose networks draw more random numbers than z raises it
        self.needs = replace(self.needs, sizes=(image_size,))

    # What a paper supplies ------------------------------------------------------------------------------------------

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Discriminator's loss under the key ``"loss"`` (scalar), with its terms for the log; ``fakes`` is detached."""
        raise NotImplementedError

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Generator's loss under the key ``"loss"`` (scalar), with its terms for the log."""
        raise NotImplementedError

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Run a generator; papers with more inputs or outputs than (noise, sentence) and one picture override this."""
        return Fakes([network(noise, text.sentence)], text, {}, noise)

    def fake(self, batch: Batch) -> Fakes:
        """The generator's forward of the training step."""
        return self.draw(self.generator, self.noise(len(batch["captions"]), self.rng), batch["text"])

    # What every model can do ----------------------------------------------------------------------------------------

    def set_networks(self, generator: nn.Module, discriminator: nn.Module) -> None:
        """Adopt both networks, copy the generator for the moving average, and load ``weights`` where they are given."""
        self.generator, self.discriminator = generator, discriminator
        self.generator_ema = copy.deepcopy(generator).requires_grad_(False).eval()
        if self.hparams["weights"]:
            path = Path(self.hparams["weights"]).expanduser()
            state.load_networks(self, find_checkpoint(path) if path.is_dir() else path)

    @property
    def conditional(self) -> bool:
        """Whether pictures follow captions: not with ``text_encoder: none``."""
        return self.text_encoder.dim > 0

    def encode(self, captions: Sequence[str] | Batch) -> TextFeatures:
        """Features of captions, or of a batch: its cached ones where the data module brought them."""
        if isinstance(captions, dict):
            cached: TextFeatures | None = captions.get("text")
            return cached if cached is not None else self.encode(captions["captions"])
        if isinstance(captions, str):
            raise T2IError('found one string, expected a list of captions: write ["a red flower"]')
        return self.text_encoder.encode(list(captions), words=self.needs.words)

    def encode_wrong(self, batch: Batch) -> TextFeatures:
        """Features of the mismatched captions of a batch."""
        cached = batch.get("wrong_text")
        return cached if cached is not None else self.encode(batch["wrong_captions"])

    def noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (count, ``noise_width``) on the model's device; training passes this rank's ``rng``.

        Everything random in a picture is drawn here, so that it can be repeated: the noise vector z and, in papers with
        conditioning augmentation, its noise behind it.
        """
        source = generator.device if generator is not None else self.device
        return torch.randn(count, self.noise_width, generator=generator, device=source).to(self.device)

    def noise_path(self, steps: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise (steps, ``noise_width``) on the CPU that leads from one draw to another, both ends included."""
        first, second = self.noise(2, generator).cpu()
        return interpolate_noise(first, second, steps)

    @torch.no_grad()
    def generate(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        ema: bool = True,
    ) -> Tensor:
        """Draw one picture a caption: (B, 3, S, S) in [-1, 1], float32, on the model's device.

        Args:
            captions: B sentences, or their features.
            noise: (B, ``noise_width``) as of ``noise``; drawn where it is None.
            generator: source of the noise; a CPU generator gives the same noise on every device.
            ema: use the moving average of the weights; False uses the live generator (in eval mode).
        """
        return self.sampled(captions, noise, generator, ema).images[-1].float()

    def sampled(
        self,
        captions: Sequence[str] | TextFeatures,
        noise: Tensor | None,
        generator: torch.Generator | None,
        ema: bool,
    ) -> Fakes:
        """All that a generator in eval mode yields; arguments as of ``generate``."""
        text = captions if isinstance(captions, TextFeatures) else self.encode(captions)
        text = TextFeatures(*(None if part is None else part.to(self.device) for part in text))  # type: ignore[arg-type]
        noise = self.noise(text.sentence.shape[0], generator) if noise is None else noise.to(self.device)
        network = self.generator_ema if ema else self.generator
        was_training = network.training
        try:
            return self.draw(network.eval(), noise, text)
        finally:
            network.train(was_training)

    # The step -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Encode, one generator forward, discriminator step, generator step, moving average, log."""
        optimizer_d, optimizer_g = self.optimizers()  # type: ignore[misc, attr-defined]
        batch["text"] = self.encode(batch)
        # Before the toggles, so that one forward serves both steps and batch norm sees the batch once.
        fakes = self.fake(batch)
        with self.toggled_optimizer(optimizer_d):
            losses_d = self.discriminator_loss(batch, fakes.detach())
            self._update(optimizer_d, losses_d["loss"])
        with self.toggled_optimizer(optimizer_g):
            for step in range(self.generator_steps):
                fakes = self.draw(self.generator, fakes.noise, fakes.text) if step else fakes
                losses_g = self.generator_loss(batch, fakes)
                self._update(optimizer_g, losses_g["loss"])
        self.clock += 1
        self.update_ema()
        self._log("train", len(batch["captions"]), losses_d, losses_g)

    def _update(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged weights towards the live ones; buffers are copied."""
        decay = min(self.hparams["ema_decay"], (1 + self.clock) / (10 + self.clock))
        averages: list[Tensor] = list(self.generator_ema.parameters())
        lives: list[Tensor] = list(self.generator.parameters())
        torch._foreach_lerp_(averages, lives, 1.0 - decay)
        buffers = list(self.generator.buffers())
        if buffers:
            torch._foreach_copy_(list(self.generator_ema.buffers()), buffers)

    def _log(self, stage: str, count: int, losses_d: dict[str, Tensor], losses_g: dict[str, Tensor]) -> None:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if stage == "train" and self.clock % max(every, 1):
            return  # Lightning would keep the values, and pay for them, without writing them down
        named = {"discriminator": losses_d, "generator": losses_g}
        values = {
            f"{stage}/{network}_{key}": value.detach()
            for network, losses in named.items()
            for key, value in losses.items()
        }
        self.log_dict(values, batch_size=count, sync_dist=stage != "train")
        if stage == "train":
            for name, value in values.items():
                if name.endswith("_loss") and not torch.isfinite(value):
                    raise T2IError(
                        f"{name} is {value.item()} at batch {self.clock}: lower --model.learning_rate, "
                        "clip with --model.gradient_clip or train with --trainer.precision bf16-mixed or 32"
                    )

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        """Two Adams, discriminator's first, each with the learning-rate decay of the authors' code."""
        rate, betas = self.hparams["learning_rate"], (self.hparams["beta1"], 0.999)
        own = self.hparams["discriminator_learning_rate"]
        rate_d = rate if own is None else own
        # Fused is three times as quick as foreach on a CPU, but hides unscaled half-precision gradients from clipping.
        fused = self._trainer is None or self._trainer.precision != "16-mixed"
        adam_d, adam_g = (
            torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr, betas, fused=fused)
            for network, lr in ((self.discriminator, rate_d), (self.generator, rate))
        )
        decay, every = self.hparams["lr_decay"], self.hparams["lr_decay_every"]
        # epoch is 0-based here and 1-based in the authors' code
        rates = [
            torch.optim.lr_scheduler.LambdaLR(adam, lambda epoch: decay ** ((epoch + 1) // every))
            for adam in (adam_d, adam_g)
        ]
        return [adam_d, adam_g], rates

    def on_train_epoch_end(self) -> None:
        """Step the learning rates: Lightning leaves that to the module under manual optimization."""
        schedulers: Any = self.lr_schedulers()
        for scheduler in schedulers:
            scheduler.step()

    @torch.no_grad()
    def _evaluate(self, stage: str, batch: Batch) -> None:
        batch["text"] = self.encode(batch)
        rng = torch.Generator().manual_seed(int(batch["index"][0]))  # the same noise in every evaluation
        count = len(batch["captions"])
        fakes = self.draw(self.generator_ema, self.noise(count, rng), batch["text"])
        self._log(stage, count, self.discriminator_loss(batch, fakes), self.generator_loss(batch, fakes))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Both losses on held-out pictures, with the averaged generator."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Both losses on the test split."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One generated picture for each caption of the test split."""
        rng = torch.Generator().manual_seed(int(batch["index"][0]))
        return {"images": self.generate(self.encode(batch), generator=rng), "captions": batch["captions"]}

    # Guards and modes -----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Raise for what could only fail, or mislead, once training runs."""
        super().setup(stage)
        strategy: Any = self.trainer.strategy
        ddp = stage == "fit" and isinstance(strategy, DDPStrategy)
        if ddp and not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise T2IError(
                "found DDP without unused-parameter search, but each step of a GAN uses one network only: "
                "use --trainer.strategy ddp_find_unused_parameters_true"
            )

    def train(self, mode: bool = True) -> TextToImageGAN:
        """Training mode leaves the averaged generator and the frozen text encoder in eval mode."""
        super().train(mode)
        if hasattr(self, "generator_ema"):
            self.generator_ema.eval()
        return self
