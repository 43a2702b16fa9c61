"""The leaderboard as CSV, Markdown and one static page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from t2i_zoo.metrics.protocol import Protocol
from t2i_zoo.metrics.published import DATA, MARKS, Published, comparable, published
from t2i_zoo.metrics.records import Line, number

_NONE = "-"
_FURTHER = ("error", "images", "note")  #: columns of the CSV file beside a value


@dataclass
class Entry:
    """One model of the board.

    Attributes:
        title: name on the board.
        about: its size and how long it was trained.
        key: name of the model in ``MODELS``, or None.
        source: class name of the data's source.
        lines: its scores.
        strips: for each caption the file of its samples, relative to the page.
    """

    title: str
    about: str
    key: str | None
    source: str
    lines: list[Line] = field(default_factory=list)
    strips: dict[str, str] = field(default_factory=dict)

    def line(self, key: ScoreKey) -> Line | None:
        """The line of one score, or None."""
        return next((line for line in self.lines if _key(line) == key), None)

    def published(self, lines: Sequence[Line]) -> str:
        """The published numbers of this model for some of its scores, and whether ours compare; "" if none."""
        if self.key is None or (data := DATA.get(self.source)) is None:
            return ""
        return "; ".join(
            f"{row.metric} {_with_error(row)} ({row.source}; {MARKS[row.read]}). "
            f"Comparable: {comparable(row, data, line['network'], line['images'])}"
            for line in lines
            for row in published(self.key, data, line["metric"])
        )


class ScoreKey(NamedTuple):
    """What identifies a row of the board."""

    label: str
    protocol: str
    hash: str


def _key(line: Line) -> ScoreKey:
    return ScoreKey(line["label"], line["protocol"], line["protocol_hash"])


def _keys(entries: Sequence[Entry]) -> list[ScoreKey]:
    """All scores, in the order in which they were first found."""
    return list(dict.fromkeys(_key(line) for entry in entries for line in entry.lines))


def _with_error(row: Published) -> str:
    return number(row.value) + ("" if row.error is None else f" ± {number(row.error)}")


def as_csv(entries: Sequence[Entry]) -> str:
    """The table with a row for each model; values, errors, numbers of images and notes in separate columns.

    Values have all digits.
    """
    keys, text = _keys(entries), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    headings = [f"{key.label} [{key.protocol} {key.hash}]" for key in keys]
    columns = [name for head in headings for name in (head, *(f"{head} {more}" for more in _FURTHER))]
    writer.writerow(["model", "about", *columns, "published"])
    for entry in entries:
        lines = [entry.line(key) or {} for key in keys]
        cells = [line.get(name) for line in lines for name in ("value", *_FURTHER)]  # None becomes an empty cell
        writer.writerow([entry.title, entry.about, *cells, entry.published(entry.lines)])
    return text.getvalue()


def _shown(line: Line) -> str:
    """A score with the digits that its error makes significant, and the chance beside it."""
    error = line["error"]
    if error:
        places = max(1 - math.floor(math.log10(error)), 0)
        text = f"{line['value']:.{places}f} ± {error:.{places}f}"
    else:
        text = number(line["value"])
    return text if line.get("chance") is None else f"{text} (chance {line['chance']:.2g})"


class Row(NamedTuple):
    """One score of all models.

    Attributes:
        score: label of the score.
        protocol: name and hash of its protocol.
        cells: the score of each model as text.
        published: published numbers beside it.
    """

    score: str
    protocol: str
    cells: list[str]
    published: str


def _rows(entries: Sequence[Entry]) -> list[Row]:
    """A row for each score and a cell for each model: there are more scores than models."""
    rows = []
    for key in _keys(entries):
        lines = [entry.line(key) for entry in entries]
        pairs = [(entry, line) for entry, line in zip(entries, lines, strict=True) if line is not None]
        known = [f"{entry.title}: {text}" for entry, line in pairs if (text := entry.published([line]))]
        differ = len({line["images"] for _, line in pairs}) > 1  # as of photographs, which limits what they tell
        cells = [_NONE if x is None else _shown(x) + (f", {x['images']} images" if differ else "") for x in lines]
        rows.append(Row(key.label, f"{key.protocol} {key.hash}", cells, "; ".join(known) or _NONE))
    return rows


def as_markdown(entries: Sequence[Entry]) -> str:
    """The table with a row for each score, with significant digits; below it what limits scores."""
    titles, abouts = ([getattr(entry, name) for entry in entries] for name in ("title", "about"))
    table = [["score", "protocol", *titles, "published"], ["---"] * (len(entries) + 3), ["", "", *abouts, ""]]
    table += [[row.score, row.protocol, *row.cells, row.published] for row in _rows(entries)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in table]
    notes = [f"- {label}, {title}: {note}\n" for label, title, note in _notes(entries)]
    folded = ["\n<details><summary>Notes</summary>\n\n", *notes, "\n</details>\n"] if notes else []
    return "".join([*lines, *folded])


def _notes(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Each bias or limit of a score in words, after label and model."""
    return list(dict.fromkeys((x["label"], e.title, x["note"]) for e in entries for x in e.lines if x["note"]))


def as_text(entries: Sequence[Entry]) -> str:
    """The table for a terminal: a row for each score, a column for each model."""
    table = [["score", *(entry.title for entry in entries)]]
    table += [[f"{row.score} [{row.protocol}]", *row.cells] for row in _rows(entries)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
    return "".join(f"{row.rstrip()}\n" for row in rows)


def as_page(entries: Sequence[Entry], captions: Sequence[str], protocols: Sequence[Protocol]) -> str:
    """The page: the table, samples side by side, published numbers, and what each protocol is.

    It is one file of HTML without scripts, which loads nothing but the files of ``Entry.strips``.
    """
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["with_error"] = _with_error
    keys = dict.fromkeys(entry.key for entry in entries if entry.key)
    return page.get_template("board.html.jinja").render(
        entries=entries,
        rows=_rows(entries),
        notes=_notes(entries),
        captions=captions,
        drawn=[entry for entry in entries if entry.strips],
        published=[row for key in keys for row in published(key)],
        marks=MARKS,
        protocols=protocols,
    )
