"""From picture files to uint8 arrays at load size; PIL and numpy only."""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.errors import T2IError

if TYPE_CHECKING:
    from PIL.Image import Image

Resize = Literal["stretch", "center_crop"]
Box = tuple[float, float, float, float]


@functools.lru_cache(256)
def _spans(length: int, size: int) -> list[tuple[int, int, NDArray[np.float32]]]:
    """For each of ``size`` equal parts of ``length`` pixels: first, last + 1, and each one's share of the part."""
    edges = [i * length / size for i in range(size + 1)]
    spans = []
    for low, high in itertools.pairwise(edges):
        first, end = int(low), min(math.ceil(high), length)
        pixels = np.arange(first, end)
        covered = np.minimum(pixels + 1, high) - np.maximum(pixels, low)
        spans.append((first, end, (covered * (size / length)).astype(np.float32)))
    return spans


def _average(lines: NDArray, size: int) -> NDArray[np.float32]:
    """Average runs of lines, fractional ends included: (H, N) to (size, N), one run in float at a time."""
    averages = np.empty((size, lines.shape[1]), np.float32)
    for i, (first, end, shares) in enumerate(_spans(len(lines), size)):
        # einsum and not a matrix product: BLAS would start threads of its own below each packing thread
        np.einsum("i,ij->j", shares, lines[first:end].astype(np.float32), out=averages[i])
    return averages


def shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Area-average (H, W, 3) to (size, size, 3), fractional pixels included.

    Source: Torch7's ``image.scale`` in its default mode, which the authors of GAN-CLS use, averages so when it shrinks.
    """
    height, width, channels = pixels.shape
    rows = _average(pixels.reshape(height, -1), size).reshape(size, width, channels)
    columns = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(width, -1)
    both = _average(columns, size).reshape(size, size, channels).transpose(1, 0, 2)
    return np.clip(np.rint(both), 0, 255).astype(np.uint8)


def load_image(path: Path, size: int, resize: Resize, box: Box | None = None) -> NDArray[np.uint8]:
    """Decode a picture to (size, size, 3) uint8 RGB, upright by its EXIF mark, on white where it is transparent.

    Args:
        path: any format that PIL reads.
        size: side in pixels.
        resize: ``stretch`` ignores the aspect ratio; ``center_crop`` cuts the middle square first.
        box: x, y, width, height to cut to before all else.

    Raises:
        T2IError: names a file that is missing, truncated or no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            limit, pixels = Image.MAX_IMAGE_PIXELS, opened.width * opened.height
            if limit is not None and pixels > limit:  # up to twice as many PIL merely warns
                raise Image.DecompressionBombError(f"{pixels:,} pixels, expected at most {limit:,}")
            image = _rgb(ImageOps.exif_transpose(opened))
    except MemoryError:  # says nothing about the file
        raise
    except UnidentifiedImageError as error:
        raise _bad(path, "its content is of no picture format") from error
    except Exception as error:  # PIL raises a dozen kinds for broken files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise _bad(path, f"{type(error).__name__}: {reason}") from error
    if box is not None:
        x, y, w, h = box
        left, top, right, bottom = max(int(x), 0), max(int(y), 0), int(x + w), int(y + h)
        right, bottom = min(max(right, left + 1), image.width), min(max(bottom, top + 1), image.height)
        if left >= right or top >= bottom:
            raise _bad(path, f"its box {box} lies outside of its {image.width} x {image.height} pixels")
        image = image.crop((left, top, right, bottom))
    if resize == "center_crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if min(image.size) < size:  # enlarge only the side that is too short: the other one is averaged
        image = image.resize((max(image.width, size), max(image.height, size)), Image.Resampling.BILINEAR)
    pixels_rgb = np.asarray(image)
    return pixels_rgb if pixels_rgb.shape[:2] == (size, size) else shrink(pixels_rgb, size)


def _bad(path: Path, reason: str) -> T2IError:
    return T2IError(f"{path} is not a readable picture ({reason}): mend or remove it, or pass --data.on_bad_image skip")


def _rgb(image: Image) -> Image:
    """Any mode to RGB; PIL by itself would clip 16 bits to white and show what hides behind full transparency."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit greyscale
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"values from {deep.min()} to {deep.max()}, expected 8 or 16 bits")
        image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point values, expected 8 or 16 bits")
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return image.convert("RGB")
