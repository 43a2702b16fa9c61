"""Folders and files on the user's machine."""

from __future__ import annotations

import os
from pathlib import Path

from t2i_zoo import hub
from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_pointer

_NAMED = 3  # files in a sentence


def cache_folder() -> Path:
    """Folder for stores, encoded captions and built-in data: ``$T2I_ZOO_CACHE``, or the system's cache folder."""
    if chosen := os.environ.get("T2I_ZOO_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("t2i-zoo", appauthor=False)


def experiments_folder() -> Path:
    """Folder of the packaged configs, in an installed package or in a checkout."""
    packaged = Path(__file__).parent / "experiments"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "experiments"


def shipped_generators() -> dict[str, Path]:
    """Trained generators that come with the package, by name; the card of each is beside it, as .md.

    Those with the modern recipe come first; the page of ``app`` begins with the first.
    """
    found = (Path(__file__).parent / "weights").glob("*.safetensors")
    return {path.stem: path for path in sorted(found, key=lambda path: (not path.stem.startswith("flowers"), path))}


def check_new(*paths: Path, overwrite: bool, option: str = "--out") -> None:
    """Raise where a file that a command is about to write is there already, unless it may be replaced.

    Args:
        paths: of the files.
        overwrite: whether they may be replaced.
        option: the one that names them.
    """
    if (present := [str(path) for path in paths if path.exists()]) and not overwrite:
        named = " and ".join(present[:_NAMED]) + (f" and {more} more" if (more := len(present) - _NAMED) > 0 else "")
        raise T2IError(f"found {named} already, expected a new name: change {option}, or add --overwrite")


def find_weights(path: str | Path, local_files_only: bool = False) -> Path:
    """Resolve a checkpoint, a run or the name of a generator to a file: .ckpt, or .safetensors.

    Args:
        path: a file, or the folder of a run or of one of its versions, whose last checkpoint is found; the folder that
            ``t2i-zoo push`` writes, or its address on the Hugging Face hub, ``hf://user/name@revision``; if it does not
            exist, the name of a generator that comes with the package.
        local_files_only: download nothing from the hub.

    Raises:
        T2IError: nothing is found.
    """
    if hub.is_address(path):
        return hub.fetch(path, local_files_only)
    path = Path(path).expanduser()
    if (path / hub.WEIGHTS).is_file() and (path / hub.CONFIG).is_file():
        return hub.check(path / hub.WEIGHTS)
    if path.is_dir():
        patterns = ("last.ckpt", "checkpoints/last.ckpt", "*/checkpoints/last.ckpt")
        found = [file for pattern in patterns for file in path.glob(pattern)]
        if not found:
            inner = sorted({str(file.parents[2]) for file in path.glob("*/*/checkpoints/last.ckpt")})
            if inner:
                listed = ", ".join(inner[:_NAMED]) + (f" or {more} more" if (more := len(inner) - _NAMED) > 0 else "")
                raise T2IError(f"found the runs of several configs in {path}, expected one: name {listed}")
            raise T2IError(f"found no last.ckpt in the run folder {path}: train first, or name a .ckpt file")
        return max(found, key=lambda p: p.stat().st_mtime)
    if not path.exists():
        if shipped := shipped_generators().get(str(path)):
            return shipped
        names = f", or one of {', '.join(shipped_generators())}" if shipped_generators() else ""
        raise T2IError(f"found no checkpoint at {path}: name a .ckpt file or the folder of a run{names}")
    refuse_pointer(path)
    return path
