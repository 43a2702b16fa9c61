"""Your own pictures: a folder with a metadata file, or with a text file beside every picture."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from t2i_zoo.data.flowers import read_text
from t2i_zoo.data.records import Record, Source, Split
from t2i_zoo.errors import T2IError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
METADATA_NAMES = tuple(f"{stem}.{kind}" for stem in ("metadata", "captions") for kind in ("jsonl", "csv", "tsv"))
_FILE_KEYS = ("file_name", "image", "file")
_CAPTION_KEYS = ("caption", "text", "captions")
_CLASS_KEYS = ("class", "label")
_CAPTION_COLUMN = re.compile(r"caption_\d+", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass
class _Entry:
    """A picture while its rows are gathered; ``place`` is the file and line that first named it."""

    image: Path
    place: str
    captions: list[str] = field(default_factory=list)
    label: str | None = None
    split: str | None = None


@dataclass
class CaptionFolder(Source):
    """Pictures with captions in a folder of your own.

    With a metadata file (one JSON object a line, CSV or TSV with a header) a row holds ``file_name`` (or
    ``image``, ``file``; a path inside the folder), its captions under the first present of ``caption``,
    ``text``, ``captions`` (a string, or a list in JSON) and in the columns ``caption_1``, ``caption_2``, ...
    whose empty cells are skipped, and optionally ``class`` (or ``label``) and ``split`` (train, val or test).
    Several rows of one picture are merged. Pictures that no row names are ignored.

    Without one, every picture has a ``.txt`` of the same name beside it, a caption a line, in any depth of
    sub-folders. The sub-folder is the class where there are at least two of them; where the first level holds
    train, val and test and nothing else, it is the split instead and the sub-folder below it the class.

    Classes are numbered from 0 in sorted order: as integers where all are integers, else as words.

    Args:
        root: the folder.
        captions: False lists the pictures alone, for models without text; captions that are there are not read.
        metadata: name of the metadata file in the folder; None looks for metadata.jsonl, .csv, .tsv, then for
            captions.jsonl, .csv, .tsv, and else reads the text files beside the pictures.
        val_fraction: share of the pictures without a split of their own that goes to test, 0 to below 1.
        seed: seed of that draw.
    """

    root: str = ""
    captions: bool = True
    metadata: str | None = None
    val_fraction: float = 0.1
    seed: int = 0

    def records(self) -> list[Record]:
        """List the pictures in the order of the metadata file, or sorted by path.

        Raises:
            T2IError: names the file and line that is wrong.
        """
        if not self.root or not self.path.is_dir():
            found = f"there is no folder {self.path}" if self.root else "no folder of pictures is given"
            raise T2IError(f"{found}, expected one with pictures and captions: set --data.source.root to it")
        if not 0 <= self.val_fraction < 1:
            raise T2IError(
                f"val_fraction is {self.val_fraction}, expected 0 <= val_fraction < 1: change "
                f"--data.source.val_fraction"
            )
        metadata = self._metadata() if self.captions else None
        entries = _from_metadata(self.path, metadata) if metadata else _from_files(self.path, self.captions)
        if not entries:
            raise T2IError(
                f"{metadata or self.path} names no picture, expected at least one ({' '.join(SUFFIXES)}): "
                f"add "
                f"pictures or change --data.source.root"
            )
        class_ids = _number_classes(entries)
        splits = self._splits(entries)
        return [
            Record(entry.image, tuple(entry.captions), class_id, None, split)
            for entry, class_id, split in zip(entries, class_ids, splits, strict=True)
        ]

    def _metadata(self) -> Path | None:
        if self.metadata is None:
            return next((self.path / name for name in METADATA_NAMES if (self.path / name).is_file()), None)
        path = _inside(self.path, self.metadata)
        if path is None or not path.is_file() or path.suffix.lower() not in (".jsonl", ".csv", ".tsv"):
            raise T2IError(
                f"{self.metadata!r} is no .jsonl, .csv or .tsv file in {self.path}: change --data.source.metadata"
            )
        return path

    def _splits(self, entries: list[_Entry]) -> list[Split]:
        import numpy as np

        free = [i for i, entry in enumerate(entries) if entry.split is None]
        # one at least, so that a small folder can still be validated
        wanted = max(1, round(self.val_fraction * len(free))) if self.val_fraction and len(free) > 1 else 0
        order = np.random.default_rng(self.seed).permutation(len(free)).tolist()
        held_out = {free[i] for i in order[:wanted]}
        return [cast("Split", entry.split or ("test" if i in held_out else "train")) for i, entry in enumerate(entries)]


def _inside(root: Path, name: str) -> Path | None:
    """The path of a name in the folder, None where it leaves it; links are the owner's own and are "
    "followed."""
    path = Path(os.path.normpath(root / name))
    return path if path.is_relative_to(os.path.normpath(root)) else None


