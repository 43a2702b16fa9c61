"""Rows of metadata files: JSON lines, JSON of other forms, CSV with any separator, and parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from t2i_zoo.data.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, IMAGE_SUFFIXES, Columns, missing
from t2i_zoo.data.notes import remark
from t2i_zoo.data.reading import read_text
from t2i_zoo.data.rows import Row, show
from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_pointer

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_SEPARATORS = (",", "\t", ";", "|")
_BETWEEN = re.compile(r"[\s,\[\]]*")  # brackets and commas of an array that holds the objects

Find = partial[Columns]  #: ``find_columns`` with the columns that the user has named


def table_rows(path: Path, find: Find) -> Iterator[tuple[int, Row]]:
    """Number and row of each line of a metadata file; a row of several lines has the number of its first.

    Args:
        path: a file of one of ``SUFFIXES``; any other is read as CSV.
        find: tells columns by their names; where there is a choice, the separator is one that gives both columns.

    Raises:
        T2IError: names the line that cannot be read.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        return _parquet(path)
    return _json(path, find) if kind in (".json", ".jsonl") else _separated(path, find)


def is_table(path: Path, find: Find) -> bool:
    """Whether the first row of a file has columns of images and of captions."""
    try:
        columns = next((find(tuple(row)) for _, row in islice(table_rows(path, find), 1)), None)
    except T2IError:
        return False
    return columns is not None and columns.image is not None and bool(columns.captions)


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        import pyarrow.parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise T2IError(f"{path} needs the library pyarrow: pip install 't2i-zoo[hf]'") from error
    refuse_pointer(path)
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except Exception as error:  # pyarrow raises many kinds
        raise T2IError(f"{path} cannot be read as parquet ({type(error).__name__}): write it again") from error
    yield from enumerate(rows, start=1)


def _json(path: Path, find: Find) -> Iterator[tuple[int, Row]]:
    """JSON lines, an array, objects over several lines, or one object that holds the rows."""
    rows = _objects(path, read_text(path))
    first = list(islice(rows, 2))
    if len(first) == 1 and path.suffix.lower() == ".json" and not find(tuple(first[0][1])).image:
        return _unfolded(path, *first[0])
    return (row for part in (first, rows) for row in part)


def _objects(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    decoder = json.JSONDecoder()
    place, line = 0, 1
    while (start := _BETWEEN.match(text, place).end()) < len(text):  # type: ignore[union-attr]
        line += text.count("\n", place, start)
        try:
            row, place = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise T2IError(f"{path}, line {line}: broken JSON ({reason}), expected an object: correct it") from None
        if not isinstance(row, dict):
            raise T2IError(f"{path}, line {line}: found {type(row).__name__}, expected a JSON object: correct it")
        yield line, row
        line += text.count("\n", start, place)


def _unfolded(path: Path, line: int, content: Row) -> Iterator[tuple[int, Row]]:
    """The rows in one object: by file name, a single list of rows, or images and annotations as COCO has them."""
    lists = {
        key: rows for key, rows in content.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)
    }
    if {"images", "annotations"} <= lists.keys():
        by_id = {row.get("id"): row for row in lists["images"]}
        for row in lists["annotations"]:
            yield line, {**by_id.get(row.get("image_id"), {}), **row}
    elif len(lists) == 1:
        yield from ((line, row) for rows in lists.values() for row in rows if isinstance(row, dict))
    elif content and all(key.lower().endswith(IMAGE_SUFFIXES) for key in content):
        for name, value in content.items():
            yield line, {"file_name": name, **(value if isinstance(value, dict) else {"caption": value})}
    else:
        yield line, content


def _separated(path: Path, find: Find) -> Iterator[tuple[int, Row]]:
    text, skipped = read_text(path), 0
    if match := re.match(r'"?sep=(.)"?\n', text):  # a line that Excel writes
        text, skipped = text[match.end() :], 1
    separator = match[1] if match else _separator(path, text, find)
    header: list[str] | None = None
    try:
        for line, cells in _cells(text, separator):
            place = f"{path}, line {line + skipped}"
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, place, find)
                if header != [cell.strip() for cell in cells]:
                    yield line + skipped, dict(zip(header, cells, strict=True))
            else:
                if len(cells) > len(header):
                    raise T2IError(
                        f"{place}: {len(cells)} cells under {len(header)} columns ({', '.join(header)}): put double "
                        "quotes around a caption that contains the separator"
                    )
                yield line + skipped, dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
    except csv.Error as error:
        line = getattr(error, "line", 1) + skipped
        raise T2IError(f"{path}, line {line}: broken table ({error}): check the double quotes of that row") from None


def _cells(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each row; where quotes do not delimit cells, they are letters, unless commas need them."""
    quoting = csv.QUOTE_MINIMAL
    if separator in "|\t":
        try:
            for _ in _reader(text, separator, quoting):
                pass
        except csv.Error:
            quoting = csv.QUOTE_NONE
    reader, line = _reader(text, separator, quoting), 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        error.line = line  # type: ignore[attr-defined]
        raise


def _reader(text: str, separator: str, quoting: int) -> csv._reader:  # type: ignore[name-defined, unused-ignore]
    lines: Iterable[str] = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True, quoting=quoting)  # type: ignore[arg-type]


def _header(cells: list[str], place: str, find: Find) -> list[str]:
    """The names of the columns; those of a table without a header, whose first cell is an image, are made up."""
    header = [name.strip() for name in cells]
    if twice := next((name for name in header if name and header.count(name) > 1), None):
        raise T2IError(
            f"{place}: two columns are named {show(twice)}, expected each name once: rename one, such as captions to "
            "caption_1, caption_2, ..."
        )
    columns = find(tuple(header))
    if columns.image is None and len(header) > 1 and _is_image(header[0]):
        remark("read without a header: file names, then captions", place)
        return ["file_name", *(f"caption_{i}" for i in range(1, len(header)))]
    if columns.image is None:
        raise T2IError(f"{place}: {missing('file names', 'image', header, find.keywords.get('image'), IMAGE_COLUMNS)}")
    if not columns.captions:
        raise T2IError(
            f"{place}: {missing('captions', 'caption', header, find.keywords.get('caption'), CAPTION_COLUMNS)}"
        )
    return header


def _is_image(name: str) -> bool:
    return re.sub(r"#\d+$", "", name).lower().endswith(IMAGE_SUFFIXES)


def _separator(path: Path, text: str, find: Find) -> str:
    """The separator that gives the first line that is not blank columns of images and captions, else the most."""

    def columns(separator: str) -> tuple[bool, int]:
        try:
            rows = ([cell.strip() for cell in row] for row in _reader(text, separator, csv.QUOTE_MINIMAL))
            cells: list[str] = next(filter(any, rows), [])
        except csv.Error:
            return False, 0
        found = find(tuple(cells))
        return bool(found.image and found.captions) or (len(cells) > 1 and _is_image(cells[0])), len(cells)

    order = ("\t", *_SEPARATORS) if path.suffix.lower() == ".tsv" else _SEPARATORS
    return max(order, key=columns)  # the first of equal ones
