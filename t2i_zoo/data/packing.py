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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.data.images import MEGAPIXELS, ImageError, Resample, Resize, load_image, load_shape
from t2i_zoo.data.notes import collecting
from t2i_zoo.data.records import Record, Source
from t2i_zoo.data.usable import SPLITS, OnBad, usable
from t2i_zoo.errors import Noted, T2IError
from t2i_zoo.files import sha256

FORMAT = 3  # raise it with any change of what is packed
_TASK = 8  # images in a task of a packing thread
_DARK = 16  # of 255: an image without a brighter value is remarked
_ENLARGED = 4  # times: an image that is enlarged by more is remarked


@dataclass(frozen=True)
class StoreSpec:
    """What decides the content of a store: the source with its options, and how images are resized."""

    source: Source
    load_size: int
    resize: Resize = "stretch"
    on_bad_image: OnBad = "raise"
    resample: Resample = "area"
    draft: bool = False
    on_bad_caption: OnBad = "raise"
    max_megapixels: float = MEGAPIXELS
    limit: int | None = None

    def key(self) -> str:
        """Name of the store's folder."""
        parts = [self.source.options(), self.load_size, self.resize, self.on_bad_image, self.resample]
        parts += ["draft"] if self.draft else []
        parts += ["skip captions"] if self.on_bad_caption == "skip" else []
        parts += [self.max_megapixels] if self.max_megapixels != MEGAPIXELS else []
        parts += [{"limit": self.limit}] if self.limit else []
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


def listing(spec: StoreSpec) -> tuple[list[Record], list[str], list[str]]:
    """What ``usable`` keeps of the source's records, and the sentences about the others.

    Raises:
        T2IError: for what is wrong with the source, or an image or caption that is missing and may not be.
    """
    try:
        records = spec.records()
    except OSError as error:
        raise T2IError(
            f"{error.filename or spec.source.path} cannot be read ({error.strerror}): repair it or change "
            "--data.source.root"
        ) from error
    if not records:
        raise T2IError(f"{spec.source.path} lists no images: correct --data.source.root")
    return usable(records, spec.source, spec.on_bad_image, spec.on_bad_caption)


def none_readable(spec: StoreSpec, count: int, bad: dict[int, str]) -> T2IError:
    """The error if every image is unreadable, with the first reason."""
    return T2IError(
        f"none of the {count:,} images of {spec.source.path} can be read, such as: {bad[min(bad)]}; correct "
        "--data.source.root or repair the images"
    )


def pack(spec: StoreSpec, folder: Path, fingerprint: str, progress: bool) -> None:
    """Pack a source into a new folder; if this raises, the caller removes the unfinished folder."""
    with collecting() as notes:
        listed, lost, lacks = listing(spec)
    with writing(folder.parent):
        folder.mkdir()
        bad: dict[int, str] = {}
        shapes = _shapes(spec, listed, bad, progress)
        starts = np.cumsum([0, *(3 * shapes.prod(1))])
        flat = _new_array(folder / "images.npy", int(starts[-1]))
        places = [flat[a:b].reshape(*shape, 3) for a, b, shape in zip(starts, starts[1:], shapes, strict=False)]
        dark, tiny = _decode(spec, listed, bad, places, progress)
        flat.flush()
        for i in dark:
            notes.add(f"images almost black, without a value of {_DARK} or more of 255", str(listed[i].image))
        for i in tiny:
            notes.add(f"images with a side below {spec.load_size / _ENLARGED:g} pixels, enlarged", str(listed[i].image))
        keep = [i for i in range(len(listed)) if i not in bad]
        if not keep:
            raise none_readable(spec, len(listed), bad)
        records = [listed[i] for i in keep]
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
            "skipped": [*lost, *(bad[i] for i in sorted(bad))],
            "uncaptioned": lacks,
            "emptied": sorted({record.split for record in listed} - {record.split for record in records}),
            "understood": notes.facts,
            "remarks": notes.remarks(),
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
        shapes[i] = load_shape(records[i].image, spec.load_size, spec.resize, records[i].box, spec.max_megapixels)

    if spec.resize == "short_side":  # otherwise all are equal
        on_all_cores(spec, len(records), look, bad, "looking at" if progress else None)
    return shapes


def _decode(
    spec: StoreSpec, records: Sequence[Record], bad: dict[int, str], places: Sequence[NDArray[np.uint8]], progress: bool
) -> tuple[list[int], list[int]]:
    """Decode every image into its place; the numbers of those that are almost black, and of those enlarged by much."""
    dark, tiny = list[int](), list[int]()

    def decode(i: int) -> None:
        if i not in bad:
            places[i][:] = load(
                spec, records[i], lambda side: tiny.append(i) if _ENLARGED * side < spec.load_size else None
            )
            if places[i].max() < _DARK:
                dark.append(i)

    start = time.perf_counter()
    on_all_cores(spec, len(records), decode, bad, "packing" if progress else None)
    if progress:
        rate = len(records) / max(time.perf_counter() - start, 1e-9)
        print(f"packed {rate:,.0f} images a second, {cores()} at a time", file=sys.stderr)
    return sorted(dark), sorted(tiny)


def load(spec: StoreSpec, record: Record, tell: Callable[[int], Any] = lambda side: None) -> NDArray[np.uint8]:
    """An image at load size, (H, W, 3); ``tell`` as of ``load_image``."""
    options = spec.resize, record.box, spec.resample, spec.draft, spec.max_megapixels
    return load_image(record.image, spec.load_size, *options, tell)


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

    wrong: dict[int, ImageError] = {}

    def some(numbers: range) -> None:
        for i in numbers:
            try:
                work(i)
            except ImageError as error:
                wrong[i] = error

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
        noted.sentences += [str(wrong[i]) for i in sorted(wrong)]
        noted.check()
    bad |= {i: error.found for i, error in wrong.items()}


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

    return track(steps, title, total, console=Console(stderr=True, force_jupyter=False))
