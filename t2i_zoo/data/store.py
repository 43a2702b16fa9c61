"""The packed store: a source's pictures decoded once, as uint8 arrays that are mapped and not read.

A store is a folder with ``images.npy`` (N, L, L, 3) uint8 at load size L, ``table.npz`` (labels, boxes, split codes,
caption offsets), ``captions.json`` and ``manifest.json``. It is written beside its place and renamed into it, under a
lock, so a killed or a second process never leaves, or sees, half a store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from t2i_zoo.data.images import Resize, load_image
from t2i_zoo.data.records import Record, Source
from t2i_zoo.errors import T2IError

FORMAT = 1  # to be raised with any change of what is packed
_TASK = 8  # pictures a task of a packing thread
_MOST_CLASSES = 1_000_000
SPLITS = ("train", "val", "test")


def tree_fingerprint(root: Path, without: Path | None = None) -> str:
    """Digest of the names, sizes and times of all files under ``root``: a quick sign that a source has changed.

    Links are followed, each folder is read once, hidden names are left out as the sources do.

    Args:
        root: folder of the source.
        without: a folder to leave out (the cache, where somebody keeps it inside the source).

    Raises:
        T2IError: names a folder that cannot be read.
    """
    digest, pending, seen = hashlib.blake2b(digest_size=16), [str(root)], set()
    left_out = os.path.realpath(without) if without is not None else None
    while pending:
        folder = pending.pop()
        try:
            info = os.stat(folder)  # noqa: PTH116  # tens of thousands of calls: no Path objects here
            if (info.st_dev, info.st_ino) in seen or os.path.realpath(folder) == left_out:
                continue  # a link back to where we were
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise T2IError(
                f"the folder {folder} cannot be read ({error.strerror}): mend it or its rights, or change "
                "--data.source.root"
            ) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    pending.append(entry.path)
                    continue
                info = entry.stat()
                sign = f"{info.st_size}\0{info.st_mtime_ns}"
            except OSError:
                sign = "broken"  # a link to nothing or to itself; it matters only where the source lists it
            digest.update(f"{entry.path[len(str(root)) :]}\0{sign}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the system says about the cache folder into a sentence."""
    try:
        yield
    except OSError as error:
        raise T2IError(
            f"the cache folder {folder} cannot be written ({error.strerror or error}): make room, or choose another "
            "with --data.cache_dir or T2I_ZOO_CACHE"
        ) from error


@dataclass(frozen=True)
class StoreSpec:
    """What decides a store's content: the source with its options, and how pictures are brought to load size."""

    source: Source
    load_size: int
    resize: Resize = "stretch"
    on_bad_image: Literal["raise", "skip"] = "raise"

    def key(self) -> str:
        """Name of the store's folder."""
        plain = json.dumps(
            [self.source.options(), self.load_size, self.resize, self.on_bad_image],
            sort_keys=True,
            default=str,
        )
        digest = hashlib.blake2b(plain.encode(), digest_size=6).hexdigest()
        return f"{type(self.source).__name__.lower()}-{self.load_size}px-{digest}"


class Store:
    """An opened store.

    Attributes:
        images: (N, L, L, 3) uint8, memory-mapped.
        labels: (N,) int64, -1 where the source has no classes.
        splits: (N,) int8 index into ``SPLITS``.
        captions: all captions, those of one picture in a row.
        offsets: (N + 1,) int64; picture i has ``captions[offsets[i]:offsets[i + 1]]``.
        manifest: counts, skipped pictures, hashes, format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        self.images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="c")  # torch wants it writable
        with np.load(folder / "table.npz") as table:
            self.labels: NDArray[np.int64] = table["labels"]
            self.splits: NDArray[np.int8] = table["splits"]
            self.offsets: NDArray[np.int64] = table["offsets"]
            self.boxes: NDArray[np.float32] = table["boxes"]
        self.captions: list[str] = json.loads((folder / "captions.json").read_text("utf-8"))

    def rows(self, split: str) -> NDArray[np.int64]:
        """Positions of the pictures of one split."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def damaged_files(self) -> list[str]:
        """Files whose content no longer has the hash in the manifest; reads the whole store."""
        return [name for name, entry in self.manifest["files"].items() if _hash(self.folder / name) != entry["hash"]]


def open_store(spec: StoreSpec, folder: Path, progress: bool = False) -> Store:
    """Open the store of ``spec`` under ``folder``, packing it first where it is missing, incomplete or outdated.

    Args:
        spec: what the store holds.
        folder: parent of all stores.
        progress: show a bar while packing.

    Raises:
        T2IError: for what is wrong with the source, or a picture under ``on_bad_image="raise"``.
    """
    place = folder / spec.key()
    if not spec.source.path.is_dir():
        records = spec.source.records()  # makes built-in data, or raises the source's own sentence
        if not spec.source.path.is_dir():
            raise T2IError(f"found no folder {spec.source.path} ({len(records)} records): correct --data.source.root")
    fingerprint = tree_fingerprint(spec.source.path, folder)
    if store := _open(place, fingerprint):
        return store
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{spec.key()}.lock")
        lock.acquire()
    try:
        if store := _open(place, fingerprint):  # another process has packed it meanwhile
            return store
        _remove_leftovers(spec, folder)
        try:
            beside = folder / f"{spec.key()}.tmp-{uuid.uuid4().hex[:8]}"
            _pack(spec, beside, fingerprint, progress)
            with _writing(folder):
                if place.exists():
                    place.rename(folder / f"{spec.key()}.tmp-old-{uuid.uuid4().hex[:8]}")
                beside.rename(place)
            return Store(place)
        finally:
            _remove_leftovers(spec, folder)
    finally:
        lock.release()