def _from_metadata(root: Path, metadata: Path) -> list[_Entry]:
    entries: dict[Path, _Entry] = {}
    rows = _json_rows(metadata) if metadata.suffix.lower() == ".jsonl" else _table_rows(metadata)
    for line, row in rows:
        place = f"{metadata}, line {line}"
        name = _value(row, _FILE_KEYS, place)
        if not isinstance(name, str) or not name.strip():
            raise T2IError(f"{place}: the file name is {name!r}, expected a path inside {root}: correct that row")
        path = _inside(root, name.strip())
        if path is None:
            raise T2IError(f"{place}: {name!r} leaves the folder {root}: move the picture into it and correct the row")
        if path.suffix.lower() not in SUFFIXES:
            raise T2IError(
                f"{place}: {name!r} is no picture, expected {' '.join(SUFFIXES)}: convert it or drop the row"
            )
        entry = entries.get(path)
        if entry is None:
            if not path.is_file():
                raise T2IError(f"{place}: there is no picture {path}: add it or delete the row")
            entry = entries[path] = _Entry(path, place)
        entry.captions += _row_captions(row, place)
        label = next((row[key] for key in _CLASS_KEYS if row.get(key) not in (None, "")), None)
        entry.label = _merge(entry.label, _label(label, place), "class", place)
        split = row.get("split") or None
        if split is not None and split not in get_args(Split):
            raise T2IError(f"{place}: unknown split {split!r}, expected train, val or test: correct that row")
        entry.split = _merge(entry.split, split, "split", place)
    return list(entries.values())


def _value(row: dict[str, Any], keys: tuple[str, ...], place: str) -> Any:
    for key in keys:
        if key in row:
            return row[key]
    raise T2IError(
        f"{place}: no column {' or '.join(keys)} among the columns found ({', '.join(row) or 'none'}): add it"
    )


def _row_captions(row: dict[str, Any], place: str) -> list[str]:
    """At least one caption of a row, stripped."""
    numbered = [str(row[key]).strip() for key in row if _CAPTION_COLUMN.fullmatch(key) and row[key] is not None]
    captions = [caption for caption in numbered if caption]
    if any(key in row for key in _CAPTION_KEYS) or not any(_CAPTION_COLUMN.fullmatch(key) for key in row):
        found = _value(row, _CAPTION_KEYS, place)
        listed = found if isinstance(found, list) else [found]
        for caption in listed:
            if not isinstance(caption, str) or not caption.strip():
                shown = "blank" if isinstance(caption, str) or caption is None else repr(caption)
                raise T2IError(f"{place}: a caption is {shown}, expected text: write it or delete the row")
        captions = [caption.strip() for caption in listed] + captions
    if not captions:
        raise T2IError(f"{place}: the picture has no caption, expected at least one: write one or delete the row")
    return captions


