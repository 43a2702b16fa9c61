"""Stop a run between two batches, on SIGTERM, Ctrl-C, or at one of the Trainer's limits, without losing a batch."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning as L

from t2i_zoo.callbacks.resume import ResumePoint


class RunStopped(SystemExit):
    """Raised once a stopped run is saved; carries the exit code: 0 for SIGTERM, 130 for Ctrl-C."""


class GracefulStop(L.Callback):
    """Finish the batch, let ``ResumePoint`` save it and exit; a second Ctrl-C stops at once.

    Where ``max_steps``, ``max_time`` or another callback ends the training in the middle of an epoch, the checkpoint is
    of that moment too, and nothing happens that belongs to the end of an epoch. It must be the first callback for that.

    Several processes agree on the batch, every ``check_every`` batches, so that none waits for another in a collective.
    Lightning's own handler broadcasts from inside the signal handler, which can collide with another collective.

    Args:
        check_every: batches between two agreements of several processes; a single process checks after each batch.
    """

    def __init__(self, check_every: int = 10) -> None:
        self.check_every = check_every
        self.signal = 0
        self._former: dict[int, Any] = {}
        self._max_steps: int | None = None  # while it is hidden

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hide ``max_steps`` while a checkpoint is restored: with it Lightning would repeat the end of the epoch."""
        self.signal = 0
        self._max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give ``max_steps`` back where there was nothing to train."""
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the handlers of both signals, Lightning's too."""
        self.on_fit_end(trainer, pl_module)

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
        """Save if it is time, and save and exit if a signal has arrived.

        Not after the last batch of an epoch: a run that is resumed from there would skip what belongs to the epoch's
        end, such as its grid and the learning rate's decay. The first batch of the next epoch comes first, unless
        every batch is the last of its epoch.
        """
        if trainer.num_training_batches > 1 and trainer.fit_loop.epoch_loop._num_ready_batches_reached():
            return
        keeper, several = _keeper(trainer), trainer.world_size > 1
        wanted = bool(self.signal) or (keeper is not None and keeper.due())
        if several:
            if batch_idx % self.check_every:
                return
            wanted = trainer.strategy.reduce_boolean_decision(wanted, all=False)
        if not wanted:
            return
        stop = trainer.strategy.reduce_boolean_decision(bool(self.signal), all=False) if several else bool(self.signal)
        if not stop:
            assert keeper is not None
            keeper.save(trainer, wait=False)
            return
        trainer._logger_connector.update_train_step_metrics()  # of this batch, which Lightning logs after this hook
        path = keeper.save(trainer) if keeper is not None else None
        if trainer.is_global_zero:
            saved = f", saved {path}; continue with --ckpt_path last" if path else ""
            print(f"\nstopped after batch {getattr(pl_module, 'clock', 0)}{saved}", flush=True)
        raise RunStopped(130 if self.signal == signal.SIGINT else 0)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Where the epoch is not over, save its middle and leave the loop: ``on_train_end`` comes next."""
        loop = trainer.fit_loop
        if loop.epoch_loop._num_ready_batches_reached():
            return
        for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
            progress.processed -= 1  # type: ignore[attr-defined]  # Lightning has counted the epoch
        if (keeper := _keeper(trainer)) is not None:
            keeper.save(trainer)
        raise StopIteration  # which ends Lightning's loop over epochs

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the handlers; by ``teardown`` Lightning has restored its own, which would stay."""
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Restore all after a stop or an error, where Lightning calls no ``on_train_end``."""
        self.on_fit_end(trainer, pl_module)
        self._restore()

    def _restore(self) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        self._former = {}


def _keeper(trainer: L.Trainer) -> ResumePoint | None:
    return next((each for each in trainer.callbacks if isinstance(each, ResumePoint)), None)  # type: ignore[attr-defined]
