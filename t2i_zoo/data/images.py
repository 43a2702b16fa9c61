"""From picture files to uint8 arrays at load size; PIL and numpy only."""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.data.records import Embedded
from t2i_zoo.errors import T2IError

if TYPE_CHECKING:
    from PIL.Image import Image

Resize = Literal["stretch", "center_crop", "short_side"]
Resample = Literal["area", "bilinear"]
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


def shrink(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Area-average (H, W, 3) to (*shape, 3), fractional pixels included.

    Source: Torch7's ``image.scale`` in its default mode, which the authors of GAN-CLS use, averages so when it shrinks.
    """
    (height, width, channels), (down, across) = pixels.shape, shape
    rows = _average(pixels.reshape(height, -1), down).reshape(down, width, channels)
    columns = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(width, -1)
    both = _average(columns, across).reshape(across, down, channels).transpose(1, 0, 2)
    return np.clip(np.rint(both), 0, 255).astype(np.uint8)


def load_shape(path: Path | Embedded, size: int, resize: Resize, box: Box | None = None) -> tuple[int, int]:
    """Height and width that ``load_image`` will give, from the file's head alone; arguments and errors are its."""
    if resize != "short_side":
        return size, size
    from PIL import ExifTags

    with _opened(path) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        whole = (image.height, image.width) if turned else (image.width, image.height)
    left, top, right, bottom = _cut(path, box, whole)
    return _fit(right - left, bottom - top, size)


def _fit(width: int, height: int, size: int) -> tuple[int, int]:
    """Height and width with the short side at ``size``; the long one is rounded down, as torchvision's Resize does."""
    return (int(size * height / width), size) if width <= height else (size, int(size * width / height))


def load_image(
    path: Path | Embedded, size: int, resize: Resize, box: Box | None = None, resample: Resample = "area"
) -> NDArray[np.uint8]:
    """Decode a picture to uint8 RGB at load size, upright by its EXIF mark, on white where it is transparent.

    Args:
        path: a file, or what reads one from an archive, in any format that PIL reads.
        size: side in pixels; of the short side with ``short_side``.
        resize: ``stretch`` ignores the aspect ratio (GAN-CLS, StackGAN); ``center_crop`` cuts the middle square first;
            ``short_side`` keeps the aspect ratio, so that pictures differ in size (StackGAN++, AttnGAN, MirrorGAN).
        box: x, y, width, height to cut to before all else.
        resample: area average (GAN-CLS) or PIL's bilinear filter, which averages too where it shrinks (the others).

    Returns:
        (size, size, 3), or (H, W, 3) with the shorter of both at ``size``.

    Raises:
        T2IError: names a file that is missing, truncated or no picture.
    """
    from PIL import Image, ImageOps

    with _opened(path) as opened:
        image = _rgb(ImageOps.exif_transpose(opened))
    if box is not None:
        image = image.crop(_cut(path, box, image.size))
    if resize == "center_crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    height, width = _fit(*image.size, size) if resize == "short_side" else (size, size)
    if resample == "bilinear":
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if image.width < width or image.height < height:  # enlarge only the side that is too short: the other is averaged
        image = image.resize((max(image.width, width), max(image.height, height)), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels if pixels.shape[:2] == (height, width) else shrink(pixels, (height, width))


def _cut(path: Path | Embedded, box: Box | None, whole: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a box within a picture's width and height."""
    if box is None:
        return 0, 0, *whole
    x, y, w, h = box
    left, top, right, bottom = max(int(x), 0), max(int(y), 0), int(x + w), int(y + h)
    right, bottom = min(max(right, left + 1), whole[0]), min(max(bottom, top + 1), whole[1])
    if left >= right or top >= bottom:
        raise _bad(path, f"its box {box} lies outside of its {whole[0]} x {whole[1]} pixels")
    return left, top, right, bottom


@contextmanager
def _opened(path: Path | Embedded) -> Iterator[Image]:
    """Open a picture, and turn whatever goes wrong while it is used into one sentence."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(path.read()) if isinstance(path, Embedded) else path) as opened:
            limit, pixels = Image.MAX_IMAGE_PIXELS, opened.width * opened.height
            if limit is not None and pixels > limit:  # up to twice as many PIL merely warns
                raise Image.DecompressionBombError(f"{pixels:,} pixels, expected at most {limit:,}")
            yield opened
    except MemoryError:  # says nothing about the file
        raise
    except UnidentifiedImageError as error:
        raise _bad(path, "its content is of no picture format") from error
    except Exception as error:  # PIL raises a dozen kinds for broken files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise _bad(path, f"{type(error).__name__}: {reason}") from error


def _bad(path: Path | Embedded, reason: str) -> T2IError:
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
