"""Generated pictures as files: grids with their captions, single PNGs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_GAP, _TEXT = 4, 14  # pixels between pictures; height of the letters


def to_uint8(images: Tensor) -> Tensor:
    """(B, 3, S, S) in [-1, 1] to (B, S, S, 3) uint8 on the CPU."""
    return images.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()


def caption_grid(rows: Sequence[Tensor], captions: Sequence[str], scale: int | None = None) -> Image:
    """One row of pictures for each caption, with the caption printed under the row.

    Args:
        rows: for each caption (n, 3, S, S) in [-1, 1].
        captions: one for each row, wrapped to the row's width.
        scale: enlarge the pictures by a whole number; by default small ones to about 128 px.
    """
    from PIL import Image, ImageDraw, ImageFont

    side = rows[0].shape[-1]
    scale = scale or max(1, 128 // side)
    cell = side * scale + _GAP
    font = ImageFont.load_default(_TEXT)
    width = max(_GAP + cell * max(len(row) for row in rows), 2 * cell + _GAP, 260)
    wrapped = [_wrap(caption, font.getlength, width - 2 * _GAP) for caption in captions]
    line = _TEXT + 4
    heights = [cell + len(lines) * line + 2 * _GAP for lines in wrapped]
    page = Image.new("RGB", (width, sum(heights) + _GAP), "white")
    pen, top = ImageDraw.Draw(page), _GAP
    for row, lines, height in zip(rows, wrapped, heights, strict=True):
        for i, pixels in enumerate(to_uint8(row).numpy()):
            picture = Image.fromarray(pixels)
            page.paste(picture.resize((side * scale,) * 2, Image.Resampling.NEAREST), (_GAP + i * cell, top))
        for j, text in enumerate(lines):
            pen.text((_GAP, top + cell + j * line - 2), text, fill="black", font=font)
        top += height
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
