"""The real pictures that drawn ones are held against, cut as the model's own training pictures are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.errors import T2IError


class Store(Protocol):
    """What is read of a packed store of the data module."""

    labels: NDArray[np.int64]
    offsets: NDArray[np.int64]
    captions: list[str]
    manifest: dict[str, Any]
    folder: Any

    def picture(self, row: int) -> NDArray[np.uint8]:
        """One picture (H, W, 3)."""

    def rows(self, split: str) -> NDArray[np.int64]:
        """Positions of the pictures of one split."""


@dataclass(frozen=True)
class Photographs:
    """The pictures of a store, cut from the middle.

    Attributes:
        store: of the data module, packed for ``size`` or more.
        size: side S in pixels.
    """

    store: Store
    size: int

    @property
    def labels(self) -> NDArray[np.int64]:
        """(M,) class of each, -1 where the data have none."""
        return self.store.labels

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(M + 1,) picture i has captions ``offsets[i]`` to ``offsets[i + 1] - 1``."""
        return self.store.offsets

    @property
    def captions(self) -> list[str]:
        """All captions; empty where the data have none."""
        return self.store.captions

    @property
    def key(self) -> str:
        """What tells these pictures from others: their store, what it was made of, and the cut."""
        made = self.store.manifest
        return f"{self.store.folder.name} {made.get('format')} {made.get('source_fingerprint')} {self.size}"

    def split(self, name: str) -> tuple[str, Tensor]:
        """A split's name and rows; data without a test split give their validation split for it, by its own name.

        Raises:
            T2IError: where it is empty.
        """
        for found in (name, "val") if name == "test" else (name,):
            if len(rows := self.store.rows(found)):
                return found, torch.from_numpy(np.asarray(rows, np.int64))
        raise T2IError(f"found no {name} pictures in the data, expected some: give data with that split")

    def sentences(self, numbers: Tensor) -> list[str]:
        """Captions by their numbers; blank where the data have none."""
        return [self.captions[i] for i in numbers.tolist()] if self.captions else [""] * len(numbers)

    def images(self, rows: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] on the CPU.

        Raises:
            T2IError: where the store keeps them smaller.
        """
        cut = []
        for row in rows.tolist():
            picture, size = self.store.picture(row), self.size
            if min(picture.shape[:2]) < size:
                raise T2IError(
                    f"found photographs kept at {min(picture.shape[:2])} px, expected {size} px or more: raise "
                    "--data.load_size, or lower the protocol's size"
                )
            top, left = ((side - size) // 2 for side in picture.shape[:2])
            cut.append(torch.from_numpy(np.ascontiguousarray(picture[top : top + size, left : left + size])))
        return torch.stack(cut).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
