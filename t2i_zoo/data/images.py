"""From image files to uint8 arrays at load size; PIL and numpy only."""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.data.records import Embedded
from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_pointer

if TYPE_CHECKING:
    from PIL.Image import Image
    from scipy.sparse import csr_array

MEGAPIXELS = 89.478485  #: Pillow's limit, against files that fill the memory when they are decoded
_DEPTHS = (8, 10, 12, 14, 16)  # bits of a scan that a 16-bit file may hold

Resize = Literal["stretch", "center_crop", "short_side"]
Resample = Literal["area", "bilinear"]
Box = tuple[float, float, float, float]


@functools.lru_cache(256)
def _shares(length: int, size: int) -> csr_array:
    """Weights (size, length) that average ``length`` pixels to ``size``, fractional pixels included."""
    from scipy.sparse import csr_array

    edges = [i * length / size for i in range(size + 1)]
    starts, lines, shares = [0], [], []
    for low, high in itertools.pairwise(edges):
        part = np.arange(int(low), min(math.ceil(high), length))
        lines.append(part)
        shares.append((np.minimum(part + 1, high) - np.maximum(part, low)) * (size / length))
        starts.append(starts[-1] + len(part))
    return csr_array((np.concatenate(shares).astype(np.float32), np.concatenate(lines), starts), shape=(size, length))


