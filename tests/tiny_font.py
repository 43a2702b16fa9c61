"""A TrueType font with a few characters, written here: each is a black square, and what is missing a small one."""

from __future__ import annotations

import struct
from pathlib import Path


def write_font(path: Path, characters: str) -> Path:
    """Write a font whose letters fill a square as high and wide as the em."""
    codes = sorted(set(map(ord, characters)))
    shapes = [_square(200), *(_square(1000) for _ in codes)]
    count, ends = len(shapes), [0]
    for shape in shapes:
        ends.append(ends[-1] + len(shape))
    groups = b"".join(struct.pack(">3I", code, code, glyph) for glyph, code in enumerate(codes, 1))
    table = struct.pack(">2H3I", 12, 0, 16 + len(groups), 0, len(codes)) + groups
    head = struct.pack(">4I2H2q4h2H3h", 1 << 16, 0, 0, 0x5F0F3CF5, 0, 1000, 0, 0, 0, 0, 1000, 1000, 0, 8, 2, 1, 0)
    tables = {
        "cmap": struct.pack(">2H2HI", 0, 1, 3, 10, 12) + table,
        "glyf": b"".join(shapes),
        "head": head,
        "hhea": struct.pack(">I3hH11hH", 1 << 16, 800, -200, 0, 1000, 0, 0, 1000, 1, *[0] * 7, count),
        "hmtx": struct.pack(">Hh", 1000, 0) * count,
        "loca": struct.pack(f">{len(ends)}I", *ends),
        "maxp": struct.pack(">I14H", 1 << 16, count, 4, 1, *[0] * 11),
    }
    start, entries, body = 12 + 16 * len(tables), b"", b""
    for name, content in tables.items():
        entries += name.encode() + struct.pack(">3I", 0, start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    path.write_bytes(struct.pack(">I4H", 1 << 16, len(tables), 0, 0, 0) + entries + body)
    return path


def _square(side: int) -> bytes:
    """A glyph of one contour, on the baseline."""
    points = struct.pack(">4h", 0, 0, side, 0) + struct.pack(">4h", 0, side, 0, -side)
    shape = struct.pack(">h4h2H", 1, 0, 0, side, side, 3, 0) + b"\1" * 4 + points
    return shape + b"\0" * (-len(shape) % 4)
