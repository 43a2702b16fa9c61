"""What Lightning says in our words, or not at all where it tells no news."""

from __future__ import annotations

import logging
import warnings

from t2i_zoo.errors import LOST


def _in_our_words(record: logging.LogRecord) -> bool:
    """Leave out what says no more than the config, and say what to do where a run has lost a process."""
    said = record.getMessage()
    if "Child process with PID" in said:
        record.msg, record.args = f"error: {LOST}", ()
    return not any(known in said for known in ("Tip:", "Seed set to", "`weights_only` was not set"))


def quieten() -> None:
    """Filter messages and warnings of Lightning, for the rest of the process."""
    for name in (
        "pytorch.utilities.rank_zero",
        "pytorch.trainer.connectors.checkpoint_connector",
        "fabric.strategies.launchers.subprocess_script",
        "fabric.utilities.seed",
    ):
        logging.getLogger(f"lightning.{name}").addFilter(_in_our_words)
    for harmless in (
        "LightningCLI's args parameter is intended",
        ".*isinstance.treespec, LeafSpec.",
        "Checkpoint directory .* exists and is not empty",  # a run that is resumed goes on in its own folder
        "The dirpath has changed from",
        "Be aware that when using `ckpt_path`",  # of callbacks that earlier versions or other options had
        "The number of training batches",  # models log each epoch's last batch then
        "Couldn't infer the batch indices",  # our loader is no torch DataLoader
    ):
        warnings.filterwarnings("ignore", message=harmless)
