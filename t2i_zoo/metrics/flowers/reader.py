"""Reads what a drawn flower shows, from its pixels alone: petal colour and count, centre colour, background.

Nothing is learned: it uses the palette of ``data/drawing.py``, treats shading as light on a colour, and counts petals
by their rhythm around the flower. ``docs/metrics.md`` says how often it is right on the drawn images themselves.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.data.drawing import BACKGROUNDS, CENTRE_COLOURS, PETAL_COLOURS, PETAL_COUNTS

#: every attribute and its values, in the order of the numbers that ``read_flowers`` gives
ATTRIBUTES: dict[str, tuple[str | int, ...]] = {
    "petal_colour": tuple(PETAL_COLOURS),
    "petal_count": PETAL_COUNTS,
    "centre_colour": tuple(CENTRE_COLOURS),
    "background": tuple(BACKGROUNDS),
}
_SIDE = 96  # images are resized to this side
_ANGLES = 144
_RADII = (0.55, 0.92)  # relative to the flower's radius: petals are counted in between


def read_flowers(images: Tensor) -> dict[str, Tensor]:
    """Read images (B, 3, S, S) in [-1, 1]: for each attribute, (B,) int64 indices into ``ATTRIBUTES``."""
    if images.shape[-1] != _SIDE:
        images = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True)
    pixels = images.float().add(1).mul(127.5).clamp(0, 255)
    place = torch.arange(_SIDE, device=images.device) - (_SIDE - 1) / 2
    from_middle = (place[:, None] ** 2 + place**2).sqrt() / (_SIDE / 2)

    # the flower is within the circle, so the corners are background
    corners = pixels[:, :, from_middle > 1.15].median(2).values  # (B, 3)
    tones = torch.tensor(list(BACKGROUNDS.values()), dtype=pixels.dtype, device=pixels.device)  # (4, 2, 3)
    background = torch.stack([_to_segment(corners, a, b) for a, b in tones], 1).argmin(1)

    chosen = tones[background][..., None, None]  # (B, 2, 3, 1, 1)
    shades = torch.linspace(0.55, 1.05, 6, device=pixels.device).tolist()  # the flower's shadow falls on it
    away = torch.stack([_to_segment(pixels, s * chosen[:, 0], s * chosen[:, 1]) for s in shades]).amin(0)  # (B, S, S)
    petals = torch.stack([_to_ray(pixels, colour, 0.4, 1.1) for colour in PETAL_COLOURS.values()], 1)  # (B, 8, S, S)
    sure = (away - petals.amin(1)).clamp(min=0)  # a blend of petal and background counts little
    vote = F.one_hot(petals.argmin(1), len(PETAL_COLOURS)) * sure[..., None]
    colour = vote[:, from_middle < 0.75].sum(1).argmax(1)

    own = petals.gather(1, colour[:, None, None, None].expand(-1, 1, _SIDE, _SIDE))[:, 0]
    mask = torch.sigmoid((away - own) / 6)  # of petals
    row, column, radius = _frame(mask, place)
    count = _count(mask, row, column, radius)
    centre = _centre_colour(pixels, place, row, column, radius, colour)
    return {"petal_colour": colour, "petal_count": count, "centre_colour": centre, "background": background}


def _to_segment(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Distance of colours (B, 3, ...) from the segment between two colours (3,) or (B, 3, ...)."""
    dims = [1, -1, *[1] * (x.dim() - 2)]
    a, b = (end.view(dims) if end.dim() == 1 else end for end in (a, b))
    along = b - a
    share = ((x - a) * along).sum(1, keepdim=True) / along.square().sum(1, keepdim=True)
    return (x - a - share.clamp(0, 1) * along).square().sum(1).sqrt()


def _to_ray(x: Tensor, colour: tuple[int, int, int], dark: float, light: float) -> Tensor:
    """Distance of pixels (B, 3, ...) from a colour under any light between the two."""
    base = torch.tensor(colour, dtype=x.dtype, device=x.device)
    return _to_segment(x, dark * base, light * base)


def _frame(mask: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column (B,) of the petals' centre, relative to that of the image, and their radius (B,), in pixels."""
    weight = mask.sum((1, 2)).clamp(min=1e-6)
    row = (mask.sum(2) * place).sum(1) / weight
    column = (mask.sum(1) * place).sum(1) / weight
    distance = ((place[:, None] - row[:, None, None]) ** 2 + (place - column[:, None, None]) ** 2).sqrt()
    # the radius holds 98 % of the petal pixels
    flat, heavy = distance.flatten(1), mask.flatten(1)
    order = flat.argsort(1)
    reached = heavy.gather(1, order).cumsum(1) / weight[:, None]
    last = (reached < 0.98).sum(1, keepdim=True).clamp(max=flat.shape[1] - 1)
    return row, column, flat.gather(1, order).gather(1, last)[:, 0].clamp(min=4.0)


def _count(mask: Tensor, row: Tensor, column: Tensor, radius: Tensor) -> Tensor:
    """Number of petals as the strongest frequency of the mask around its centre: (B,) index into the counts."""
    angle = torch.linspace(0, 2 * math.pi, _ANGLES + 1, device=mask.device)[:-1]
    rings = torch.linspace(*_RADII, 10, device=mask.device)
    reach = radius[:, None, None] * rings[:, None]  # (B, rings, 1)
    x = column[:, None, None] + reach * torch.cos(angle)
    y = row[:, None, None] + reach * torch.sin(angle)
    grid = torch.stack([x, y], -1) * 2 / _SIDE  # relative to the centre, in half sides
    around = F.grid_sample(mask[:, None], grid, align_corners=False)[:, 0].mean(1)  # (B, angles)
    strength = torch.fft.rfft(around, dim=1).abs()
    return torch.argmax(strength[:, list(PETAL_COUNTS)], 1)


def _centre_colour(
    pixels: Tensor, place: Tensor, row: Tensor, column: Tensor, radius: Tensor, petals: Tensor
) -> Tensor:
    """(B,) index of the colour at the flower's centre; never that of its petals, which is never drawn."""
    distance = ((place[:, None] - row[:, None, None]) ** 2 + (place - column[:, None, None]) ** 2).sqrt()
    inside = (distance < (0.14 * radius)[:, None, None].clamp(min=1.5))[:, None]
    mean = (pixels * inside).sum((2, 3)) / inside.sum((2, 3))  # (B, 3)
    away = torch.stack([_to_ray(mean, colour, 0.85, 1.1) for colour in CENTRE_COLOURS.values()], 1)
    same = [[centre == petal for centre in CENTRE_COLOURS] for petal in PETAL_COLOURS]
    return torch.argmin(away.masked_fill(torch.tensor(same, device=away.device)[petals], torch.inf), 1)
