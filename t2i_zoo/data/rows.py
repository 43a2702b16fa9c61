"""From rows of any table to images: their captions, classes and splits, merged by image and numbered."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from t2i_zoo.data.columns import CAPTION_COLUMNS, Columns, find_columns, missing, split_named
from t2i_zoo.data.notes import remark, understood
from t2i_zoo.data.reading import is_file, read_text
from t2i_zoo.data.records import Embedded, Record, Split
from t2i_zoo.errors import T2IError

Row = dict[str, Any]

_INTEGER = re.compile(r"\+?\d{1,18}", re.ASCII)
_WHOLE = re.compile(r"([+-]?\d{1,18})\.0*", re.ASCII)
_NEGATIVE = re.compile(r"-\s*0*[1-9]\d*", re.ASCII)
_SHOWN = 80  # characters of a bad value in an error


@dataclass
class Entry:
    """An image while its rows are collected.

    Attributes:
        place: the file and line that first named it.
        lacks: why it has no caption, as far as it has none.
        lost: why it has no image, as of ``Record``.
    """

    image: Path | Embedded
    place: str
    captions: list[str] = field(default_factory=list)
    label: str | None = None
    split: str | None = None
    lacks: str = ""
    lost: str = ""


def show(value: Any) -> str:
    """A value as errors show it: cut if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


# Captions -------------------------------------------------------------------------------------------------------------


def texts(value: Any, place: str) -> tuple[list[str], str]:
    """The captions in a value of any form, stripped; blank ones, None and NaN are no captions.

    Args:
        value: text, text that holds a list as JSON or Python write it, a list, or an object with a column of captions.
        place: file and line.

    Returns:
        The captions, and why there are none.
    """
    if isinstance(value, str):
        if (found := _listed(value)) is None:
            if value.strip() and not any(map(str.isalnum, value)):
                remark("captions without a word; some text encoders read nothing in them", f"{place} ({show(value)})")
            return ([value.strip()], "") if value.strip() else ([], f"{place}: the caption is blank")
        remark("a text that holds a list was read as several captions", place)
        value = found
    if isinstance(value, dict):
        columns = find_columns(tuple(value)).captions
        value = [value[name] for name in columns]
        if not columns:
            return [], f"{place}: the caption is an object without a caption in it"
    if isinstance(value, list | tuple):
        parts = [texts(part, place) for part in value]
        captions = [caption for found, _ in parts for caption in found]
        return captions, "" if captions else next((why for _, why in parts if why), f"{place}: the list is empty")
    if value is None or value != value:  # NaN
        return [], f"{place}: the caption is blank"
    remark("values that are no text are not captions", f"{place} ({show(value)})")
    return [], f"{place}: the caption is {show(value)}, expected text"


def _listed(text: str) -> list[str] | None:
    """The strings in a list as ``str`` or JSON write it, NumPy's without commas included; None for other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    strings = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:  # token by token: the parser would join strings without a comma
                strings.append(ast.literal_eval(token.string))
            elif token.string.strip() not in ("", "[", "]", ",", "nan", "None", "null"):
                return None
    except (tokenize.TokenError, SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return strings if all(isinstance(string, str) for string in strings) and (strings or text == "[]") else None


def row_captions(row: Row, columns: Columns, place: str, asked: str | None = None) -> tuple[list[str], str]:
    """The captions of a row, and why it has none; ``asked`` is the column that the user has named."""
    if not columns.captions:
        return [], f"{place}: {missing('captions', 'caption', row, asked, CAPTION_COLUMNS)}"
    return texts([row[name] for name in columns.captions], place)


def captions_in(path: Path) -> tuple[tuple[str, ...], str]:
    """The captions in a text file, one on each line, and why there are none."""
    if not is_file(path):
        return (), f"there is no file {path}"
    lines = enumerate(read_text(path).split("\n"), start=1)
    found = tuple(caption for number, line in lines for caption in texts(line, f"{path}, line {number}")[0])
    return found, "" if found else f"{path} holds blank lines only"


# Classes and splits ---------------------------------------------------------------------------------------------------


def row_label(found: Any, place: str) -> str | None:
    """The class in a cell as text, whole numbers without their decimals; None for an empty cell."""
    if found is None or found != found or (isinstance(found, str) and not found.strip()):
        return None
    whole = isinstance(found, float) and found.is_integer()
    if isinstance(found, bool) or not (whole or isinstance(found, str | int)):
        raise T2IError(f"{place}: the class is {show(found)}, expected a word or an integer: correct that row")
    text = str(found).strip()
    if match := _WHOLE.fullmatch(text):  # a table program writes integers so if some cells are empty
        text = match[1]
    if _NEGATIVE.fullmatch(text):
        raise T2IError(f"{place}: the label is {text}, expected 0 or more: leave it empty if there is no class")
    return text


def row_split(found: Any, place: str) -> str | None:
    """The split in a cell; None for an empty cell."""
    if found is None or found != found or found == "":
        return None
    if not isinstance(found, str) or (split := split_named(found)) is None:
        raise T2IError(f"{place}: unknown split {show(found)}, expected train, val or test: correct that row")
    return split


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


def number_classes(entries: Sequence[Entry]) -> list[int | None]:
    """Classes from 0 in sorted order: as integers if all are integers, else as words; None where there is none."""
    named = [entry.label for entry in entries if entry.label is not None]
    integers = all(_INTEGER.fullmatch(label) for label in named)
    keys = [int(label) if integers else label for label in named]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}  # type: ignore[type-var]
    by_label = {label: numbers[key] for label, key in zip(named, keys, strict=True)}
    return [None if entry.label is None else by_label[entry.label] for entry in entries]


def draw_splits(entries: Sequence[Entry], share: float, seed: int) -> list[Split]:
    """The split of each entry; of those without one, a share of at least one entry becomes test."""
    import numpy as np

    free = [i for i, entry in enumerate(entries) if entry.split is None]
    # at least one, so that a small folder can be validated too
    wanted = max(1, round(share * len(free))) if share and len(free) > 1 else 0
    order = np.random.default_rng(seed).permutation(len(free)).tolist()
    held_out = {free[i] for i in order[:wanted]}
    if free:
        rest = "" if len(free) == len(entries) else f"of the {len(free)} images that nothing else assigns, "
        understood("random split", f"{rest}{wanted} drawn for test (--data.source.val_fraction {share:g})")
    return [cast("Split", entry.split or ("test" if i in held_out else "train")) for i, entry in enumerate(entries)]


def to_records(entries: Sequence[Entry], share: float, seed: int) -> list[Record]:
    """The records of all entries, with numbered classes and a split for each; arguments as of ``draw_splits``."""
    return [
        Record(
            entry.image, tuple(entry.captions), class_id, None, split, "" if entry.captions else entry.lacks, entry.lost
        )
        for entry, class_id, split in zip(
            entries, number_classes(entries), draw_splits(entries, share, seed), strict=True
        )
    ]


def check_share(share: float) -> None:
    """Raise for a share of held-out images that is not in [0, 1)."""
    if not 0 <= share < 1:
        raise T2IError(f"val_fraction is {share}, expected 0 <= val_fraction < 1: change --data.source.val_fraction")
