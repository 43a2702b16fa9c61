"""The leaderboard as CSV, Markdown and one static page, from rows that hold scores and files of pictures."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from t2i_zoo.metrics.protocol import Protocol
from t2i_zoo.metrics.published import DATA, MARKS, Published, comparable, published
from t2i_zoo.metrics.records import Line, number

_NONE = "-"
_LONG = 120  # letters
_NUMBER = re.compile(r"-?[\d.e+-]*\d( ± [\d.e+-]+)?( \(chance [\d.e+-]+\))?")
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 120rem; padding: 0 1rem; color: #222 }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
th { font-weight: 600 } td:first-child { min-width: 9rem }
td.n { white-space: nowrap; font-variant-numeric: tabular-nums } img { display: block }
small { color: #666 }
"""


@dataclass
class Entry:
    """One model of the board.

    Attributes:
        title: what the board calls the model.
        about: its size and how long it was trained.
        key: of the model in ``MODELS``, or None.
        source: class name of the data's source.
        lines: its scores.
        strips: for each caption the file of its pictures, from the page's folder.
    """

    title: str
    about: str
    key: str | None
    source: str
    lines: list[Line] = field(default_factory=list)
    strips: dict[str, str] = field(default_factory=dict)

    def published(self, only: Line | None = None) -> list[tuple[Published, str]]:
        """Published numbers of this model for the board's scores (or one) and data, and whether ours compare."""
        data, found = DATA.get(self.source), []
        if self.key is None or data is None:
            return []
        for line in self.lines if only is None else [only]:
            rows = published(self.key, data, line["metric"])
            found += [(row, comparable(row, data, line["network"], line["images"])) for row in rows]
        return found

    def line(self, column: Column) -> Line | None:
        """The score of one column."""
        return next((line for line in self.lines if _column(line) == column), None)


Column = tuple[str, str, str]  #: label, protocol, hash


def _column(line: Line) -> Column:
    return line["label"], line["protocol"], line["protocol_hash"]


def _columns(entries: Sequence[Entry]) -> dict[Column, str]:
    """The columns in their order, with their headings."""
    keys = dict.fromkeys(_column(line) for entry in entries for line in entry.lines)
    return {key: f"{key[0]} [{key[1]} {key[2]}]" for key in keys}


def _value(value: float, error: float | None) -> str:
    return number(value) + ("" if error is None else f" ± {number(error)}")


def _published(entry: Entry, only: Line | None = None) -> str:
    """Published numbers of a model, for one of its scores or for all."""
    return "; ".join(
        f"{row.metric} {_value(row.value, row.error)} ({row.source}; {MARKS[row.read]}). Comparable: {why}"
        for row, why in entry.published(only)
    )


def as_csv(entries: Sequence[Entry]) -> str:
    """Values and errors in columns of their own, with all digits."""
    columns, text = _columns(entries), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    pairs = [name for heading in columns.values() for name in (heading, f"{heading} error")]
    writer.writerow(["model", "about", *pairs, "published"])
    for entry in entries:
        found = [entry.line(column) for column in columns]
        cells = [v for line in found for v in ((None, None) if line is None else (line["value"], line["error"]))]
        writer.writerow([entry.title, entry.about, *("" if v is None else v for v in cells), _published(entry)])
    return text.getvalue()


def _shown(line: Line) -> str:
    """A score with the digits that its error leaves worth reading, and the chance beside it."""
    error = line["error"]
    if error:
        places = max(1 - math.floor(math.log10(error)), 0)
        text = f"{line['value']:.{places}f} ± {error:.{places}f}"
    else:
        text = number(line["value"])
    return text if line.get("chance") is None else f"{text} (chance {line['chance']:.2g})"


def _rows(entries: Sequence[Entry]) -> list[list[str]]:
    """A row for each score and a column for each model: there are more scores than models."""
    rows = [["score", "protocol", *(entry.title for entry in entries), "published"]]
    rows.append(["", "", *(entry.about for entry in entries), ""])
    for column in _columns(entries):
        lines = [entry.line(column) for entry in entries]
        cells = [_NONE if line is None else _shown(line) for line in lines]
        known = [
            f"{entry.title}: {text}"
            for entry, line in zip(entries, lines, strict=True)
            if line is not None and (text := _published(entry, line))
        ]
        rows.append([column[0], f"{column[1]} {column[2]}", *cells, "; ".join(known) or _NONE])
    return rows


def as_markdown(entries: Sequence[Entry]) -> str:
    """The table with the digits that are worth reading."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    head, *body = _rows(entries)
    return line(head) + line(["---"] * len(head)) + "".join(map(line, body))


def _table(rows: Sequence[Sequence[str]], raw: bool = False) -> str:
    """The first row as headings; ``raw`` cells are HTML already."""

    def show(cell: str) -> str:
        return cell if raw else html.escape(cell)

    def cell_of(cell: str) -> str:
        if not raw and len(cell) > _LONG:  # folded, or one cell would make its row as tall as the window
            return f"<td><details><summary>{show(cell[:24])} ...</summary>{show(cell)}</details></td>"
        return f"<td{' class=n' if _NUMBER.fullmatch(cell) else ''}>{show(cell)}</td>"

    head = "".join(f"<th>{show(cell)}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(map(cell_of, row))}</tr>\n" for row in rows[1:])
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}</table></div>\n'


def as_page(entries: Sequence[Entry], captions: Sequence[str], protocols: Sequence[Protocol]) -> str:
    """The page: the table, pictures side by side, published numbers, and what each protocol is."""
    drawn = [entry for entry in entries if entry.strips]
    pictures = [["caption", *(html.escape(entry.title) for entry in drawn)]]
    for caption in captions:
        title = html.escape(caption) or "without text"
        cells = [f'<img src="{e.strips[caption]}" alt="{html.escape(e.title)}: {title}" loading="lazy">' for e in drawn]
        pictures.append([title, *cells])
    known = [["model", "data", "metric", "published", "source", "how it is known", "note"]]
    for key in dict.fromkeys(entry.key for entry in entries if entry.key):
        for row in published(key):
            value = _value(row.value, row.error)
            known.append([row.model, row.data, row.metric, value, row.source, MARKS[row.read], row.note])
    shown = [["protocol", "hash", "what it is", "content"]]
    for protocol in protocols:
        content = ", ".join(f"{name} {value}" for name, value in protocol.content.items() if value is not None)
        shown.append([protocol.name, protocol.hash, protocol.about, content])
    notes = dict.fromkeys(f"{x['label']}, {e.title}: {x['note']}" for e in entries for x in e.lines if x["note"])
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>t2i-zoo leaderboard</title>',
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style></head><body>',
        "<h1>Leaderboard</h1>\n<p>Every number names its protocol; numbers of one row are comparable, "
        "where pictures have the same size.</p>",
        _table(_rows(entries)),
        "<details><summary>Notes</summary>\n<ul>"
        + "".join(f"<li><small>{html.escape(note)}</small></li>\n" for note in notes)
        + "</ul></details>"
        if notes
        else "",
        "<h2>The same captions and noise seeds</h2>\n" + _table(pictures, raw=True) if drawn else "",
        "<h2>Published numbers</h2>\n<p>Of other networks, splits, crops and captions than the table above: none is "
        "comparable with it unless the last column there says so.</p>\n" + _table(known)
        if known[1:]
        else "",
        "<h2>Protocols</h2>\n" + _table(shown),
        "</body></html>\n",
    ]
    return "\n".join(parts)
