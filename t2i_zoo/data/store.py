"""The packed store: a source's images decoded once, as uint8 arrays that are memory-mapped.

A store is a folder with ``images.npy`` (uint8, one image after the other), ``table.npz`` (where each image begins,
its height and width, labels, split codes, caption offsets), ``captions.json`` and ``manifest.json``. It is written
beside its place and renamed into it, under a lock, so that nobody meets half a store.
"""

from __future__ import annotations

import json
import shutil
import uuid
import warnings
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from t2i_zoo.data.notes import by_number
from t2i_zoo.data.packing import FORMAT, StoreSpec, pack, writing
from t2i_zoo.data.pixels import StoreImages
from t2i_zoo.data.reading import left_out
from t2i_zoo.data.usable import SPLITS
from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256

__all__ = ["SPLITS", "Store", "StoreSpec", "open_store"]


class Store:
    """An opened store.

    Attributes:
        images: (bytes,) uint8, one image after the other, memory-mapped.
        starts: (N,) int64 first byte of each image.
        shapes: (N, 2) int64 height and width of each image.
        labels: (N,) int64, -1 where the source has no classes.
        splits: (N,) int8 index into ``SPLITS``.
        captions: all captions, image by image; empty if the source has none.
        offsets: (N + 1,) int64; image i has ``captions[offsets[i]:offsets[i + 1]]``.
        manifest: counts, skipped images, hashes, format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
        # "r" and not "c": the system may require that a private mapping fits into memory, and COCO does not
        self.images: NDArray[np.uint8] = np.load(folder / "images.npy", mmap_mode="r")
        with np.load(folder / "table.npz") as table:
            self.starts: NDArray[np.int64] = table["starts"]
            self.shapes: NDArray[np.int64] = table["shapes"]
            self.labels: NDArray[np.int64] = table["labels"]
            self.splits: NDArray[np.int8] = table["splits"]
            self.offsets: NDArray[np.int64] = table["offsets"]
        self.captions: list[str] = json.loads((folder / "captions.json").read_text("utf-8"))

    def image(self, row: int) -> NDArray[np.uint8]:
        """One image, (H, W, 3), a view."""
        height, width = self.shapes[row]
        start = self.starts[row]
        return self.images[start : start + 3 * height * width].reshape(height, width, 3)

    def pixels(self) -> StoreImages:
        """All images as one tensor: (N, L, L, 3) if they are squares of one size without gaps, else flat."""
        with warnings.catch_warnings():  # it is only read
            warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
            data = torch.from_numpy(self.images)
        shapes, starts = torch.from_numpy(self.shapes), torch.from_numpy(self.starts)
        (height, width), count = self.shapes[0].tolist(), len(self.starts)
        if (self.shapes == self.shapes[0]).all() and height == width and len(data) == 3 * height * width * count:
            return StoreImages(data.view(count, height, width, 3), shapes)
        return StoreImages(data, shapes, starts)

    def captions_of(self, row: int) -> list[str]:
        """All captions of one image."""
        return self.captions[self.offsets[row] : self.offsets[row + 1]]

    def rows(self, split: str) -> NDArray[np.int64]:
        """Positions of the images of one split."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def remarks(self) -> list[str]:
        """Remarks about images that were left out."""
        skipped, lacks = self.manifest["skipped"], self.manifest["uncaptioned"]
        count = len(skipped) + len(lacks) + len(self.starts)
        are, have = (
            by_number(len(skipped), "is", "are"),
            by_number(len(lacks), "has no caption and is", "have no caption and are"),
        )
        said = [f"{len(skipped)} of {count} images cannot be read and {are} left out"] if skipped else []
        said += [f"{len(lacks)} of {count} images {have} left out"] if lacks else []
        emptied = self.manifest["emptied"]
        said += [f"nothing is left of the {split} split: repair its images or add others" for split in emptied]
        if "train" not in emptied and not len(self.rows("train")):
            said.append("no image is in the split train, so nothing can be trained: correct the splits")
        return said

    def damaged_files(self) -> list[str]:
        """Files whose content no longer has the hash in the manifest; reads the whole store."""
        return [name for name, entry in self.manifest["files"].items() if sha256(self.folder / name) != entry["hash"]]


def open_store(spec: StoreSpec, folder: Path, progress: bool = False) -> Store:
    """Open the store of ``spec`` under ``folder``, packing it first where it is missing, incomplete or outdated.

    Args:
        spec: what the store holds.
        folder: parent of all stores, in the cache folder.
        progress: show a bar while packing.

    Raises:
        T2IError: for a source with mistakes, or an unreadable image under ``on_bad_image="raise"``.
    """
    place = folder / spec.key()
    spec.source.fetch()
    fingerprint = spec.source.fingerprint(left_out(spec.source.path, folder))
    if store := _open(place, fingerprint):
        return store
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{spec.key()}.lock")
        lock.acquire()
    try:
        if store := _open(place, fingerprint):  # another process has packed it meanwhile
            return store
        _remove_leftovers(spec, folder)
        try:
            beside = folder / f"{spec.key()}.tmp-{uuid.uuid4().hex[:8]}"
            pack(spec, beside, fingerprint, progress)
            with writing(folder):
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
    """The store at a place, None where it is missing, incomplete, outdated, or replaced while it is being opened.

    Raises:
        T2IError: where a newer version wrote it, which would lose it to ours.
    """
    try:
        text = (place / "manifest.json").read_text("utf-8")
        manifest = json.loads(text)
        if isinstance(manifest["format"], int) and manifest["format"] > FORMAT:
            raise T2IError(
                f"the store {place} was written by a newer t2i-zoo (format {manifest['format']}, this one knows "
                f"{FORMAT}): upgrade t2i-zoo, or choose another --data.cache_dir"
            )
        whole = all((place / name).stat().st_size == entry["bytes"] for name, entry in manifest["files"].items())
        if not whole or manifest["format"] != FORMAT or manifest["source_fingerprint"] != fingerprint:
            return None
        store = Store(place)
        return store if (place / "manifest.json").read_text("utf-8") == text else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile):
        return None
