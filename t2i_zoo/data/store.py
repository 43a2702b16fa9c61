"""The packed store: a source's pictures decoded once, as uint8 arrays that are mapped and not read.

A store is a folder with ``images.npy`` (N, L, L, 3) uint8 at load size L, ``table.npz`` (labels, boxes, split codes,
caption offsets), ``captions.json`` and ``manifest.json``. It is written beside its place and renamed into it, under a
lock, so a killed or a second process never leaves, or sees, half a store.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from t2i_zoo.data.images import Resize, load_image
from t2i_zoo.data.records import Record, Source
from t2i_zoo.errors import T2IError

FORMAT = 1
SPLITS = ("train", "val", "test")


def tree_fingerprint(root: Path) -> str:
    """Digest of the names, sizes and times of all files under ``root``: a quick sign that a source has changed."""
    digest, pending = hashlib.blake2b(digest_size=16), [str(root)]
    while pending:
        with os.scandir(pending.pop()) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_dir():
                if not entry.is_symlink():
                    pending.append(entry.path)
                continue
            info = entry.stat()
            digest.update(
                f"{entry.path[len(str(root)) :]}\0{info.st_size}\0{info.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
    return digest.hexdigest()


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
    fingerprint = tree_fingerprint(spec.source.path)
    if _usable(place, fingerprint):
        return Store(place)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{spec.key()}.lock"):
        if not _usable(place, fingerprint):  # another process may have packed it meanwhile
            for leftover in folder.glob(f"{spec.key()}.tmp-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            beside = folder / f"{spec.key()}.tmp-{uuid.uuid4().hex[:8]}"
            beside.mkdir()
            try:
                _pack(spec, beside, fingerprint, progress)
                if place.exists():
                    place.rename(folder / f"{spec.key()}.tmp-old-{uuid.uuid4().hex[:8]}")
                beside.rename(place)
            finally:
                for leftover in folder.glob(f"{spec.key()}.tmp-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
    return Store(place)


def _usable(place: Path, fingerprint: str) -> bool:
    try:
        manifest = json.loads((place / "manifest.json").read_text("utf-8"))
        sizes = {name: (place / name).stat().st_size for name in manifest["files"]}
    except (OSError, ValueError, KeyError):
        return False
    whole = all(sizes[name] == entry["bytes"] for name, entry in manifest["files"].items())
    return whole and manifest["format"] == FORMAT and manifest["source_fingerprint"] == fingerprint


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
    records = spec.source.records()
    if not records:
        raise T2IError(f"{spec.source.path} lists no pictures: correct --data.source.root")
    side, count = spec.load_size, len(records)
    partial = folder / "images.partial.npy"
    images = np.lib.format.open_memmap(partial, "w+", np.uint8, (count, side, side, 3))
    bad: dict[int, str] = {}

    def decode(i: int) -> None:
        try:
            images[i] = load_image(records[i].image, side, spec.resize, records[i].box)
        except T2IError as error:
            if spec.on_bad_image == "raise":
                raise
            bad[i] = str(error)

    # PIL and numpy release the interpreter lock while they decode and average, so threads use all cores
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            for _ in _progress(pool.map(decode, range(count)), count, f"packing {spec.key()}", progress):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if bad:
        keep = [i for i in range(count) if i not in bad]
        if not keep:
            raise T2IError(
                f"none of the {count} pictures under {spec.source.path} can be read: correct --data.source.root"
            )
        records = [records[i] for i in keep]
        whole, images = (
            images,
            np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (len(keep), side, side, 3)),
        )
        for new, old in enumerate(keep):
            images[new] = whole[old]
        images.flush()
        partial.unlink()
    else:
        images.flush()
        partial.rename(folder / "images.npy")
    _write_table(records, folder)
    files = {
        path.name: {"bytes": path.stat().st_size, "hash": _hash(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
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


def _write_table(records: Sequence[Record], folder: Path) -> None:
    labels = [-1 if record.class_id is None else record.class_id for record in records]
    if -1 in labels and set(labels) != {-1}:
        lacking = records[labels.index(-1)].image
        raise T2IError(f"{lacking} has no class but other pictures do: give every picture a class, or none")
    nothing = (np.nan,) * 4
    np.savez(
        folder / "table.npz",
        labels=np.array(labels, np.int64),
        splits=np.array([SPLITS.index(record.split) for record in records], np.int8),
        offsets=np.cumsum([0, *(len(record.captions) for record in records)], dtype=np.int64),
        boxes=np.array([record.box or nothing for record in records], np.float32),
    )
    captions = [caption for record in records for caption in record.captions]
    (folder / "captions.json").write_text(json.dumps(captions, ensure_ascii=False), "utf-8")


def _progress(steps: Iterable[Any], total: int, title: str, show: bool) -> Iterable[Any]:
    if not show:
        return steps
    from rich.progress import track

    return track(steps, title, total)
