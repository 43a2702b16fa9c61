"""The base of all models: GANs, and the encoders and classifiers that GANs build on.

It owns the random numbers of each rank, the checks before training, and the content of a checkpoint.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn

from t2i_zoo.batch import BatchNeeds, CaptionedData
from t2i_zoo.errors import T2IError
from t2i_zoo.models import ddp, state  # noqa: F401  ddp registers its strategy
from t2i_zoo.models.drawing import CaptionReader
from t2i_zoo.ranges import check_names, check_ranges
from t2i_zoo.text import words_of
from t2i_zoo.version import __version__


class ZooModule(CaptionReader, L.LightningModule):
    """Base of all that ``t2i-zoo fit`` trains; hyperparameters are plain values and equal to the signature.

    Attributes:
        rng: this rank's own source of noise, in training.
        parts: what a fine-tuning run may start from: names of submodules, each with a dot.
        starting_points: options that name files a run starts from; its own checkpoints no longer need them.
        builds_on: options that name runs of other models, which ``t2i-zoo pipeline`` trains first. Unless they are
            starting points, the losses look at their networks: a resumed run reads them again, from whatever path it
            is given; sampling does not need them.
    """

    parts: tuple[str, ...] = ()
    starting_points: tuple[str, ...] = ("weights",)
    builds_on: tuple[str, ...] = ()

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Check the names and ranges of the options, of every model at one place and before anything is built."""
        check_names(cls, options)
        check_ranges(cls, options, "model")
        return super().__new__(cls)

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = None
        self.clock = 0
        self.vocabulary = frozenset()
        self.rng: torch.Generator | None = None
        self._resumed_states: list[dict[str, Any]] | None = None
        self._losses: tuple[str, ...] = ()
        self._finite_at: Tensor | None = None  #: of each loss, the last batch in which it was finite
        self._recent: Tensor | None = None  #: of each loss, its mean over about the last twenty batches

    @property
    def data_module(self) -> CaptionedData | None:
        """The data module of the Trainer; None for plain loaders, and for a data module that nothing can be asked."""
        found = self.trainer.datamodule  # type: ignore[attr-defined]
        return found if isinstance(found, CaptionedData) else None

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in ``nn.Module``, with one sentence about the first weight that does not fit.

        Raises:
            T2IError: if names or shapes differ.
        """
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            there, here = ({k: tuple(v.shape) for k, v in x.items()} for x in (state_dict, self.state_dict()))
            name = next((k for k in [*here, *there] if there.get(k) != here.get(k)), None)
            if name is None:
                raise
            raise T2IError(
                f"found weights of another {type(self).__name__}: {name} is {there.get(name, 'missing')} there and "
                f"{here.get(name, 'missing')} here: give the options that the weights were trained with, or start a "
                "new run from them with --model.weights"
            ) from error

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip here, where half-precision gradients are unscaled already."""
        if limit := self.hparams.get("gradient_clip"):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, limit)

    def setup(self, stage: str) -> None:
        """Raise for mistakes that would only show, or mislead, during training."""
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        former = {"sizes", *(f"needs_{field.name}" for field in fields(BatchNeeds))}
        if found := former.intersection(dir(self)):
            raise T2IError(
                f"{type(self).__name__} sets {min(found)}, which is no longer read: set needs to a BatchNeeds instead"
            )
        if stage == "fit":
            self._check_precision()
        if (data := self.data_module) is None:
            return
        if stage == "fit" and data.batch_size < self.needs.least:
            raise T2IError(
                f"found --data.batch_size {data.batch_size}, expected at least {self.needs.least} images: "
                f"{type(self).__name__} normalises or compares the images of a batch"
            )
        size = self.hparams.get("image_size", data.image_size)
        if size != data.image_size:
            raise T2IError(different_sizes(size, data.image_size))
        sizes = list(self.needs.sizes)
        if len(sizes) > 1 and data.sizes != sizes:
            raise T2IError(
                f"the model needs {sizes} px and --data.pyramid gives {data.sizes}: leave out --data.pyramid"
            )
        classes = self.hparams.get("num_classes")
        if classes is not None and data.num_classes != classes:
            raise T2IError(
                f"the model has {classes} classes and the data have {data.num_classes or 'no'}: "
                + ("set --model.num_classes to that number" if data.num_classes else "choose data with class labels")
            )
        if stage == "fit":
            # split again: an index of shards may have been written by a version that split otherwise
            self.vocabulary = frozenset(part for word in data.vocabulary() for part in words_of(word))

    def _check_precision(self) -> None:
        """Raise for weights that are not in float32: small updates and the moving average would be lost."""
        precision = str(self.trainer.precision)
        other = next(
            (str(p.dtype) for p in self.parameters() if p.is_floating_point() and p.dtype != torch.float32), ""
        )
        if other or (precision.endswith("-true") and precision != "32-true"):
            raise T2IError(
                f"found {f'weights in {other}' if other else f'--trainer.precision {precision}'}, expected weights in "
                "float32: train with --trainer.precision bf16-mixed, 16-mixed or 32"
            )

    def on_fit_start(self) -> None:
        """Seed the noise of this rank: after ``seed_everything`` all ranks would draw the same.

        Lightning does not change modes, so a model from ``load_model`` would be trained in eval mode.
        """
        self.train()
        seed = torch.initial_seed() + 7919 * self.global_rank
        self.rng = torch.Generator(self.device).manual_seed(seed % 2**63)

    def on_train_start(self) -> None:
        """Continue a resumed run's random numbers; nothing draws between here and the first batch.

        An epoch with fewer batches than ``log_every_n_steps`` logs its last one.
        """
        trainer: Any = self.trainer
        trainer.log_every_n_steps = int(min(trainer.log_every_n_steps, trainer.num_training_batches))
        self._finite_at = self._recent = None
        if self._resumed_states is not None:
            state.restore_random_states(self._resumed_states, self.global_rank, self.rng)
            self._resumed_states = None

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Raise for a batch that is too small, which only loaders of your own give."""
        if isinstance(batch, dict) and len(batch.get("captions", range(self.needs.least))) < self.needs.least:
            raise T2IError(
                f"found a batch of {len(batch['captions'])}, expected at least {self.needs.least} images for "
                f"{type(self).__name__}: give your DataLoader drop_last=True"
            )

    def note_losses(self, losses: Mapping[str, Tensor]) -> None:
        """Note the losses of this batch, the one that ``clock`` counted last, on the device: no host waits for them."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        self._recent = values if self._recent is None else self._recent.lerp(values, 0.05)
        if self._finite_at is None:
            self._losses = tuple(losses)
            self._finite_at = torch.full_like(values, self.clock - 1, dtype=torch.int64)
        self._finite_at = torch.where(torch.isfinite(values), self.clock, self._finite_at)

    def recent_losses(self) -> dict[str, float]:
        """The mean of each loss over about the last twenty batches; empty before training."""
        return {} if self._recent is None else dict(zip(self._losses, self._recent.tolist(), strict=True))

    def check_losses(self) -> None:
        """Raise where losses are NaN or infinite; called in all processes, at the log interval and before each save.

        Raises:
            T2IError: with the loss, the batch and the remedy.
        """
        if self._finite_at is None:
            return
        found = self._finite_at.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(found, dist.ReduceOp.MIN)
        for name, batch in zip(self._losses, found.tolist(), strict=True):
            if batch < self.clock:
                clip = ", clip with --model.gradient_clip" if "gradient_clip" in self.hparams else ""
                raise T2IError(
                    f"{name} is NaN or infinite from batch {batch + 1} on: lower --model.learning_rate{clip} or train "
                    "with --trainer.precision bf16-mixed or 32, in a new run, from the last checkpoint of this one by "
                    "--model.weights"
                )

    def on_train_epoch_end(self) -> None:
        """Look at the losses."""
        self.check_losses()

    def on_train_end(self) -> None:
        """Look at the losses, also where training ends in the middle of an epoch."""
        self.check_losses()
        self._finite_at = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class, clock, vocabulary, the text encoder's files and the random states of all ranks.

        Raises:
            T2IError: where the losses are no longer finite.
        """
        self.check_losses()
        if self.text_encoder is not None and (assets := self.text_encoder.assets()):
            spec = {**self.hparams["text_encoder"], "assets": assets}
            checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "text_encoder": spec}
        checkpoint["t2i_zoo"] = {
            "format": state.FORMAT,
            "version": __version__,
            "model": state.model_key(self),
            "clock": self.clock,
            "vocabulary": sorted(self.vocabulary),
            "random_states": state.gather_random_states(self.rng),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what ``on_save_checkpoint`` added."""
        extra = checkpoint.get("t2i_zoo", {})
        self.clock = extra.get("clock", 0)
        self.remember(extra.get("vocabulary", ()))
        self._resumed_states = extra.get("random_states")


def different_sizes(model: int, data: int) -> str:
    """The sentence about a model and data of different image sizes, in pixels."""
    return (
        f"the model has {model} px and the data module gives {data} px: give --model.image_size or --data.image_size "
        "alone, and the other follows, or the same number to both"
    )
