"""The folder of a run: finding it, resuming in place, and files that survive a killed process."""

from __future__ import annotations

import csv
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment  # type: ignore[attr-defined]

from t2i_zoo.errors import T2IError

FINISHED = "finished.json"  #: written into the folder of a run that is complete


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside the former one and rename it, so that a killed run leaves the former one whole.

    Lightning's own writer uses the system's temporary folder, from which a rename may become a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save to a local path; Lightning handles addresses such as s3://..."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
        try:
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
            for stale in target.parent.glob(f".{target.name}.*.partial"):
                stale.unlink(missing_ok=True)


class _AppendingWriter(ExperimentWriter):
    """Continue the metrics file of a resumed run, which Lightning's writer would delete."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = list(next(csv.reader(file), []))


class RunLogger(CSVLogger):
    """CSV metrics of a run, in ``<save_dir>/version_N/metrics.csv``; a resumed run appends to its own file."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of this process; only rank zero writes."""
        if self._experiment is None:
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment


def run_of_checkpoint(path: Path) -> Path | None:
    """The folder of the run (``.../version_N``) that a checkpoint belongs to, or None for a file elsewhere."""
    folder = path.resolve().parent.parent
    return folder if path.resolve().parent.name == "checkpoints" and folder.name.startswith("version_") else None


def resolve_checkpoint(wish: str, root: Path) -> Path:
    """What ``--ckpt_path`` means: a file, a run's folder, or ``last`` for the newest run below ``root``.

    Raises:
        T2IError: if there is none.
    """
    from t2i_zoo.paths import find_weights

    if wish == "last":
        if not root.is_dir():
            raise T2IError(f"found no run to resume in {root}: start one without --ckpt_path, or give a .ckpt file")
        return find_weights(root)
    return find_weights(wish)


def default_options(cls: type) -> dict[str, Any]:
    """Defaults of all options of a model, those of its bases included."""
    signatures = [inspect.signature(vars(c)["__init__"]) for c in reversed(cls.__mro__[:-1]) if "__init__" in vars(c)]
    options = [p for signature in signatures for p in signature.parameters.values()]
    return {p.name: p.default for p in options if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}


def check_no_overrides(
    hparams: dict[str, Any],
    wanted: dict[str, Any],
    path: Path,
    starts: Sequence[str] = ("weights",),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Raise if a resumed run asks for other hyperparameters than its checkpoint has.

    Lightning would silently prefer the checkpoint's. Files that a model starts from or looks at (``starts``) and the
    files of a text encoder are not compared, and a text encoder that is not given is the checkpoint's. Options that an
    older checkpoint lacks had their ``defaults``.
    """

    def plain(values: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in values.items() if k not in starts}
        if isinstance(kept.get("text_encoder"), dict):
            kept["text_encoder"] = {k: v for k, v in kept["text_encoder"].items() if k != "assets"}
        elif kept.get("text_encoder", "") is None:
            del kept["text_encoder"]
        return kept

    saved, asked = plain({**(defaults or {}), **hparams}), plain(wanted)
    differing = [k for k in asked if k in saved and saved[k] != asked[k]]
    if differing:
        name = differing[0]
        raise T2IError(
            f"{path} was trained with --model.{name} {saved[name]} and the command says {asked[name]}: a resumed run "
            "takes no overrides, so use the run's own config, or start a new run from its weights with "
            f"--model.weights {path}"
        )
