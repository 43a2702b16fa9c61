"""What was noticed while a source was read: remarks, counted by kind, and how its layout and splits were understood."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_SHOWN = 5  # places that an error or a remark names


class Notes:
    """Remarks and facts about a source.

    Attributes:
        facts: what was understood, by its title, such as ``{"splits": "by the column 'split'"}``.
    """

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self._remarks: dict[str, tuple[int, str]] = {}

    def add(self, remark: str, example: str) -> None:
        """Count a remark of a kind; its first example is kept."""
        count, first = self._remarks.get(remark, (0, example))
        self._remarks[remark] = count + 1, first

    def remarks(self) -> list[str]:
        """One line for each kind of remark."""
        return [
            f"{remark}: {first}" if count == 1 else f"{remark}: {count:,} of them, such as {first}"
            for remark, (count, first) in self._remarks.items()
        ]


_CURRENT: ContextVar[Notes | None] = ContextVar("notes of the source that is being read", default=None)


@contextmanager
def collecting() -> Iterator[Notes]:
    """Collect what ``remark`` and ``understood`` are told meanwhile, however deep in the readers."""
    token = _CURRENT.set(notes := Notes())
    try:
        yield notes
    finally:
        _CURRENT.reset(token)


def remark(what: str, example: object) -> None:
    """Say something about the data that does not stop the reading; equal remarks are counted."""
    if notes := _CURRENT.get():
        notes.add(what, str(example))


def understood(title: str, how: str) -> None:
    """Say how a part of the data was understood, such as its layout."""
    if notes := _CURRENT.get():
        notes.facts[title] = how


def counted(count: int, noun: str) -> str:
    """A number of things, such as ``1 image`` or ``2 processes``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith("s") else "s")


def by_number(count: int, one: str, several: str) -> str:
    """The form of a verb for this number of things."""
    return one if count == 1 else several


def some(places: Sequence[str], count: int | None = None) -> str:
    """The first five of ``count`` places, and the number of the others, for one sentence."""
    rest = (len(places) if count is None else count) - _SHOWN
    return "; ".join(places[:_SHOWN]) + (f"; and {rest:,} more" if rest > 0 else "")
