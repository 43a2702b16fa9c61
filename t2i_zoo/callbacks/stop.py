"""Stop a run on SIGTERM or Ctrl-C without losing a batch."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L


class RunStopped(SystemExit):
    """Raised once a stopped run is saved; carries the exit code: 0 for SIGTERM, 130 for Ctrl-C."""


class GracefulStop(L.Callback):
    """Finish the batch, save ``last.ckpt`` and exit; a second Ctrl-C stops at once.

    Several processes agree on the batch, every ``check_every`` batches, so that none waits for another in a collective.
    Lightning's own handler broadcasts from inside the signal handler, which can collide with another collective.

    Args:
        check_every: batches between two agreements of several processes; a single process checks after each batch.
    """

    def __init__(self, check_every: int = 10) -> None:
        self.check_every = check_every
        self.signal = 0
        self._former: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the handlers of both signals, Lightning's too."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = number

        try:
            self._former = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: for instance a notebook server, which handles signals itself
            self._former = {}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and exit if a signal has arrived."""
        stop = bool(self.signal)
        if trainer.world_size > 1:
            if batch_idx % self.check_every:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        if not stop:
            return
        saved = ""
        checkpoint = trainer.checkpoint_callback
        if checkpoint is not None and getattr(checkpoint, "dirpath", None):
            path = Path(str(checkpoint.dirpath)) / "last.ckpt"  # type: ignore[attr-defined]
            trainer.save_checkpoint(path)
            saved = f", saved {path}; continue with --ckpt_path last"
        if trainer.is_global_zero:
            print(f"\nstopped after batch {getattr(pl_module, 'clock', 0)}{saved}", flush=True)
        raise RunStopped(130 if self.signal == signal.SIGINT else 0)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the handlers; by ``teardown`` Lightning has restored its own, which would stay."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore the handlers after a stop or an error, where Lightning calls no ``on_train_end``."""
        self._restore()

    def _restore(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}
