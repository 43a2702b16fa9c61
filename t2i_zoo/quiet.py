"""What Lightning says in our words, or not at all where it tells no news."""

from __future__ import annotations

import logging
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from t2i_zoo.errors import LOST

_PACKAGE = str(Path(__file__).parent)


def _in_our_words(record: logging.LogRecord) -> bool:
    """Leave out what says no more than the config, and say what to do where a run has lost a process."""
    said = record.getMessage()
    if "Child process with PID" in said:
        record.msg, record.args = f"error: {LOST}", ()
    return not any(known in said for known in ("Tip:", "Seed set to", "`weights_only` was not set"))


def _as_note(former: Any, message: Any, category: type[Warning], filename: str, *place: Any) -> None:
    """Show a warning of ours as a note, without the line of code that it came from; all others as they were."""
    if filename.startswith(_PACKAGE):
        print(f"note: {message}", file=sys.stderr)
    else:
        former(message, category, filename, *place)


def quieten() -> None:
    """Filter messages and warnings of Lightning, and show ours as notes, for the rest of the process."""
    if getattr(warnings.showwarning, "func", None) is not _as_note:
        warnings.showwarning = partial(_as_note, warnings.showwarning)
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
