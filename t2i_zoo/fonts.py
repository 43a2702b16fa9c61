"""Text of any script on an image: fonts of this machine, chosen for each character, and shaped by raqm."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, features

from t2i_zoo.errors import T2IError

_BUILT_IN = ""  # stands for the file of Pillow's own font, which has little more than ASCII
_BITMAP_SIZES = (109, 136, 160, 128, 96, 72)  # fonts of colour bitmaps come in one size: Noto's, Apple's, others
_PROBE = 24  # size in pixels at which a glyph is compared with that of a missing character
_NO_CHARACTER = "\U0010ffff"
_FANCY = ("bold", "black", "italic", "oblique", "light", "thin", "condensed", "mono", "serif", "lastresort", "blank")
_FOLDERS = (
    "~/.fonts", "~/.local/share/fonts", "/usr/share/fonts", "/usr/local/share/fonts", "~/Library/Fonts",
    "/Library/Fonts", "/System/Library/Fonts", "C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts",
)  # fmt: skip
_KINDS = (".ttf", ".otf", ".ttc", ".otc")
#: the first word of a character's Unicode name, what its script is called, and Debian's package of a font with it
_SCRIPTS = {
    "CJK": ("Chinese", "fonts-noto-cjk"),
    "HIRAGANA": ("Japanese", "fonts-noto-cjk"),
    "KATAKANA": ("Japanese", "fonts-noto-cjk"),
    "HANGUL": ("Korean", "fonts-noto-cjk"),
    "IDEOGRAPHIC": ("Chinese", "fonts-noto-cjk"),
    "FULLWIDTH": ("Chinese", "fonts-noto-cjk"),
    "": ("emoji and symbols", "fonts-noto-color-emoji"),
}
_found: list[str] = []  #: files of the system that had a character so far
_missing: set[str] = set()  #: scripts that were searched for in vain, and reported


class Face(NamedTuple):
    """A font at a size, and the factor by which what it draws is scaled afterwards."""

    font: ImageFont.FreeTypeFont
    scale: float = 1.0


class Letters:
    """Letters of one height in any script; what a font lacks is drawn with another one.

    Args:
        size: of the letters in pixels.
        file: a font file that is preferred; by default Pillow's own font or, for text that it lacks letters of, DejaVu
            where matplotlib is installed, or a font of the system.

    Raises:
        T2IError: if ``file`` is not a font.
    """

    def __init__(self, size: int, file: str | None = None) -> None:
        self.size, self._own = size, str(Path(file).expanduser()) if file else None
        if self._own and _face(self._own, size) is None:
            raise T2IError(f"{file} is not a font that can be read: give a .ttf, .otf or .ttc file to --font")

    def length(self, text: str) -> float:
        """Width of a line in pixels."""
        return sum(face.font.getlength(part) * face.scale for face, part in self._runs(text))

    def draw(self, page: Image.Image, place: tuple[float, float], text: str, fill: str) -> None:
        """Draw one line on an RGB image; ``place`` is its upper left corner."""
        x, y = place
        runs = self._runs(text)
        for face, part in _visual(runs, right_to_left(text)):
            _draw(page, (x, y + self.size), face, part, fill)
            x += face.font.getlength(part) * face.scale

    def _runs(self, text: str) -> list[tuple[Face, str]]:
        """Pieces of a line, each with the font that has its characters."""
        runs: list[tuple[str, str]] = []
        if text.isascii() and not self._own:
            return [(_built_in(self.size), text)] if text else []
        known = [*([self._own] if self._own else []), _BUILT_IN, *_dejavu()]
        main = self._own or max(known, key=lambda file: sum(_has(file, char) for char in text))
        for cluster in clusters(text):
            if runs and _neutral(cluster[0]) and _continues(runs[-1][0], cluster[0]):
                file = runs[-1][0]
            else:
                found = None if cluster.isspace() else _file_of(cluster[0], [main, *known])
                file = main if found is None else found
            if runs and runs[-1][0] == file:
                runs[-1] = file, runs[-1][1] + cluster
            else:
                runs.append((file, cluster))
        return [(face, part) for file, part in runs if (face := _face(file, self.size)) is not None]


def clusters(text: str) -> Iterator[str]:
    """Characters with the marks, joiners and modifiers that belong to them."""
    held = ""
    for char in text:
        belongs = unicodedata.category(char) in ("Mn", "Mc", "Me", "Cf") or "\U0001f3fb" <= char <= "\U0001f3ff"
        if held and not (belongs or held[-1] == "\u200d"):
            yield held
            held = ""
        held += char
    if held:
        yield held


def right_to_left(text: str) -> bool:
    """Whether the first letter of a line belongs to a script that is written from right to left."""
    kinds = (unicodedata.bidirectional(char) for char in text)
    return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


def _neutral(char: str) -> bool:
    """Whether a character takes the direction of its surroundings, as spaces, digits and punctuation do."""
    return unicodedata.bidirectional(char) not in ("L", "R", "AL")


def _continues(file: str, char: str) -> bool:
    """Whether a font draws a neutral character among its letters; fonts of emoji draw wide digits and spaces."""
    face = _face(file, _PROBE)
    return face is not None and face.scale == 1 and _has(file, char)


def _visual(runs: list[tuple[Face, str]], backwards: bool) -> list[tuple[Face, str]]:
    """The runs of a line from left to right; raqm orders the letters within each."""
    directions: list[bool] = []
    for _, part in runs:
        strong = not all(map(_neutral, part))
        directions.append(right_to_left(part) if strong else directions[-1] if directions else backwards)
    groups = [
        [run for run, _ in group][:: -1 if turned else 1]
        for turned, group in groupby(zip(runs, directions, strict=True), key=lambda pair: pair[1])
    ]
    return [run for group in groups[:: -1 if backwards else 1] for run in group]


def _draw(page: Image.Image, place: tuple[float, float], face: Face, text: str, fill: str) -> None:
    """Draw one piece; ``place`` is the left end of its baseline."""
    if face.scale == 1:
        ImageDraw.Draw(page).text(place, text, fill=fill, font=face.font, anchor="ls", embedded_color=True)
        return
    ascent, descent = face.font.getmetrics()
    size = max(1, math.ceil(face.font.getlength(text))), ascent + descent
    large = Image.new("RGBA", size, (255, 255, 255, 0))
    ImageDraw.Draw(large).text((0, ascent), text, fill=fill, font=face.font, anchor="ls", embedded_color=True)
    small = large.resize((max(1, round(size[0] * face.scale)), max(1, round(size[1] * face.scale))))
    page.paste(small, (round(place[0]), round(place[1] - ascent * face.scale)), small)


@lru_cache(maxsize=8)
def _built_in(size: int) -> Face:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow without FreeType"
    return Face(font)


@lru_cache(maxsize=256)
def _face(file: str, size: int) -> Face | None:
    """A font at a size; None for a file that is none."""
    if file == _BUILT_IN:
        return _built_in(size)
    for actual in (size, *_BITMAP_SIZES):
        try:
            return Face(ImageFont.truetype(file, actual), size / actual)
        except OSError:
            continue
    return None


@lru_cache(maxsize=65_536)
def _has(file: str, char: str) -> bool:
    """Whether a font draws something else for a character than for one that does not exist."""
    face = _face(file, _PROBE)
    if face is None:
        return False
    (one, offset), (none, other) = (face.font.getmask2(c, mode="L", anchor="ls") for c in (char, _NO_CHARACTER))
    return (one.size, offset, bytes(one)) != (none.size, other, bytes(none))


@lru_cache(maxsize=1)
def _dejavu() -> tuple[str, ...]:
    """DejaVu Sans, which matplotlib brings along and which has Latin, Greek, Cyrillic, Hebrew and Arabic."""
    spec = importlib.util.find_spec("matplotlib")
    path = Path(str(spec.origin)).with_name("mpl-data") / "fonts" / "ttf" / "DejaVuSans.ttf" if spec else Path()
    return (str(path),) if path.is_file() else ()


def _file_of(char: str, known: list[str]) -> str | None:
    """The first font that has a character, of the known ones, those found before, or those of the system."""
    if unicodedata.category(char) in ("Cc", "Cf", "Cn", "Co"):
        return None
    script = "" if unicodedata.category(char)[0] == "S" else unicodedata.name(char, "").partition(" ")[0]
    if script in ("ARABIC", "HEBREW", "SYRIAC", "THAANA") and not features.check("raqm"):
        _report(f"unshaped {script}", f"{script.title()} is drawn without its joined forms", "libraqm for Pillow")
    for file in (*known, *_found):
        if _has(file, char):
            return file
    name, package = _SCRIPTS.get(script, (script.title(), "fonts-noto-core"))
    if name in _missing:
        return None
    found = next((file for file in _candidates(char) if _has(file, char)), None)
    if found is None:
        missing = f"no font on this machine draws {name} such as {char}"
        _report(name, missing, f"one ({package} on Debian and Ubuntu), or name a file with --font")
    else:
        _found.append(found)
    return found


def _report(key: str, what: str, remedy: str) -> None:
    """Say once what cannot be drawn."""
    if key not in _missing:
        _missing.add(key)
        print(f"note: {what}: install {remedy}", file=sys.stderr)


def _candidates(char: str) -> list[str]:
    """Fonts of the system that may have a character, plain ones first: those of fontconfig, or of the usual folders."""
    command = ["fc-list", f":charset={ord(char):x}", "--format", "%{file}\n"]
    try:
        files = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        folders = [Path(folder).expanduser() for folder in _FOLDERS]
        files = [str(path) for folder in folders for path in folder.rglob("*") if path.suffix.lower() in _KINDS]
    return sorted({file for file in files if file}, key=lambda file: (_fanciness(file), len(file), file))


def _fanciness(file: str) -> int:
    """How far a font is from plain letters, by its name."""
    name = os.path.basename(file).lower()  # noqa: PTH119
    return sum(word in name for word in _FANCY)
