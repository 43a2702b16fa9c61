"""Flowers drawn by code from known attributes: image and mask as arrays, computed from distances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Colour = tuple[int, int, int]

# RGB; any two petal colours are at least 100 apart, so that a mean colour names its flower
PETAL_COLOURS: dict[str, Colour] = {
    "red": (205, 22, 28),
    "orange": (255, 120, 0),
    "yellow": (252, 222, 30),
    "pink": (255, 150, 192),
    "purple": (122, 40, 190),
    "blue": (32, 70, 225),
    "white": (244, 244, 240),
    "magenta": (222, 20, 150),
}
CENTRE_COLOURS: dict[str, Colour] = {
    "yellow": (250, 210, 25),
    "brown": (118, 66, 24),
    "green": (96, 168, 48),
    "black": (26, 20, 24),
}
# two RGB tones each, between which the texture moves
BACKGROUNDS: dict[str, tuple[Colour, Colour]] = {
    "green": ((28, 84, 34), (78, 134, 60)),
    "dark": ((12, 13, 20), (44, 44, 54)),
    "sky": ((120, 178, 226), (196, 224, 244)),
    "sand": ((186, 158, 112), (216, 192, 148)),
}
PETAL_SHAPES = ("round", "pointed", "narrow")
PETAL_COUNTS = (4, 5, 6, 7, 8)

BACKGROUND, PETALS, CENTRE = 0, 1, 2  # values of the mask


@dataclass(frozen=True)
class Flower:
    """The attributes of a flower; every word is a key of the tables above."""

    petal_colour: str
    petal_count: int
    petal_shape: str
    centre_colour: str
    background: str


def draw_flower(flower: Flower, size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one flower; place, size (65 to 90 % of the side), rotation and shade vary with ``rng``.

    Args:
        flower: the attributes.
        size: side of the square image in pixels.
        rng: source of all variation; equal states give equal images.

    Returns:
        The image, (size, size, 3) uint8 RGB, and the mask, (size, size) uint8 of 0 background, 1 petals,
        2 centre.
    """
    radius = 0.5 * size * rng.uniform(0.68, 0.9)  # pixels
    room = max(0.0, 0.5 * size - radius - 1)
    row, column = (0.5 * (size - 1) + rng.uniform(-room, room, 2)).tolist()
    pixels = np.arange(size, dtype=np.float32)
    y, x = pixels[:, None] - row, pixels[None, :] - column
    distance = np.sqrt(x * x + y * y)
    image = _background(flower.background, size, rng)  # (3, size, size): planes are far quicker than pixels here

    along, across, petal = _petal_coordinates(x, y, distance, flower.petal_count, rng)
    lengths = radius * rng.uniform(0.93, 1.0, flower.petal_count).astype(np.float32)
    along /= lengths[petal]
    across /= lengths[petal]
    inset = radius * _petal_inset(flower.petal_shape, flower.petal_count, rng.uniform(0.94, 1.0), along, across)
    core = radius * rng.uniform(0.21, 0.26)
    # the petals join in a ring around the centre, without which a black centre is lost on a dark background
    inset = np.maximum(inset, 1.22 * core - distance)

    petals = np.clip(inset + 0.5, 0, 1)
    # a soft shadow lifts the flower off its background, which keeps white on sky and pink on sand apart
    shadow = np.clip(1 + inset / (0.09 * radius), 0, 1)
    image *= 1 - 0.45 * shadow * shadow
    image += petals * (_petal_paint(flower.petal_colour, radius, along, across, inset, petal, rng) - image)

    inset_core = core - distance
    image *= 1 - 0.3 * np.clip(inset_core + 1.5, 0, 1)
    centre = np.clip(inset_core + 0.5, 0, 1)
    image += centre * (_centre_paint(flower.centre_colour, core, distance, x, y, rng) - image)

    mask = np.where(centre > 0.5, CENTRE, np.where(petals > 0.5, PETALS, BACKGROUND)).astype(np.uint8)
    drawn = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(drawn.transpose(1, 2, 0)), mask


def _petal_coordinates(
    x: Array, y: Array, distance: Array, count: int, rng: np.random.Generator
) -> tuple[Array, Array, NDArray[np.intp]]:
    """Every pixel in the frame of its nearest petal: pixels along its axis and across it, and its index."""
    sector = 2 * math.pi / count
    turns = (np.arctan2(y, x) + np.float32(rng.uniform(0, 2 * math.pi))) / np.float32(sector)
    nearest = np.rint(turns)
    tilt = (sector * rng.uniform(-0.05, 0.05, count)).astype(np.float32)
    petal = nearest.astype(np.intp) % count
    angle = (turns - nearest) * np.float32(sector) + tilt[petal]
    return distance * np.cos(angle), distance * np.sin(angle), petal


