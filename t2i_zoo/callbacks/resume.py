"""The checkpoints of a run: the one that it is resumed from, and further ones."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from t2i_zoo.errors import T2IError
from t2i_zoo.run_files import AtomicCheckpointIO, check_local, check_space

_NAME = "epoch_{epoch:04d}"
_APART = 10.0  # seconds between the checkpoints of two epochs; a loss of ten seconds is none


def ends_here(trainer: L.Trainer) -> bool:
    """Whether training ends with the epoch that is ending.

    What belongs to the end is done ahead of the last checkpoint: a run that is killed after it has nothing to train.
    """
    steps = 0 <= trainer.max_steps <= trainer.global_step
    return steps or trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs


class ResumePoint(Checkpoint):
    """Keep ``<run>/checkpoints/last.ckpt``, from which a run is resumed.

    It is written at the end of each epoch unless that was done less than ten seconds ago, every ``minutes`` within
    longer epochs, at a stop and at the very end. With ``AtomicCheckpointIO`` a thread writes the file from a copy, so
    that training goes on; only the last one is waited for. Writing within an epoch needs ``GracefulStop`` beside it,
    on which all processes agree.

    Args:
        minutes: longest time between two checkpoints of an epoch.

    Raises:
        T2IError: before training, where the folder is an address, or the disk has no room for two checkpoints.
    """

    def __init__(self, minutes: float = 10.0) -> None:
        if not 0 < minutes < math.inf:
            raise T2IError(f"found --resume.minutes {minutes}, expected a number above 0 such as 10")
        self.minutes = minutes
        self.path: Path | None = None
        self._since = 0.0  # when the last one was written, or training began
        self._saved: int | None = None  # batches of the last one

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the place, and see that two checkpoints fit there."""
        folder = str(trainer.log_dir or trainer.default_root_dir)  # a collective, so all ranks ask
        if stage != "fit" or getattr(trainer, "fast_dev_run", False):
            return
        check_local(folder)
        self.path = Path(folder) / "checkpoints" / "last.ckpt"
        if trainer.is_global_zero:
            moments = 2 * sum(p.nbytes for p in pl_module.parameters() if p.requires_grad)  # Adam's
            check_space(self.path.parent, 2 * (moments + sum(t.nbytes for t in pl_module.state_dict().values())))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the minutes from here."""
        self._since, self._saved = time.monotonic(), None

    def due(self) -> bool:
        """Whether it is time for a checkpoint in the middle of an epoch."""
        return self.path is not None and time.monotonic() - self._since >= 60 * self.minutes

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of an epoch, and wait for it at the end of the run."""
        if ends_here(trainer):
            self.save(trainer)
            return
        writer = trainer.strategy.checkpoint_io
        idle = not (isinstance(writer, AtomicCheckpointIO) and writer.busy)
        wanted = idle and (self._saved is None or time.monotonic() - self._since >= _APART)
        if trainer.strategy.reduce_boolean_decision(wanted):  # clocks differ, and one process alone writes
            self.save(trainer, wait=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what no epoch's end has saved."""
        if self._saved != getattr(pl_module, "clock", trainer.global_step):
            self.save(trainer)

    def save(self, trainer: L.Trainer, wait: bool = True) -> Path | None:
        """Write the checkpoint; called in all processes.

        Args:
            trainer: whose run it is.
            wait: for the file to be written.

        Returns:
            Its path, or None in a ``fast_dev_run``, which keeps none.
        """
        if self.path is None:
            return None
        in_background = not wait and isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
        trainer.save_checkpoint(self.path, False, storage_options="background" if in_background else None)
        self._since, self._saved = time.monotonic(), getattr(trainer.lightning_module, "clock", trainer.global_step)
        return self.path


class FurtherCheckpoints(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, for files beside ``last.ckpt``; without options it keeps none.

    A class of its own, since the state that earlier versions saved for ``last.ckpt`` must not reach it.
    """

    _looked = False
    _judged = False  # whether this epoch has been validated

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that there is a new value to compare."""
        self._judged = not trainer.sanity_checking
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of an epoch, by a monitor of validation only where that ran: a former value is of others."""
        judged, self._judged = self._judged, False
        if judged or not (self.monitor or "").startswith("val/"):
            super().on_train_epoch_end(trainer, pl_module)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise for a monitor that the first validation has not logged: Lightning would say so an epoch later."""
        logged = sorted(name for name in trainer.callback_metrics if name.startswith("val/"))
        if self.monitor and self.monitor.startswith("val/") and logged and self.monitor not in logged:
            raise T2IError(
                f"found --checkpoint.monitor {self.monitor}, which validation does not log: expected one of "
                f"{', '.join(logged)}"
            )

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        """Raise after the first batch for a monitor that training does not log; later as Lightning's."""
        logged = sorted({*trainer.callback_metrics, *getattr(pl_module, "_latest", ())})
        first, self._looked = not self._looked, True
        if first and self.monitor and self.monitor.startswith("train/") and self.monitor not in logged:
            names = ", ".join(name for name in logged if name.startswith("train/"))
            raise T2IError(
                f"found --checkpoint.monitor {self.monitor}, which training does not log: expected one of {names}"
            )
        super().on_train_batch_end(trainer, pl_module, *batch)


def further_checkpoints(options: Any) -> None:
    """Complete the options ``--checkpoint.*``: with a monitor one file is kept, with another option all of them.

    Args:
        options: a namespace of ``FurtherCheckpoints``, which is changed. In configs of earlier versions they kept
            ``last.ckpt``, which ``ResumePoint`` does now.

    Raises:
        T2IError: for a name that is empty.
    """
    if options.filename == "last":
        options.filename = None
        if options.every_n_epochs in (None, 1) and options.monitor is None and options.save_top_k == 1:
            options.every_n_epochs, options.save_top_k = None, 0
    if options.filename is not None and not Path(options.filename).name:
        raise T2IError(f"found --checkpoint.filename '{options.filename}', expected a name such as {_NAME}")
    triggers = ("monitor", "every_n_epochs", "every_n_train_steps", "train_time_interval")
    if options.save_top_k == 0 and (options.filename or any(options[name] is not None for name in triggers)):
        options.save_top_k = -1 if options.monitor is None else 1
    if options.save_top_k:
        options.filename = options.filename or _NAME
