"""Files of a run that survive a killed process and a full disk: checkpoints and metrics."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment  # type: ignore[attr-defined]

from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.models.state import check_finite


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside the former one and rename it, so that a killed run leaves the former one whole.

    Lightning's own writer uses the system's temporary folder, from which a rename may become a copy. With the storage
    option ``"background"`` the tensors are copied to the host, and a thread writes them while training goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread: Thread | None = None
        self._failed: tuple[Path, BaseException] | None = None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written in the background."""
        return self._thread is not None and self._thread.is_alive()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save to a local path; Lightning handles addresses such as s3://...

        Raises:
            T2IError: where a weight is not finite, or the disk is full; in the background, by the next call.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path)
            return
        failed = self._finish()
        if storage_options != "background":
            write_checkpoint(checkpoint, Path(path))
            if failed is None or failed[0] == Path(path):  # the new file stands for one that could not be written
                return
        if failed is not None:
            raise failed[1]
        self._thread = Thread(target=self._write, args=(_on_host(checkpoint), Path(path)), name="checkpoint")
        self._thread.start()

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        try:
            write_checkpoint(checkpoint, path)
        except BaseException as error:
            self._failed = path, error

    def _finish(self) -> tuple[Path, BaseException] | None:
        """Wait for the thread; the file that it failed to write, and why."""
        if self._thread is not None:
            self._thread.join()
        failed, self._thread, self._failed = self._failed, None, None
        return failed

    def teardown(self) -> None:
        """Wait for the thread."""
        self._finish()


def write_checkpoint(checkpoint: Mapping[str, Any], target: Path) -> None:
    """Write a checkpoint whole; the former file stays where this fails.

    Raises:
        T2IError: where a weight is not finite, or the file cannot be written.
    """
    check_finite(checkpoint.get("state_dict", {}), f"{target} is not written, for the model")
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):  # torch's words for a full disk
            raise
        reason = getattr(error, "strerror", None) or "the disk is full"
        former = "continue with --ckpt_path last from the former one, which is whole"
        raise T2IError(
            f"cannot write the checkpoint {target} of {size_of(checkpoint) / 1e6:,.1f} MB ({reason}): make room, and "
            + (former if target.is_file() else "start again")
        ) from error
    finally:
        for leftover in target.parent.glob(f".{target.name}.*.partial"):
            leftover.unlink(missing_ok=True)


def size_of(value: Any) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(size_of, inner))


def check_local(folder: str) -> None:
    """Raise for an address such as ``s3://...``: ``Path`` would turn it into a folder of that name."""
    if "://" in folder:
        raise T2IError(
            f"found --trainer.default_root_dir {folder}, expected a folder of this machine: train in one, and copy it "
            "afterwards"
        )


def check_space(folder: Path, needed: int) -> None:
    """Raise if a disk has less room than ``needed`` bytes; ``folder`` need not exist yet."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    if (free := shutil.disk_usage(place).free) < needed:
        raise T2IError(
            f"found {free / 1e6:,.0f} MB free for {folder}, expected {needed / 1e6:,.0f} MB for two checkpoints "
            "of this model: make room, or choose another disk with --trainer.default_root_dir"
        )


def _on_host(value: Any) -> Any:
    """A copy of nested containers whose tensors are on the CPU and belong to nobody else."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)((key, _on_host(each)) for key, each in value.items())
    if type(value) in (list, tuple):
        return type(value)(map(_on_host, value))
    return value


class _AppendingWriter(ExperimentWriter):
    """Continue the metrics file of a resumed run, which Lightning's writer would delete."""

    def __init__(self, log_dir: str, batches: int | None) -> None:
        self._batches = batches
        self._kept: list[Any] | None = None  # rows of the file, until others of later batches are dropped from it
        super().__init__(log_dir)

    def save(self) -> None:
        """Write new rows; the first time, drop those of batches that are trained again."""
        if self.metrics and self._kept is not None:
            self._replace(self._kept)
            self._kept = None
        super().save()

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            self.metrics_keys = list(rows.fieldnames or [])
            kept = [row for row in rows if _number(row.get("step")) < (self._batches or 0)]
        if self._batches is not None:
            self._kept = kept

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._replace(rows)

    def _replace(self, rows: list[Any]) -> None:
        with replacing(Path(self.metrics_file_path)) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.metrics_keys, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def _number(text: Any) -> float:
    """A step; that of a row which was cut off is infinite."""
    return int(text) if isinstance(text, str) and text.isdecimal() else float("inf")


class RunLogger(CSVLogger):
    """CSV metrics of a run, in ``<save_dir>/version_N/metrics.csv``; a resumed run continues its own file.

    Args:
        save_dir: parent of all runs of a config.
        run: name of the run's folder; by default the next free ``version_N``.
        batches: of the checkpoint that training continues from: rows of later batches are of a training that was lost,
            and are dropped.
    """

    def __init__(self, save_dir: str | Path, run: str | None = None, batches: int | None = None) -> None:
        number = (run or "").removeprefix("version_")  # a number, as new runs have it: Lightning shows it
        known = number.isdecimal() and str(int(number)) == number
        super().__init__(save_dir, "", int(number) if known else run)
        self._new, self._batches = run is None, batches

    def claim(self) -> Path:
        """Create the folder of a new run, which no other process has; the folder of a resumed run is there."""
        folder = Path(self.log_dir)
        while self._new:
            folder = Path(self.log_dir)
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                self._version = None  # another process was faster
        return folder

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write at once: a checkpoint must not be ahead of its rows where the run is killed."""
        super().log_metrics(metrics, step)
        self.save()

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of this process; only rank zero writes."""
        if self._experiment is None:
            self._experiment = _AppendingWriter(self.log_dir, self._batches)
        return self._experiment