def shrink(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Area-average (H, W, 3) to (*shape, 3), fractional pixels included.

    Source: Torch7's ``image.scale`` in its default mode, which the authors of GAN-CLS use.
    """
    (height, width, channels), (down, across) = pixels.shape, shape
    # sparse: dense products would multiply zeros, and BLAS would start its own threads in each packing thread
    rows = _shares(height, down) @ pixels.reshape(height, -1).astype(np.float32)
    columns = np.ascontiguousarray(rows.reshape(down, width, channels).transpose(1, 0, 2)).reshape(width, -1)
    both = (_shares(width, across) @ columns).reshape(across, down, channels).transpose(1, 0, 2)
    shrunk: NDArray[np.uint8] = np.clip(np.rint(both), 0, 255).astype(np.uint8)
    return shrunk


class ImageError(T2IError):
    """An image that is missing or broken; ``found`` is the sentence without its remedy."""

    def __init__(self, path: Path | Embedded, reason: str) -> None:
        self.found = f"{path} is not a readable image ({reason})"
        super().__init__(f"{self.found}: repair it, or pass --data.on_bad_image skip to leave it out")


def load_shape(
    path: Path | Embedded, size: int, resize: Resize, box: Box | None = None, most: float = MEGAPIXELS
) -> tuple[int, int]:
    """Height and width of what ``load_image`` returns, from the file's header; arguments and errors are the same."""
    if resize != "short_side":
        return size, size
    from PIL import ExifTags

    with _opened(path, most) as image:
        if image.format == "TIFF":  # newer versions of Pillow have turned its size already
            _turn(image)
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        whole = (image.height, image.width) if turned else (image.width, image.height)
    left, top, right, bottom = _cut(path, box, whole)
    return _fit(right - left, bottom - top, size)


def _fit(width: int, height: int, size: int) -> tuple[int, int]:
    """Height and width with the short side at ``size``; the long one is rounded down, as in torchvision's Resize."""
    return (int(size * height / width), size) if width <= height else (size, int(size * width / height))


def load_image(
    path: Path | Embedded,
    size: int,
    resize: Resize,
    box: Box | None = None,
    resample: Resample = "area",
    draft: bool = False,
    most: float = MEGAPIXELS,
    tell: Callable[[int], Any] = lambda side: None,
) -> NDArray[np.uint8]:
    """Decode an image to uint8 RGB at load size, upright by its EXIF orientation, transparency on white.

    Args:
        path: a file or an embedded one, in any format that PIL reads.
        size: side in pixels; of the short side with ``short_side``.
        resize: ``stretch`` ignores the aspect ratio (GAN-CLS, StackGAN); ``center_crop`` cuts the middle square first;
            ``short_side`` keeps the aspect ratio, so that images differ in size (StackGAN++, AttnGAN, MirrorGAN).
        box: x, y, width, height of what is cut out first.
        resample: area average (GAN-CLS) or PIL's bilinear filter, which also averages when it shrinks (the others).
        draft: decode a JPEG at a half, a quarter or an eighth of its size if that leaves twice ``size``, unless there
            is a box or ``short_side``; faster, and pixels differ by about 1 of 255 on average. The authors decode at
            full size.
        most: the largest size in megapixels; a value above Pillow's own limit raises that for the whole process.
        tell: called with the short side of what is resized, in pixels.

    Returns:
        (size, size, 3), or (H, W, 3) with the shorter of both at ``size``.

    Raises:
        T2IError: if the file is missing, truncated or not an image.
    """
    from PIL import Image

    with _opened(path, most) as opened:
        if draft and box is None and resize != "short_side":
            opened.draft(None, (2 * size, 2 * size))
        _turn(opened)
        image = _rgb(opened)
    if box is not None:
        image = image.crop(_cut(path, box, image.size))
    if resize == "center_crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    tell(min(image.size))
    height, width = _fit(*image.size, size) if resize == "short_side" else (size, size)
    if resample == "bilinear":
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if image.width < width or image.height < height:  # enlarge only a side that is too short: the other is averaged
        image = image.resize((max(image.width, width), max(image.height, height)), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels if pixels.shape[:2] == (height, width) else shrink(pixels, (height, width))


def _cut(path: Path | Embedded, box: Box | None, whole: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box within the width and height of an image."""
    if box is None:
        return 0, 0, *whole
    x, y, w, h = box
    left, top, right, bottom = max(int(x), 0), max(int(y), 0), int(x + w), int(y + h)
    right, bottom = min(max(right, left + 1), whole[0]), min(max(bottom, top + 1), whole[1])
    if left >= right or top >= bottom:
        raise ImageError(path, f"its box {box} is outside its {whole[0]} x {whole[1]} pixels")
    return left, top, right, bottom


@contextmanager
def _opened(path: Path | Embedded, most: float) -> Iterator[Image]:
    """Open an image, and turn whatever PIL raises while it is used into one sentence."""
    from PIL import Image, UnidentifiedImageError

    if Image.MAX_IMAGE_PIXELS is not None and most > MEGAPIXELS:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, int(most * 1e6))
    try:
        content = path.read() if isinstance(path, Embedded) else None
        with Image.open(io.BytesIO(content) if content is not None else path) as opened:  # type: ignore[arg-type]
            pixels = opened.width * opened.height
            limit = int(min(most * 1e6, Image.MAX_IMAGE_PIXELS or math.inf))
            if pixels > limit:  # up to twice its limit Pillow only warns
                raise Image.DecompressionBombError(f"{pixels:,} pixels, expected at most {limit:,}")
            yield opened
    except MemoryError:  # says nothing about the file
        raise
    except UnidentifiedImageError as error:
        try:
            refuse_pointer(str(path), content)
        except T2IError as pointer:
            raise ImageError(path, str(pointer).removeprefix(f"{path} is ")) from error
        raise ImageError(path, "unknown image format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(path, f"{error}; allow more with --data.max_megapixels") from error
    except Exception as error:  # PIL raises a dozen kinds for broken files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        raise ImageError(path, f"{type(error).__name__}: {reason}") from error


def _turn(image: Image) -> None:
    """Turn an image upright by its EXIF orientation; Pillow would write the other tags again, and fail at odd ones."""
    from PIL import ImageOps

    image.getexif()  # which Pillow keeps
    for name in ("exif", "Raw profile type exif"):
        image.info.pop(name, None)
    ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image) -> Image:
    """Any mode to RGB; PIL alone would clip 16 bits to white and show colours under full transparency."""
    from PIL import Image

    if image.mode.startswith("I"):  # greyscale of more than 8 bits
        deep, stated = np.asarray(image).astype(np.int64), _largest(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"values from {deep.min()} to {deep.max()}, expected 8 to 16 bits")
        largest = stated or next(2**bits - 1 for bits in _DEPTHS if deep.max() < 2**bits)
        image = Image.fromarray(((deep * 255 + largest // 2) // largest).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point values, expected 8 or 16 bits")
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _largest(image: Image) -> int | None:
    """The largest value of a greyscale image as its file states it; None if all that is stated is room for 16 bits."""
    if image.format == "PPM":
        return 65535  # Pillow has scaled it by the file's maximum
    tags = getattr(image, "tag_v2", {})
    stated, bits = tags.get(281), tags.get(258)  # MaxSampleValue and BitsPerSample of TIFF
    if stated and 0 < max(stated, default=0) < 65535:
        return int(max(stated))
    return 2 ** bits[0] - 1 if bits and 8 <= bits[0] < 16 else None