def _petal_inset(shape: str, count: int, scale: float, along: Array, across: Array) -> Array:
    """How deep a point is inside its petal of length 1, negative outside; petals stay in their sector."""
    side = np.abs(across)
    sine = math.sin(math.pi / count)
    if shape == "narrow":  # a strap with a round end, a little slimmer at its base
        half = scale * (0.12 if count < 6 else 0.105)
        beyond = np.maximum(along - (1 - half), 0)
        taper = 0.4 * half * np.clip(1 - 1.3 * along, 0, 1)
        return np.asarray(half - taper - np.sqrt(beyond * beyond + side * side))
    if shape == "pointed":  # widest before the middle, straight to a sharp tip
        widest = 0.44
        half = scale * min(0.25, 0.98 * widest * sine)
        outer = (np.clip(along, widest, None) - widest) / (1 - widest)
        width = np.where(along < widest, _swell(along / widest), 1 - outer**1.25) * half
        return np.asarray((width - side) / math.hypot(1, 1.25 * half / (1 - widest)))
    widest = 0.71  # round: a broad half ellipse at the end
    half = scale * min(0.36, 0.97 * widest * sine)
    end = 1 - widest
    body = half * _swell(along / widest) - side
    beyond = np.maximum(along - widest, 0) / end
    cap = (1 - np.sqrt(beyond * beyond + (side / half) ** 2)) * min(end, half)
    return np.where(along < widest, body, cap)


def _swell(share: Array) -> Array:
    """From a third of the width at the base (0) to all of it at the widest place (1)."""
    return np.asarray(0.3 + 0.7 * np.sin((0.5 * math.pi) * np.clip(share, 0, 1)))


def _petal_paint(
    name: str,
    radius: float,
    along: Array,
    across: Array,
    inset: Array,
    petal: NDArray[np.intp],
    rng: np.random.Generator,
) -> Array:
    """Colour of every pixel as if it lay in a petal: (3, size, size) in 0..255."""
    base = np.array(PETAL_COLOURS[name], np.float32) + rng.uniform(-4, 4, 3).astype(np.float32)
    shades = rng.uniform(-0.06, 0.06, int(petal.max()) + 1).astype(np.float32)
    light = 0.87 + 0.19 * along + shades[petal]  # darker towards the base
    pixels_across = radius * np.abs(across)
    light -= np.clip(0.09 - 0.05 * pixels_across, 0, None)  # a fine midrib
    edge = np.clip(1 - inset * (26 / radius), 0, 1)  # darker edges part the petals where they touch
    light -= 0.36 * edge * edge
    return np.asarray(np.clip(light, 0.35, 1.1) * base[:, None, None])


def _centre_paint(name: str, core: float, distance: Array, x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Colour of every pixel as if it lay in the centre, a dome with a pattern of florets: (3, size, size)."""
    base = np.array(CENTRE_COLOURS[name], np.float32) + rng.uniform(-6, 6, 3).astype(np.float32)
    light = 1.12 - 0.3 * (distance / np.float32(core)) ** 2
    pitch = np.float32(2 * math.pi / max(3.0, 0.36 * core))
    light += 0.1 * np.sin(x * pitch) * np.sin(y * pitch)
    return np.asarray(np.clip(light, 0.5, 1.2) * base[:, None, None])


def _background(name: str, size: int, rng: np.random.Generator) -> Array:
    """A textured background: (3, size, size) in 0..255."""
    first, second = (np.array(tone, np.float32)[:, None, None] for tone in BACKGROUNDS[name])
    cells = {"green": 9, "dark": 3, "sky": 4, "sand": 5}[name]
    mix = _smooth_noise(cells, size, rng)
    ramp = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    if name == "sky":
        mix = 0.7 * ramp + 0.3 * mix
    elif name == "sand":
        mix = 0.6 * mix + 0.2 * ramp + 0.12 * rng.standard_normal((size, size), np.float32)
    elif name == "green":
        mix = 0.85 * mix + 0.15 * (1 - ramp)
    image: Array = first + mix * (second - first)
    return image


def _smooth_noise(cells: int, size: int, rng: np.random.Generator) -> Array:
    """Noise about 0.5, mostly in 0..1, varying over size / cells pixels: a small grid through Gaussians."""
    grid = rng.random((cells + 1, cells + 1), np.float32)
    place = np.linspace(0, cells, size, dtype=np.float32)
    weights = np.exp(-1.8 * (place[:, None] - np.arange(cells + 1, dtype=np.float32)) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(0.5 + 1.6 * (weights @ grid @ weights.T - 0.5))
