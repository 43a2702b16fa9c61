"""The masks of drawn flowers, resized and cropped as the model sees the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.data.drawing import BACKGROUND, CENTRE, PETALS
from t2i_zoo.data.images import load_image
from t2i_zoo.data.records import Embedded
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.photographs import Photographs


class FlowerMasks:
    """Reads the masks that ``SyntheticFlowers`` draws beside its images.

    Args:
        photographs: the images whose masks are read.

    Raises:
        T2IError: for data other than ``SyntheticFlowers``, and for a store that lacks some of its images, as with a
            limit.
    """

    def __init__(self, photographs: Photographs) -> None:
        self.size = photographs.size
        self._manifest: dict[str, Any] = photographs.store.manifest
        source = self._manifest.get("source") or {}
        if source.get("kind") != "SyntheticFlowers":
            raise T2IError(
                f"found images of {source.get('kind', 'an unknown source')}, which have no masks, expected those of "
                "SyntheticFlowers: choose them with --data.source SyntheticFlowers or a config such as damsm_synthetic"
            )
        if missing := len(self._manifest.get("skipped") or ()):
            raise T2IError(
                f"found drawn flowers of which {missing} cannot be read, expected all, to match masks by number: "
                f"draw them in another folder than {source['root']} with --data.source.root"
            )
        if (found := len(photographs.labels)) != (drawn := int(source["images"])):  # a row would not tell its mask
            raise T2IError(
                f"found {found} of {drawn} drawn flowers, expected all, to match masks by number: leave out "
                "--data.limit"
            )
        self._folder, self._side = Path(source["root"]) / "masks", int(source["size"])

    def read(self, rows: Tensor) -> Tensor:
        """Masks (B, S, S) int64 of images by their rows in the store: 0 background, 1 petals, 2 centre.

        Each pixel is the part with the largest share in it.

        Raises:
            T2IError: if the file of a mask is missing or damaged.
        """
        return torch.stack([torch.from_numpy(self._read(row)) for row in rows.tolist()])

    def _read(self, row: int) -> NDArray[np.int64]:
        """One mask (S, S)."""
        path = self._folder / f"image_{row + 1:05d}.png"  # the store keeps the order of the file numbers
        drawn = load_image(path, self._side, "stretch")[..., :1]
        parts = (drawn == np.array([BACKGROUND, PETALS, CENTRE], np.uint8)).astype(np.uint8) * 255
        # encoded as an image of three colours, it is resized by the same code as the images
        encoded = f"P6 {self._side} {self._side} 255\n".encode() + parts.tobytes()
        options = {key: self._manifest[key] for key in ("resize", "resample")}
        shares = load_image(Embedded(str(path), lambda: encoded), self._manifest["load_size"], **options)
        top, left = ((side - self.size) // 2 for side in shares.shape[:2])
        largest: NDArray[np.int64] = shares[top : top + self.size, left : left + self.size].argmax(2)
        return largest
