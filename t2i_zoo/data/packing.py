"""How a store is packed: images decoded on all cores into one mapped array, tables and a manifest beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.data.images import REMEDY, Resample, Resize, load_image, load_shape
from t2i_zoo.data.records import Record, Source
from t2i_zoo.errors import Noted, T2IError
from t2i_zoo.files import sha256

FORMAT = 2  # raise it with any change of what is packed
SPLITS = ("train", "val", "test")
_TASK = 8  # images in a task of a packing thread
_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class StoreSpec:
    """What decides the content of a store: the source with its options, and how images are resized."""

    source: Source
    load_size: int
    resize: Resize = "stretch"
    on_bad_image: Literal["raise", "skip"] = "raise"
    resample: Resample = "area"
    draft: bool = False
    limit: int | None = None

    def key(self) -> str:
        """Name of the store's folder."""
        parts = [self.source.options(), self.load_size, self.resize, self.on_bad_image, self.resample]
        parts += [name for name in ("draft",) if self.draft] + ([{"limit": self.limit}] if self.limit else [])
        plain = json.dumps(parts, sort_keys=True, default=str)
        digest = hashlib.blake2b(plain.encode(), digest_size=6).hexdigest()
        return f"{type(self.source).__name__.lower()}-{self.load_size}px-{digest}"

    def records(self) -> list[Record]:
        """The records of the source, or about ``limit`` of them, spread evenly over each split."""
        found = self.source.records()
        if self.limit is None or self.limit >= len(found):
            return found
        kept: list[int] = []
        for split in SPLITS:
            rows = [i for i, record in enumerate(found) if record.split == split]
            count = min(max(round(self.limit * len(rows) / len(found)), 1), len(rows))
            kept += [rows[int(place)] for place in np.linspace(0, len(rows) - 1, count)] if rows else []
        return [found[i] for i in sorted(kept)]


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn errors of the system about the cache folder into one sentence."""
    try:
        yield
    except OSError as error:
        raise T2IError(
            f"the cache folder {folder} cannot be written ({error.strerror or error}): make room, or choose another "
            "with --data.cache_dir or T2I_ZOO_CACHE"
        ) from error


def pack(spec: StoreSpec, folder: Path, fingerprint: str, progress: bool) -> None:
    """Pack a source into a new folder; if this raises, the caller removes the unfinished folder."""
    try:
        records = spec.records()
    except OSError as error:
        raise T2IError(
            f"{error.filename or spec.source.path} cannot be read ({error.strerror}): repair it or change "
            "--data.source.root"
        ) from error
    if not records:
        raise T2IError(f"{spec.source.path} lists no images: correct --data.source.root")
    check_records(records)
    cache = folder.parent
    with writing(cache):
        folder.mkdir()
        bad: dict[int, str] = {}
        shapes = _shapes(spec, records, bad, progress)
        starts = np.cumsum([0, *(3 * shapes.prod(1))])
        flat = _new_array(folder / "images.npy", int(starts[-1]))
        _decode(
            spec,
            records,
            bad,
            [flat[a:b].reshape(*shape, 3) for a, b, shape in zip(starts, starts[1:], shapes, strict=False)],
            progress,
        )
        flat.flush()
        keep = [i for i in range(len(records)) if i not in bad]
        if not keep:
            raise T2IError(
                f"none of the {len(records)} images under {spec.source.path} can be read: correct --data.source.root"
            )
        emptied = _emptied(records, bad)
        records = [records[i] for i in keep]
        _write_table(records, starts[keep], shapes[keep], folder)
        files = {path.name: {"bytes": path.stat().st_size, "hash": sha256(path)} for path in sorted(folder.iterdir())}
        manifest = {
            "format": FORMAT,
            "pictures": len(records),
            "captions": sum(len(record.captions) for record in records),
            "load_size": spec.load_size,
            "resize": spec.resize,
            "resample": spec.resample,
            "draft": spec.draft,
            "source": spec.source.options(),
            "source_fingerprint": fingerprint,
            "skipped": [bad[i] for i in sorted(bad)],
            "emptied": emptied,
            "files": files,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, default=str), "utf-8")


def _new_array(path: Path, size: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A mapped array with its disk space reserved: on a full disk, writing to a mapping kills the process."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, (size,))
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    elif shutil.disk_usage(path.parent).free < array.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return array


def _shapes(spec: StoreSpec, records: Sequence[Record], bad: dict[int, str], progress: bool) -> NDArray[np.int64]:
    """Height and width (N, 2) of each packed image; zeros for an image that cannot be read."""
    shapes = np.full((len(records), 2), spec.load_size, np.int64)

    def look(i: int) -> None:
        shapes[i] = 0
        shapes[i] = load_shape(records[i].image, spec.load_size, spec.resize, records[i].box)

    if spec.resize == "short_side":  # otherwise all are equal
        on_all_cores(spec, len(records), look, bad, "looking at" if progress else None)
    return shapes


def _decode(
    spec: StoreSpec, records: Sequence[Record], bad: dict[int, str], places: Sequence[NDArray[np.uint8]], progress: bool
) -> None:
    """Decode every image into its place."""

    def decode(i: int) -> None:
        if i not in bad:
            record, size = records[i], spec.load_size
            places[i][:] = load_image(record.image, size, spec.resize, record.box, spec.resample, spec.draft)

    start = time.perf_counter()
    on_all_cores(spec, len(records), decode, bad, "packing" if progress else None)
    if progress:
        rate = len(records) / max(time.perf_counter() - start, 1e-9)
        print(f"packed {rate:,.0f} images a second, {cores()} at a time", file=sys.stderr)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_all_cores(
    spec: StoreSpec, count: int, work: Callable[[int], None], bad: dict[int, str], title: str | None = None
) -> None:
    """Do the work on all cores; note what is wrong with each image that is skipped, by its number.

    Raises:
        T2IError: with the mistakes of all images, where none is to be skipped.
    """
    from PIL import Image

    wrong: dict[int, str] = {}

    def some(numbers: range) -> None:
        for i in numbers:
            try:
                work(i)
            except T2IError as error:
                wrong[i] = str(error)

    parts = [range(start, min(start + _TASK, count)) for start in range(0, count, _TASK)]
    # PIL and numpy release the interpreter lock while they decode and average, so threads use all cores
    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # load_image has a sentence for it
        try:
            for _ in progress_bar(pool.map(some, parts), len(parts), f"{title} {spec.key()}", title is not None):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if spec.on_bad_image == "raise":
        noted = Noted()
        noted.sentences += [wrong[i] for i in sorted(wrong)]
        noted.check()
    bad |= {i: text.removesuffix(REMEDY) for i, text in wrong.items()}


def check_records(records: Sequence[Record]) -> None:
    """Raise for records that contradict each other or are incomplete."""
    unclassed = next((record for record in records if record.class_id is None), None)
    classed = any(record.class_id is not None for record in records)
    if unclassed is not None and classed:
        raise T2IError(f"{unclassed.image} has no class but other images do: give every image a class, or none")
    captioned = any(record.captions for record in records)  # a source may have images without captions
    for record in records:
        if captioned and not any(caption.strip() for caption in record.captions):
            raise T2IError(f"{record.image} has no caption, expected at least one: write one or remove the image")
        if record.class_id is not None and not 0 <= record.class_id < _MOST_CLASSES:
            raise T2IError(
                f"{record.image} has the label {record.class_id}, expected 0 to {_MOST_CLASSES - 1}: number the "
                "classes from 0"
            )
        if record.split not in SPLITS:
            raise T2IError(f"{record.image} is in the split {record.split!r}, expected one of {', '.join(SPLITS)}")


def _emptied(records: Sequence[Record], bad: dict[int, str]) -> list[str]:
    """The splits that skipping has emptied."""
    kept = {record.split for i, record in enumerate(records) if i not in bad}
    return sorted({record.split for record in records} - kept)


def _write_table(records: Sequence[Record], starts: NDArray[np.int64], shapes: NDArray[np.int64], folder: Path) -> None:
    np.savez(
        folder / "table.npz",
        starts=starts,
        shapes=shapes,
        labels=np.array([-1 if record.class_id is None else record.class_id for record in records], np.int64),
        splits=np.array([SPLITS.index(record.split) for record in records], np.int8),
        offsets=np.cumsum([0, *(len(record.captions) for record in records)], dtype=np.int64),
    )
    captions = [caption for record in records for caption in record.captions]
    (folder / "captions.json").write_text(json.dumps(captions), "utf-8")


def progress_bar(steps: Iterable[Any], total: int, title: str, show: bool) -> Iterable[Any]:
    """The steps, with a progress bar on standard error if ``show`` asks for it."""
    if not show:
        return steps
    from rich.console import Console
    from rich.progress import track

    return track(steps, title, total, console=Console(stderr=True))
