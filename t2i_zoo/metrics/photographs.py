"""The real images that generated ones are compared with, cropped like the model's own training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.errors import T2IError


class Store(Protocol):
    """What is read from a packed store of the data module."""

    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    captions: list[str]
    manifest: dict[str, Any]
    folder: Any

    def image(self, row: int) -> NDArray[np.uint8]:
        """One image (H, W, 3)."""

    def rows(self, split: str) -> NDArray[np.int64]:
        """Positions of the images of one split."""


@dataclass(frozen=True)
class Photographs:
    """The images of a store, cropped from the centre.

    Attributes:
        store: store of the data module, packed for ``size`` or larger.
        size: side S in pixels.
    """

    store: Store
    size: int

    @property
    def labels(self) -> NDArray[np.int64]:
        """(M,) class of each image, -1 for none."""
        return self.store.labels

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(M + 1,) image i has captions ``offsets[i]`` to ``offsets[i + 1] - 1``."""
        return self.store.offsets

    @property
    def captions(self) -> list[str]:
        """All captions; empty if the data have none."""
        return self.store.captions

    @property
    def key(self) -> str:
        """Identifies these images: their store, what it was packed from, and the crop."""
        made = self.store.manifest
        return f"{self.store.folder.name} {made.get('format')} {made.get('source_fingerprint')} {self.size}"

    def split(self, name: str) -> tuple[str, Tensor]:
        """Name and rows of a split; data without a test split return their validation split, under its own name.

        Raises:
            T2IError: if it is empty.
        """
        for found in (name, "val") if name == "test" else (name,):
            if len(rows := self.store.rows(found)):
                return found, torch.from_numpy(np.asarray(rows, np.int64))
        raise T2IError(f"found no {name} images in the data, expected some: give data with that split")

    def sentences(self, numbers: Tensor) -> list[str]:
        """Captions by their numbers; blank if the data have none."""
        return [self.captions[i] for i in numbers.tolist()] if self.captions else [""] * len(numbers)

    def images(self, rows: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] on the CPU.

        Raises:
            T2IError: if the store keeps them at a smaller size.
        """
        crops = []
        for row in rows.tolist():
            pixels, size = self.store.image(row), self.size
            if min(pixels.shape[:2]) < size:
                raise T2IError(
                    f"found photographs packed at {min(pixels.shape[:2])} px, expected {size} px or more: raise "
                    "--data.load_size, or lower the protocol's size"
                )
            top, left = ((side - size) // 2 for side in pixels.shape[:2])
            crops.append(torch.from_numpy(pixels[top : top + size, left : left + size].copy()))
        return torch.stack(crops).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