def _label(value: Any, place: str) -> str | None:
    """A class as text, None where the row has none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise T2IError(f"{place}: the class is {value!r}, expected a word or an integer: correct that row")
    text = str(value).strip()
    if _INTEGER.fullmatch(text) and int(text) < 0:
        raise T2IError(f"{place}: the label is {text}, expected 0 or more: leave it empty where there is no class")
    return text


def _merge(old: str | None, new: str | None, what: str, place: str) -> str | None:
    if old is not None and new is not None and old != new:
        raise T2IError(
            f"{place}: {what} {new!r} but an earlier row of the same picture says {old!r}: make the rows agree"
        )
    return old if new is None else new


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise T2IError(f"{path}, line {line}: broken JSON ({error}), expected an object: correct it") from None
        if not isinstance(row, dict):
            raise T2IError(f"{path}, line {line}: found {type(row).__name__}, expected a JSON object: correct it")
        yield line, row


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(
        io.StringIO(read_text(path), newline=""),
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        strict=True,
    )
    header: list[str] | None = None
    line = 1  # a quoted cell may span lines: a row is named by its first
    try:
        for cells in reader:
            if header is None:
                header = [name.strip() for name in cells]
                names = dict.fromkeys(header)
                _value(names, _FILE_KEYS, f"{path}, line {line}")
                if not any(_CAPTION_COLUMN.fullmatch(name) for name in header):
                    _value(names, _CAPTION_KEYS, f"{path}, line {line}")
            elif any(cell.strip() for cell in cells):
                if len(cells) > len(header):
                    raise T2IError(
                        f"{path}, line {line}: {len(cells)} cells under {len(header)} columns "
                        f"({', '.join(header)}): "
                        f"put double quotes around a caption that contains the separator"
                    )
                yield line, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise T2IError(f"{path}, line {line}: broken table ({error}): check the double quotes of that row") from None


def _from_files(root: Path, captioned: bool) -> list[_Entry]:
    """Every picture in the folder, with the captions in the text file beside it unless they are not wanted."""
    pictures: list[Path] = []
    texts: list[Path] = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found = [Path(folder) / name for name in names if not name.startswith(".")]
        pictures += [path for path in found if path.suffix.lower() in SUFFIXES]
        texts += [path for path in found if path.suffix == ".txt"]
    if not captioned:
        entries = [_Entry(path, str(path)) for path in sorted(pictures)]
        _classes_from_folders(root, entries)
        return entries
    stems = {path.with_suffix("") for path in pictures}
    for path in sorted(texts):
        if path.with_suffix("") not in stems:
            raise T2IError(f"caption file {path} has no picture beside it: add the picture or delete the file")
    present = set(texts)
    entries = []
    for path in sorted(pictures):
        text = path.with_suffix(".txt")
        if text not in present:
            raise T2IError(
                f"{path} has no caption, expected {text.name} beside it: write that file or a metadata file, or pass "
                "--data.source.captions false to train a model without text"
            )
        captions = [caption for raw in read_text(text).split("\n") if (caption := raw.strip())]
        if not captions:
            raise T2IError(f"{text}, line 1: holds blank lines only, expected a caption a line: write one")
        entries.append(_Entry(path, str(path), captions))
    _classes_from_folders(root, entries)
    return entries


def _classes_from_folders(root: Path, entries: list[_Entry]) -> None:
    parts = [entry.image.relative_to(root).parts[:-1] for entry in entries]
    first = {part[0] if part else "" for part in parts}
    if first and first <= set(get_args(Split)):
        for entry, part in zip(entries, parts, strict=True):
            entry.split = part[0]
        parts = [part[1:] for part in parts]
    if len(set(parts)) > 1:  # a single "images" folder is no class
        for entry, part in zip(entries, parts, strict=True):
            entry.label = "/".join(part) or None


def _number_classes(entries: list[_Entry]) -> list[int] | list[None]:
    labels = [entry.label for entry in entries]
    named = [label for label in labels if label is not None]
    if not named:
        return [None] * len(entries)
    for entry in entries:
        if entry.label is None:
            raise T2IError(
                f"{entry.place}: {entry.image.name} has no class but {len(named)} other pictures have one, "
                f"expected "
                f"all or none: give it a class or remove the others"
            )
    integers = all(_INTEGER.fullmatch(label) for label in named)
    keys = [int(label) if integers else label for label in named]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}  # type: ignore[type-var]
    return [numbers[key] for key in keys]
