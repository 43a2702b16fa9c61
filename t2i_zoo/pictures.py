"""Generated images as files: grids with their captions, pages of attention, single PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from t2i_zoo.files import replacing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo
    from torch import Tensor

    from t2i_zoo.fonts import Letters

_GAP, _TEXT, _NOTE, _LINE = 4, 14, 11, 20  # pixels between images; heights of letters and of a line of the larger ones


def to_uint8(images: Tensor) -> Tensor:
    """Images (..., 3, H, W) in [-1, 1] as uint8 in 0..255, rounded, in the same shape and on the same device."""
    return images.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte()


def to_pil(images: Tensor) -> list[Image]:
    """Images (B, 3, H, W) in [-1, 1] as PIL images."""
    from PIL import Image

    return [Image.fromarray(pixels) for pixels in to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()]


def caption_grid(
    rows: Sequence[Tensor | Sequence[Image]],
    captions: Sequence[str],
    scale: int | None = None,
    notes: Sequence[Sequence[str]] | None = None,
    font: str | None = None,
) -> Image:
    """A page with one row of images for each caption, which is printed under its row.

    Args:
        rows: for each caption (n, 3, S, S) in [-1, 1], or n square PIL images.
        captions: one for each row, wrapped to the row's width.
        scale: enlarge the images by an integer; by default small ones to about 128 px.
        notes: for each image of each row a text in small grey letters, wrapped below the image.
        font: file of a font to prefer; by default each script is drawn with a font that this machine has.

    Raises:
        T2IError: if ``font`` is not a font.
    """
    from PIL import Image

    from t2i_zoo.fonts import Letters, right_to_left

    pictures = [to_pil(row) if isinstance(row, torch.Tensor) else row for row in rows]
    large, small = Letters(_TEXT, font), Letters(_NOTE, font)
    side, width, wrapped, heights = _layout(pictures[0][0].width, max(map(len, rows)), captions, large, scale)
    cell = side + _GAP
    below = [[_wrap(note, small, cell - _GAP) for note in row] for row in notes or [[]] * len(rows)]
    depths = [max(map(len, row), default=0) * (_NOTE + 2) for row in below]
    heights = [height + deep for height, deep in zip(heights, depths, strict=True)]
    page = Image.new("RGB", (width, sum(heights) + _GAP), "white")
    top = _GAP
    for row, lines, height, said, deep in zip(pictures, wrapped, heights, below, depths, strict=True):
        for i, image in enumerate(row):
            page.paste(image.resize((side, side), Image.Resampling.NEAREST), (_GAP + i * cell, top))
        for j, text in enumerate(lines):
            indent = width - _GAP - large.length(text) if right_to_left(text) else _GAP
            large.draw(page, (indent, top + cell + deep + j * _LINE - 2), text, "black")
        for i, note in enumerate(said):
            for j, text in enumerate(note):
                small.draw(page, (_GAP + i * cell, top + cell + j * (_NOTE + 2) - 4), text, "#555555")
        top += height
    return page


def _layout(
    side: int, columns: int, captions: Sequence[str], letters: Letters, scale: int | None
) -> tuple[int, int, list[list[str]], list[int]]:
    """Side of an image on the page, the page's width, the lines of each caption, and the height of its row."""
    side *= scale or max(1, 128 // side)
    cell = side + _GAP
    width = max(_GAP + cell * columns, 2 * cell + _GAP, 260)
    wrapped = [_wrap(caption, letters, width - 2 * _GAP) for caption in captions]
    return side, width, wrapped, [cell + len(lines) * _LINE + 2 * _GAP for lines in wrapped]


def grid_size(side: int, columns: int, captions: Sequence[str], font: str | None = None) -> tuple[int, int]:
    """Width and height of the page that ``caption_grid`` makes of images of ``side`` pixels without notes."""
    from t2i_zoo.fonts import Letters

    _, width, _, heights = _layout(side, columns, captions, Letters(_TEXT, font), None)
    return width, sum(heights) + _GAP


def attention_page(
    image: Tensor,
    attention: Sequence[Tensor],
    words: Sequence[str],
    caption: str,
    most: int = 8,
    side: int = 128,
    font: str | None = None,
) -> Image:
    """A page that shows an image, and for each stage how strongly each region of it attended to each word.

    A row for each stage, a column for each word, those with the largest attention of the last stage first. The largest
    attention that any region pays the word is the brightest in its cell, and is printed below it.

    Args:
        image: (3, S, S) in [-1, 1].
        attention: of each stage (T, H, H), which sums to 1 over the T words of each region; coarsest first.
        words: the T words.
        caption: printed at the bottom.
        most: the largest number of words shown.
        side: of each cell in pixels.
        font: file of a font to prefer, as in ``caption_grid``.
    """
    from PIL import Image

    from t2i_zoo.fonts import Letters

    order = sorted(range(len(words)), key=lambda t: -float(attention[-1][t].max()))[:most]
    large, small = Letters(_TEXT, font), Letters(_NOTE, font)
    cell, label = side + _GAP, _NOTE + 4
    width = _GAP + cell * (1 + max(len(order), 2))
    lines = _wrap(caption, large, width - 2 * _GAP)
    page = Image.new("RGB", (width, _GAP + len(attention) * (cell + label) + len(lines) * _LINE + _GAP), "white")
    plain = to_pil(image[None])[0].resize((side, side), Image.Resampling.BICUBIC)
    for i, maps in enumerate(attention):
        top = _GAP + i * (cell + label)
        page.paste(plain, (_GAP, top))
        small.draw(page, (_GAP, top + side), f"attention at {maps.shape[-1]} px", "#555555")
        for j, t in enumerate(order, 1):
            page.paste(_lit(plain, maps[t]), (_GAP + j * cell, top))
            small.draw(page, (_GAP + j * cell, top + side), f"{words[t]}  {float(maps[t].max()):.2f}", "black")
    for j, line in enumerate(lines):
        large.draw(page, (_GAP, page.height - (len(lines) - j) * _LINE - _GAP), line, "black")
    return page


def _lit(image: Image, attention: Tensor) -> Image:
    """An image that is dark except where a map (H, H) is large, relative to the map's own maximum."""
    from PIL import Image

    light = (attention.float() / max(float(attention.max()), 1e-12) * 255).round().byte().cpu().numpy()
    mask = Image.fromarray(light).resize(image.size, Image.Resampling.BILINEAR)
    dark = Image.blend(image, Image.new("RGB", image.size, "black"), 0.85)
    return Image.composite(image, dark, mask)


def _wrap(caption: str, letters: Letters, width: float) -> list[str]:
    """Lines of at most ``width`` pixels, whatever the letters; a word too long for a line goes on in the next."""
    from t2i_zoo.fonts import clusters

    length = letters.length
    lines = [""]
    for word in caption.split():
        if length(f"{lines[-1]} {word}".strip()) <= width:
            lines[-1] = f"{lines[-1]} {word}".strip()
            continue
        lines += [""] if lines[-1] else []
        for letter in clusters(word):
            if lines[-1] and length(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def save_beside(image: Any, path: Path, about: Mapping[str, str] | None = None) -> Path:
    """Save a PIL image, so that nobody meets half a file; a PNG file holds ``about`` in its text fields."""
    with replacing(path) as partial:
        image.save(partial, pnginfo=_fields(about or {}))
    return path


def save_images(
    images: Tensor,
    captions: Sequence[str],
    folder: Path,
    names: Sequence[str],
    about: Mapping[str, str] | None = None,
) -> None:
    """Save (B, 3, S, S) in [-1, 1] as ``<name>.png``, with its caption and ``about`` in the file's text fields."""
    folder.mkdir(parents=True, exist_ok=True)
    for image, caption, name in zip(to_pil(images), captions, names, strict=True):
        image.save(folder / f"{name}.png", pnginfo=_fields({"Description": caption, **(about or {})}))


def _fields(about: Mapping[str, str]) -> PngInfo:
    from PIL.PngImagePlugin import PngInfo

    found = PngInfo()
    for name, text in about.items():
        found.add_itxt(name, text)
    return found


def interpolate_noise(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Spherical path between two noise vectors (z,): (steps, z), both ends included; keeps a normal draw likely."""
    unit_a, unit_b = first / first.norm(), second / second.norm()
    angle = torch.arccos((unit_a @ unit_b).clamp(-1 + 1e-6, 1 - 1e-6))
    along = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)[:, None]
    weight_a, weight_b = torch.sin((1 - along) * angle), torch.sin(along * angle)
    return (weight_a * first + weight_b * second) / torch.sin(angle)


def truncate_noise(noise: Tensor, bound: float) -> Tensor:
    """Map draws of a standard normal distribution to draws of one that is cut at ``-bound`` and ``bound``.

    By the distribution functions, so that each draw keeps its rank and no draw is repeated.
    """
    low = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64))
    share = low + torch.special.ndtr(noise.double().cpu()) * (1 - 2 * low)
    cut: Tensor = torch.special.ndtri(share)
    return cut.to(noise)
