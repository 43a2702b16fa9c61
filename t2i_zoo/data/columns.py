"""The names that people give columns, folders, splits and image files: one set for all sources."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from t2i_zoo.data.records import Split

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"
)  # fmt: skip
#: pictures in formats that are not looked for
FOREIGN_SUFFIXES = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf"
)  # fmt: skip
TEXT_SUFFIXES = (".txt", ".text", ".caption")

#: in the order in which they are looked for; written as ``plain`` returns them
IMAGE_COLUMNS = (
    "file_name", "filename", "file", "image", "image_path", "file_path", "filepath", "path", "image_file", "image_name",
    "img", "img_path",
)  # fmt: skip
CAPTION_COLUMNS = (
    "caption", "text", "captions", "texts", "prompt", "prompts", "description", "descriptions", "sentence", "sentences",
    "sentence(s)", "comment", "raw",
)  # fmt: skip
CLASS_COLUMNS = ("class", "label", "labels")

#: folders that only separate images from texts
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "pictures", "photos", "jpg", "jpegs"})
TEXT_FOLDERS = frozenset({"captions", "caption", "texts", "text", "txt", "prompts", "descriptions", "text_c10"})

#: text files that are no captions
STRAY = re.compile(
    r"(readme|licen[cs]e|notice|citation|changelog|requirements|classes|credits|attribution)\b.*", re.IGNORECASE
)

_SPLITS: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_NUMBERED = re.compile(r"(caption|text|prompt|description|sentence)s?_?\d+", re.ASCII)


def plain(name: str) -> str:
    """A column's name without letter case and surrounding blanks, and with underscores for blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", str(name).strip().casefold())


def split_named(word: str) -> Split | None:
    """The split that a folder or a cell names, such as ``Validation``; None for any other word."""
    return _SPLITS.get(word.strip().casefold())


def split_in(name: str) -> Split | None:
    """The split that a word of a longer name gives, such as that of ``cc3m-train-0001.tar``; None if there is none."""
    words = re.findall(r"[a-z]+", name.casefold())
    named = [split for word in words if (split := _SPLITS.get(word))]
    begins = (split for begin, split in _SPLITS.items() if words and words[0].startswith(begin))
    return named[0] if named else next(begins, None)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; ``captions`` are one or several, the others None where there is none."""

    image: str | None
    captions: tuple[str, ...]
    label: str | None
    split: str | None


@lru_cache(1024)
def find_columns(
    names: tuple[str, ...], image: str | None = None, caption: str | None = None, label: str | None = None
) -> Columns:
    """Find the columns of images, captions, classes and splits among these names.

    Args:
        names: of all columns.
        image, caption, label: the columns that the user has named; letter case may differ.
    """
    known = {plain(name): name for name in reversed(names)}

    def first(asked: str | None, usual: tuple[str, ...]) -> str | None:
        if asked is not None:
            return asked if asked in names else known.get(plain(asked))
        return next((known[name] for name in usual if name in known), None)

    named = (name for key, name in known.items() if key.endswith(("_file_name", "_filename")))  # as imagefolder has it
    found = first(caption, CAPTION_COLUMNS)
    captions = [found] if found is not None else []
    if caption is None:
        captions += [name for name in names if _NUMBERED.fullmatch(plain(name))]
    return Columns(
        first(image, IMAGE_COLUMNS) or (next(reversed([*named]), None) if image is None else None),
        tuple(captions),
        first(label, CLASS_COLUMNS),
        first(None, ("split",)),
    )


def missing(what: str, flag: str, names: object, asked: str | None, usual: tuple[str, ...]) -> str:
    """The end of a sentence about a column that is not there."""
    found = ", ".join(map(str, names)) if isinstance(names, tuple | list | dict) else str(names)
    expected = repr(asked) if asked is not None else " or ".join(usual[:4])
    return f"no column of {what} ({expected}) among {found or 'no columns'}: name it with --data.source.{flag}"
