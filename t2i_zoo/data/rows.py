"""Rows of metadata from JSON lines, CSV and TSV: captions, classes and splits under their usual names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from t2i_zoo.data.reading import read_text
from t2i_zoo.data.records import Embedded, Record, Split
from t2i_zoo.errors import Noted, T2IError

Row = dict[str, Any]

FILE_KEYS = ("file_name", "image", "file")
CAPTION_KEYS = ("caption", "text", "captions")
CLASS_KEYS = ("class", "label")
_CAPTION_COLUMN = re.compile(r"caption_\d+", re.ASCII)
_INTEGER = re.compile(r"\+?\d{1,18}", re.ASCII)
_NEGATIVE = re.compile(r"-\s*0*[1-9]\d*", re.ASCII)
_SHOWN = 80  # characters of a bad value in an error


@dataclass
class Entry:
    """An image while its rows are collected; ``place`` is the file and line that first named it."""

    image: Path | Embedded
    place: str
    captions: list[str] = field(default_factory=list)
    label: str | None = None
    split: str | None = None


def show(value: Any) -> str:
    """A value as errors show it: cut if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def json_rows(path: Path, noted: Noted) -> Iterator[tuple[int, Row]]:
    """Line numbers and objects of a file of JSON lines; blank lines are left out, and broken ones are noted."""
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if text.strip():
            with noted.one():
                yield line, _json_row(text, f"{path}, line {line}")


def _json_row(text: str, place: str) -> Row:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise T2IError(f"{place}: broken JSON ({error}), expected an object: correct it") from None
    if not isinstance(row, dict):
        raise T2IError(f"{place}: found {type(row).__name__}, expected a JSON object: correct it")
    return row


def table_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Line numbers and rows of a CSV or TSV file with a header; a row of several lines counts as its first."""
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""),
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        strict=True,
    )
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None:
                header = [name.strip() for name in cells]
                if twice := next((name for name in header if name and header.count(name) > 1), None):
                    raise T2IError(
                        f"{path}, line {line}: two columns are named {show(twice)}, expected each name once: rename "
                        "one, such as captions to caption_1, caption_2, ..."
                    )
                names = dict.fromkeys(header)
                value(names, FILE_KEYS, f"{path}, line {line}")
                if not any(_CAPTION_COLUMN.fullmatch(name) for name in header):
                    value(names, CAPTION_KEYS, f"{path}, line {line}")
            elif any(cell.strip() for cell in cells):
                if len(cells) > len(header):
                    raise T2IError(
                        f"{path}, line {line}: {len(cells)} cells under {len(header)} columns "
                        f"({', '.join(header)}): put double quotes around a caption that contains the separator"
                    )
                yield line, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise T2IError(f"{path}, line {line}: broken table ({error}): check the double quotes of that row") from None


def value(row: Row, keys: tuple[str, ...], place: str) -> Any:
    """The value of the first of these columns that the row has.

    Raises:
        T2IError: if it has none of them.
    """
    for key in keys:
        if key in row:
            return row[key]
    raise T2IError(
        f"{place}: no column {' or '.join(keys)} among the columns found ({', '.join(row) or 'none'}): add it"
    )


def row_captions(row: Row, place: str) -> list[str]:
    """The captions of a row, at least one, stripped."""
    columns = [key for key in row if _CAPTION_COLUMN.fullmatch(key)]
    captions = []
    if any(key in row for key in CAPTION_KEYS) or not columns:
        found = value(row, CAPTION_KEYS, place)
        captions = [_caption(caption, place) for caption in (found if isinstance(found, list) else [found])]
    captions += [_caption(row[key], place) for key in columns if row[key] is not None and row[key] != ""]
    if not captions:
        raise T2IError(f"{place}: the image has no caption, expected at least one: write one or delete the row")
    return captions


def _caption(found: Any, place: str) -> str:
    if not isinstance(found, str) or not found.strip():
        shown = "blank" if isinstance(found, str) or found is None else show(found)
        raise T2IError(f"{place}: a caption is {shown}, expected text: write it or delete the row")
    return found.strip()


def row_label(row: Row, place: str) -> str | None:
    """The class of a row as text, or None."""
    found = next((row[key] for key in CLASS_KEYS if row.get(key) not in (None, "")), None)
    if found is None or (isinstance(found, str) and not found.strip()):
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise T2IError(f"{place}: the class is {show(found)}, expected a word or an integer: correct that row")
    text = str(found).strip()
    if _NEGATIVE.fullmatch(text):
        raise T2IError(f"{place}: the label is {text}, expected 0 or more: leave it empty if there is no class")
    return text


def row_split(row: Row, place: str) -> str | None:
    """The split of a row, or None."""
    found = row.get("split") or None
    if found is not None and found not in get_args(Split):
        raise T2IError(f"{place}: unknown split {show(found)}, expected train, val or test: correct that row")
    return found


def merge(old: str | None, new: str | None, what: str, place: str) -> str | None:
    """The value that two rows of one image agree on.

    Raises:
        T2IError: if they contradict each other.
    """
    if old is not None and new is not None and old != new:
        raise T2IError(
            f"{place}: {what} {new!r} but an earlier row of the same image says {old!r}: make the rows agree"
        )
    return old if new is None else new


def number_classes(entries: Sequence[Entry]) -> list[int] | list[None]:
    """Classes from 0 in sorted order: as integers if all are integers, else as words."""
    named = [entry.label for entry in entries if entry.label is not None]
    if not named:
        return [None] * len(entries)
    for entry in entries:
        if entry.label is None:
            name = entry.image.name if isinstance(entry.image, Path) else "the image"
            raise T2IError(
                f"{entry.place}: {name} has no class but {len(named)} other images have one, expected all or none: "
                "give it a class or remove the others"
            )
    integers = all(_INTEGER.fullmatch(label) for label in named)
    keys = [int(label) if integers else label for label in named]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}  # type: ignore[type-var]
    return [numbers[key] for key in keys]


def draw_splits(entries: Sequence[Entry], share: float, seed: int) -> list[Split]:
    """The split of each entry; of those without one, a share of at least one entry becomes test."""
    import numpy as np

    free = [i for i, entry in enumerate(entries) if entry.split is None]
    # at least one, so that a small folder can be validated too
    wanted = max(1, round(share * len(free))) if share and len(free) > 1 else 0
    order = np.random.default_rng(seed).permutation(len(free)).tolist()
    held_out = {free[i] for i in order[:wanted]}
    return [cast("Split", entry.split or ("test" if i in held_out else "train")) for i, entry in enumerate(entries)]


def to_records(entries: Sequence[Entry], share: float, seed: int) -> list[Record]:
    """The records of all entries, with numbered classes and a split for each; arguments as of ``draw_splits``."""
    return [
        Record(entry.image, tuple(entry.captions), class_id, None, split)
        for entry, class_id, split in zip(
            entries, number_classes(entries), draw_splits(entries, share, seed), strict=True
        )
    ]


def check_share(share: float) -> None:
    """Raise for a share of held-out images that is not in [0, 1)."""
    if not 0 <= share < 1:
        raise T2IError(f"val_fraction is {share}, expected 0 <= val_fraction < 1: change --data.source.val_fraction")