def _remove_leftovers(spec: StoreSpec, folder: Path) -> None:
    for leftover in folder.glob(f"{spec.key()}.tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _open(place: Path, fingerprint: str) -> Store | None:
    """The store at a place, None where it is missing, incomplete, outdated, or replaced while it is being opened."""
    try:
        text = (place / "manifest.json").read_text("utf-8")
        manifest = json.loads(text)
        whole = all((place / name).stat().st_size == entry["bytes"] for name, entry in manifest["files"].items())
        if not whole or manifest["format"] != FORMAT or manifest["source_fingerprint"] != fingerprint:
            return None
        store = Store(place)
        return store if (place / "manifest.json").read_text("utf-8") == text else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile):
        return None


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash_blocks(file)
        )


def _hash_blocks(file: Any) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _pack(spec: StoreSpec, folder: Path, fingerprint: str, progress: bool) -> None:
    try:
        records = spec.source.records()
    except OSError as error:
        raise T2IError(
            f"{error.filename or spec.source.path} cannot be read ({error.strerror}): mend it or change "
            "--data.source.root"
        ) from error
    if not records:
        raise T2IError(f"{spec.source.path} lists no pictures: correct --data.source.root")
    _check(records)
    side, count = spec.load_size, len(records)
    cache = folder.parent
    with _writing(cache):
        folder.mkdir()
        images = _new_array(folder / "images.partial.npy", (count, side, side, 3))
        bad = _decode(spec, records, images, progress)
        if bad:
            keep = [i for i in range(count) if i not in bad]
            if not keep:
                raise T2IError(
                    f"none of the {count} pictures under {spec.source.path} can be read: correct --data.source.root"
                )
            records = [records[i] for i in keep]
            whole, images = images, _new_array(folder / "images.npy", (len(keep), side, side, 3))
            for new, old in enumerate(keep):
                images[new] = whole[old]
            images.flush()
            (folder / "images.partial.npy").unlink()
        else:
            images.flush()
            (folder / "images.partial.npy").rename(folder / "images.npy")
        _write_table(records, folder)
        files = {path.name: {"bytes": path.stat().st_size, "hash": _hash(path)} for path in sorted(folder.iterdir())}
        manifest = {
            "format": FORMAT,
            "pictures": len(records),
            "captions": sum(len(record.captions) for record in records),
            "load_size": side,
            "resize": spec.resize,
            "source": spec.source.options(),
            "source_fingerprint": fingerprint,
            "skipped": [bad[i] for i in sorted(bad)],
            "files": files,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, default=str), "utf-8")


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A mapped array whose room on the disk is taken now: on a full disk a write to a mapping kills the process."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    elif shutil.disk_usage(path.parent).free < array.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return array


def _decode(spec: StoreSpec, records: Sequence[Record], images: NDArray[np.uint8], progress: bool) -> dict[int, str]:
    """Fill ``images`` on all cores; what was wrong with each picture that had to be skipped, by its number."""
    from PIL import Image

    bad: dict[int, str] = {}

    def decode(numbers: range) -> None:
        for i in numbers:
            try:
                images[i] = load_image(records[i].image, spec.load_size, spec.resize, records[i].box)
            except T2IError as error:
                if spec.on_bad_image == "raise":
                    raise
                bad[i] = str(error)

    count = len(records)
    parts = [range(start, min(start + _TASK, count)) for start in range(0, count, _TASK)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # PIL and numpy release the interpreter lock while they decode and average, so threads use all cores
    with warnings.catch_warnings(), ThreadPoolExecutor(cores) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # load_image has a sentence for it
        try:
            for _ in _progress(pool.map(decode, parts), len(parts), f"packing {spec.key()}", progress):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return bad


def _check(records: Sequence[Record]) -> None:
    """Raise for what a source must not list."""
    unclassed = next((record for record in records if record.class_id is None), None)
    classed = any(record.class_id is not None for record in records)
    if unclassed is not None and classed:
        raise T2IError(f"{unclassed.image} has no class but other pictures do: give every picture a class, or none")
    for record in records:
        if not any(caption.strip() for caption in record.captions):
            raise T2IError(f"{record.image} has no caption, expected at least one: write one or remove the picture")
        if record.class_id is not None and not 0 <= record.class_id < _MOST_CLASSES:
            raise T2IError(
                f"{record.image} has the label {record.class_id}, expected 0 to {_MOST_CLASSES - 1}: number the "
                "classes from 0"
            )
        if record.split not in SPLITS:
            raise T2IError(f"{record.image} is in the split {record.split!r}, expected one of {', '.join(SPLITS)}")


def _write_table(records: Sequence[Record], folder: Path) -> None:
    nothing = (np.nan,) * 4
    np.savez(
        folder / "table.npz",
        labels=np.array([-1 if record.class_id is None else record.class_id for record in records], np.int64),
        splits=np.array([SPLITS.index(record.split) for record in records], np.int8),
        offsets=np.cumsum([0, *(len(record.captions) for record in records)], dtype=np.int64),
        boxes=np.array([record.box or nothing for record in records], np.float32),
    )
    captions = [caption for record in records for caption in record.captions]
    (folder / "captions.json").write_text(json.dumps(captions), "utf-8")


def _progress(steps: Iterable[Any], total: int, title: str, show: bool) -> Iterable[Any]:
    if not show:
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, title, total, console=Console(stderr=True))
