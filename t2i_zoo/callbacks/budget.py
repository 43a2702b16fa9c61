"""Stop a run after a budget of processor time, so that runs are compared fairly on a machine that does other work."""

from __future__ import annotations

import signal
import time
from typing import Any

import lightning as L

from t2i_zoo.callbacks.stop import GracefulStop


class ProcessorBudget(L.Callback):
    """Save and stop, as at SIGTERM, once training has used so many minutes of processor time.

    The time is that of all threads of the process between the beginning of the training and its last batch, without
    start-up. A resumed run continues counting.

    Args:
        minutes: of the whole run, those before it was resumed included.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.seconds = 0.0
        self._last = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._last = time.process_time()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and ask for a stop where the budget is used up."""
        now = time.process_time()
        self.seconds, self._last = self.seconds + now - self._last, now
        if self.seconds >= 60 * self.minutes:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, GracefulStop):
                    callback.signal = signal.SIGTERM

    def state_dict(self) -> dict[str, Any]:
        """The seconds used so far, and the budget."""
        return {"seconds": self.seconds, "minutes": self.minutes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue counting."""
        self.seconds = state_dict["seconds"]
