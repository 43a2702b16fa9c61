"""The folder of a run: finding it, keeping other processes out of it, and resuming in place."""

from __future__ import annotations

import inspect
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.fabric.utilities.rank_zero import rank_zero_only

from t2i_zoo.errors import T2IError
from t2i_zoo.files import RUN_FILES, replacing
from t2i_zoo.hub import is_address
from t2i_zoo.paths import find_weights, shipped_generators
from t2i_zoo.version import __version__

FINISHED = "finished.json"  #: written into the folder of a run that is complete
ENVIRONMENT = "environment.json"  #: of a run: versions and hardware that it was started with
LAST = Path("checkpoints") / "last.ckpt"  #: of a run: what it is resumed from
_LOCK, _CONFIG = RUN_FILES[0], "config.yaml"
_OF_A_START = (*RUN_FILES, _CONFIG, ENVIRONMENT, "hparams.yaml")


def run_of_checkpoint(path: Path) -> Path | None:
    """The folder of the run (``.../version_N``) that a checkpoint belongs to, or None for a file elsewhere.

    It is as relative as the path, as far as that names it.
    """
    folder = path.resolve().parent.parent
    if path.resolve().parent.name != "checkpoints" or not folder.name.startswith("version_"):
        return None
    return path.parent.parent if path.parent.parent.resolve() == folder else folder


def newest_run(root: Path) -> Path | None:
    """The run below ``root`` that was started or resumed last, or ``root`` itself if it is a run; None if none is.

    A run that was killed before its first checkpoint counts: an older one is not what ``last`` means.
    """

    def started(run: Path) -> float:
        files = (run / _LOCK, run / _CONFIG, run / LAST)
        return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)

    runs = [run for run in root.glob("version_*") if started(run)]
    runs += [root] if (root / LAST).is_file() else []
    return max(runs, key=started, default=None)


def resolve_checkpoint(wish: str, root: Path) -> Path | None:
    """What ``--ckpt_path`` means.

    Args:
        wish: a file, a run's folder, ``last`` for the newest run below ``root``, or ``auto`` for that run where it has
            a checkpoint, and otherwise for none.
        root: folder of the runs of a config.

    Raises:
        T2IError: if there is none.
    """
    if wish not in ("last", "auto"):
        if not (Path(wish).expanduser().exists() or is_address(wish) or wish in shipped_generators()):
            raise T2IError(f"found no checkpoint at {wish}: give a .ckpt file, the folder of a run, last or auto")
        return find_weights(wish)
    run = newest_run(root)
    if run is not None and (run / LAST).is_file():
        return run / LAST
    if wish == "auto":
        return None
    if run is None:
        raise T2IError(f"found no run to resume in {root}: start one without --ckpt_path, or give a .ckpt file")
    raise T2IError(
        f"the newest run, {run}, ended before its first checkpoint: start again without --ckpt_path, or name the run "
        "to resume"
    )


def check_resumable(wish: str, path: Path, command: str) -> None:
    """Raise for a file of weights alone, such as that of ``t2i-zoo export``, in place of a checkpoint."""
    if path.suffix == ".safetensors":
        remedy = f"start a new run from it with --model.weights {wish}" if command == "fit" else "give a .ckpt file"
        raise T2IError(
            f"found --ckpt_path {wish}, which holds a network without its training, expected a run or a .ckpt file: "
            f"{remedy}"
        )


def is_complete(
    checkpoint: dict[str, Any], path: Path, folder: Path | None, max_epochs: int | None, max_steps: int
) -> bool:
    """Whether a run has been trained as long as the Trainer's options ask for; then it is said, and noted as finished.

    Args:
        checkpoint: of the run.
        path: of the checkpoint.
        folder: of the run, or None for a checkpoint elsewhere.
        max_epochs, max_steps: of the Trainer; None and -1 are no limit.

    Raises:
        T2IError: the run is longer than that, or has no folder where it could be noted.
    """
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    epochs, batches = progress.get("processed", checkpoint["epoch"]), checkpoint["t2i_zoo"]["clock"]
    by_epochs = max_epochs is not None and 0 <= max_epochs <= epochs
    if not by_epochs and not 0 <= max_steps <= checkpoint.get("global_step", 0):
        return False
    option, limit = ("max_epochs", max_epochs) if by_epochs else ("max_steps", max_steps)
    if folder is None or (by_epochs and epochs != max_epochs):
        raise T2IError(
            f"found --trainer.{option} {limit} and a run of {epochs} epochs, expected more: raise it, or start a new "
            f"run from its weights with --model.weights {path}"
        )
    said = f"{folder} is finished after {epochs} epochs, {batches} batches: raise --trainer.{option} to go on"
    rank_zero_only(print)(said)
    if not (folder / FINISHED).is_file():  # it was killed after its last checkpoint
        note_finished(folder, epochs, batches)
    return True


def note_finished(folder: Path, epochs: int, batches: int) -> None:
    """Note in the folder of a run that it is complete."""
    with replacing(folder / FINISHED) as partial:
        partial.write_text(json.dumps({"epochs": epochs, "batches": batches, "version": __version__}) + "\n", "utf-8")


def lock(run: Path) -> FileLock:
    """Keep other processes from training in the folder of a run, until the lock is released or the process ends.

    Raises:
        T2IError: where another process is training in it.
    """
    held = FileLock(run / _LOCK, timeout=0, thread_local=False)
    try:
        held.acquire()
    except Timeout:
        raise T2IError(
            f"another process is training in {run}: wait until it ends or stop it, or start a new run without "
            "--ckpt_path"
        ) from None
    os.utime(run / _LOCK)  # see newest_run
    return held


def remove_failed_start(run: Path) -> None:
    """Remove the folder of a run that holds nothing but what every run writes before its first batch."""
    if {path.name for path in run.iterdir()} <= set(_OF_A_START):
        for name in _OF_A_START:
            (run / name).unlink(missing_ok=True)
        with suppress(OSError):
            run.rmdir()


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
    resumes: bool = True,
) -> None:
    """Raise if a resumed run asks for other hyperparameters than its checkpoint has.

    Lightning would silently prefer the checkpoint's. Files that a model starts from or looks at (``starts``) and the
    files of a text encoder are not compared, and a text encoder that is not given is the checkpoint's. Options that an
    older checkpoint lacks had their ``defaults``. If the run is not resumed but judged, the advice is another one.
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
        remedy = (
            "a resumed run takes no overrides, so use the run's own config, or start a new run from its weights with "
            f"--model.weights {path}"
            if resumes
            else "give the run's own config.yaml to --config, and no other options of the model"
        )
        raise T2IError(
            f"{path} was trained with --model.{name} {saved[name]} and the command says {asked[name]}: {remedy}"
        )


def environment(device: torch.device, processes: int) -> dict[str, str]:
    """Versions and hardware of this process, as text."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "started": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "t2i-zoo": __version__,
        "torch": torch.__version__,
        "lightning": version("lightning"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": gpu if processes == 1 else f"{processes} x {gpu}",
    }
