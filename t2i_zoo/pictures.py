"""Generated pictures as files: grids with their captions, single PNGs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_GAP, _TEXT, _NOTE = 4, 14, 11  # pixels between pictures; heights of the letters


def to_uint8(images: Tensor) -> Tensor:
    """(B, 3, S, S) in [-1, 1] to (B, S, S, 3) uint8 on the CPU."""
    return images.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()


def caption_grid(
    rows: Sequence[Tensor],
    captions: Sequence[str],
    scale: int | None = None,
    notes: Sequence[Sequence[str]] | None = None,
) -> Image:
    """One row of pictures for each caption, with the caption printed under the row.

    Args:
        rows: for each caption (n, 3, S, S) in [-1, 1].
        captions: one for each row, wrapped to the row's width.
        scale: enlarge the pictures by a whole number; by default small ones to about 128 px.
        notes: for each picture of each row a text in small grey letters, wrapped below the picture.
    """
    from PIL import Image, ImageDraw, ImageFont

    side = rows[0].shape[-1]
    scale = scale or max(1, 128 // side)
    cell = side * scale + _GAP
    font = ImageFont.load_default(_TEXT)
    width = max(_GAP + cell * max(len(row) for row in rows), 2 * cell + _GAP, 260)
    wrapped = [_wrap(caption, font.getlength, width - 2 * _GAP) for caption in captions]
    line, small = _TEXT + 4, ImageFont.load_default(_NOTE)
    below = [[_wrap(note, small.getlength, cell - _GAP) for note in row] for row in notes or [[]] * len(rows)]
    deep = [max(map(len, row), default=0) * (_NOTE + 2) for row in below]
    heights = [cell + len(lines) * line + 2 * _GAP + more for lines, more in zip(wrapped, deep, strict=True)]
    page = Image.new("RGB", (width, sum(heights) + _GAP), "white")
    pen, top = ImageDraw.Draw(page), _GAP
    for row, lines, height, said, more in zip(rows, wrapped, heights, below, deep, strict=True):
        for i, pixels in enumerate(to_uint8(row).numpy()):
            picture = Image.fromarray(pixels)
            page.paste(picture.resize((side * scale,) * 2, Image.Resampling.NEAREST), (_GAP + i * cell, top))
        for j, text in enumerate(lines):
            pen.text((_GAP, top + cell + more + j * line - 2), text, fill="black", font=font)
        for i, note in enumerate(said):
            for j, text in enumerate(note):
                pen.text((_GAP + i * cell, top + cell + j * (_NOTE + 2) - 4), text, fill="#555555", font=small)
        top += height
    return page


def attention_page(
    image: Tensor, attention: Sequence[Tensor], words: Sequence[str], caption: str, most: int = 8, side: int = 128
) -> Image:
    """A picture, and for each stage the same picture lit where each word was attended to.

    Words come in the order of the largest attention that a place of the last stage pays them; the brightest place of
    each cell is the word's own maximum, which is printed below it.

    Args:
        image: (3, S, S) in [-1, 1].
        attention: of each stage (T, H, H), which sum to 1 over the T words of each place; coarsest first.
        words: the T words.
        caption: printed below.
        most: words shown.
        side: of each cell in pixels.
    """
    from PIL import Image, ImageDraw, ImageFont

    order = sorted(range(len(words)), key=lambda t: -float(attention[-1][t].max()))[:most]
    font, small = ImageFont.load_default(_TEXT), ImageFont.load_default(_NOTE)
    cell, label = side + _GAP, _NOTE + 4
    width = _GAP + cell * (1 + max(len(order), 2))
    lines = _wrap(caption, font.getlength, width - 2 * _GAP)
    page = Image.new("RGB", (width, _GAP + len(attention) * (cell + label) + len(lines) * (_TEXT + 4) + _GAP), "white")
    pen = ImageDraw.Draw(page)
    plain = Image.fromarray(to_uint8(image[None])[0].numpy()).resize((side, side), Image.Resampling.BICUBIC)
    for i, maps in enumerate(attention):
        top = _GAP + i * (cell + label)
        page.paste(plain, (_GAP, top))
        pen.text((_GAP, top + side), f"attention at {maps.shape[-1]} px", fill="#555555", font=small)
        for j, t in enumerate(order, 1):
            largest = float(maps[t].max())
            light = (maps[t].float() / max(largest, 1e-12) * 255).round().byte().cpu().numpy()
            mask = Image.fromarray(light).resize((side, side), Image.Resampling.BILINEAR)
            dark = Image.blend(plain, Image.new("RGB", plain.size, "black"), 0.85)
            page.paste(Image.composite(plain, dark, mask), (_GAP + j * cell, top))
            pen.text((_GAP + j * cell, top + side), f"{words[t]}  {largest:.2f}", fill="black", font=small)
    for j, line in enumerate(lines):
        pen.text((_GAP, page.height - (len(lines) - j) * (_TEXT + 4) - _GAP), line, fill="black", font=font)
    return page


def _wrap(caption: str, length: Callable[[str], float], width: float) -> list[str]:
    """Lines of at most ``width`` pixels, whatever the letters; a word too long for a line goes on in the next."""
    lines = [""]
    for word in caption.split():
        if length(f"{lines[-1]} {word}".strip()) <= width:
            lines[-1] = f"{lines[-1]} {word}".strip()
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if lines[-1] and length(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def save_beside(image: Any, path: Path) -> Path:
    """Save a PIL picture under another name and rename it, so that nobody meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        image.save(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def interpolate_noise(first: Tensor, second: Tensor, steps: int) -> Tensor:
    """Spherical path between two noise vectors (z,): (steps, z), both ends included; keeps a normal draw likely."""
    unit_a, unit_b = first / first.norm(), second / second.norm()
    angle = torch.arccos((unit_a @ unit_b).clamp(-1 + 1e-6, 1 - 1e-6))
    along = torch.linspace(0, 1, steps, dtype=first.dtype, device=first.device)[:, None]
    weight_a, weight_b = torch.sin((1 - along) * angle), torch.sin(along * angle)
    return (weight_a * first + weight_b * second) / torch.sin(angle)
