"""From picture files to uint8 arrays at load size; PIL and numpy only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.errors import T2IError

Resize = Literal["stretch", "center_crop"]
Box = tuple[float, float, float, float]


def _average(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Average runs along the first axis, fractional ends included: (H, W, 3) to (size, W, 3)."""
    sums = np.zeros((pixels.shape[0] + 1, *pixels.shape[1:]), np.float32)
    np.cumsum(pixels, axis=0, out=sums[1:])
    edges = np.linspace(0, pixels.shape[0], size + 1)
    whole = np.minimum(edges.astype(np.int64), pixels.shape[0] - 1)
    part = (edges - whole).astype(np.float32)[:, None, None]
    at_edges = sums[whole] + part * pixels[whole]
    averages: NDArray[np.float32] = np.diff(at_edges, axis=0) * np.float32(size / pixels.shape[0])
    return averages


def shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Area-average (H, W, 3) to (size, size, 3), fractional pixels included.

    Source: Torch7's ``image.scale`` in its default mode, which the authors of GAN-CLS use, averages so when it shrinks.
    """
    rows = _average(pixels.astype(np.float32), size)
    both = _average(rows.transpose(1, 0, 2), size).transpose(1, 0, 2)
    return np.clip(np.rint(both), 0, 255).astype(np.uint8)


def load_image(path: Path, size: int, resize: Resize, box: Box | None = None) -> NDArray[np.uint8]:
    """Decode a picture to (size, size, 3) uint8 RGB, upright by its EXIF mark.

    Args:
        path: any format that PIL reads.
        size: side in pixels.
        resize: ``stretch`` ignores the aspect ratio; ``center_crop`` cuts the middle square first.
        box: x, y, width, height to cut to before all else.

    Raises:
        T2IError: names a file that is missing, truncated or no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # PIL raises a dozen kinds for broken files
        raise T2IError(
            f"{path} is not a readable picture ({type(error).__name__}: {error}): "
            "mend or remove it, or pass --data.on_bad_image skip"
        ) from error
    if box is not None:
        x, y, w, h = box
        image = image.crop((int(x), int(y), max(int(x + w), int(x) + 1), max(int(y + h), int(y) + 1)))
    if resize == "center_crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if min(image.size) < size:
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels if pixels.shape[:2] == (size, size) else shrink(pixels, size)
