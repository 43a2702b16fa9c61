"""The errors that users see: single sentences that say what was found, what was expected and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

LOST = (  #: said by a process whose fellow was killed
    "another process of this run has ended or cannot be reached, so this one ends too: repeat the command with "
    "--ckpt_path last, which goes on from the last checkpoint"
)


class T2IError(Exception):
    """A mistake that the user can mend; the command line prints its sentence without a traceback and exits with 2."""


class MistakesError(T2IError):
    """Several mistakes in one data set; the text is the first, and ``sentences`` has all."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = list(sentences)
        super().__init__(f"{sentences[0]} (and {len(sentences) - 1} more, which t2i-zoo prepare lists)")


class Noted:
    """Gathers the mistakes of rows, files or images, so that one reading finds all of them."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    @contextmanager
    def one(self) -> Iterator[None]:
        """Note the mistake of one row or file and go on."""
        try:
            yield
        except T2IError as error:
            self.sentences.append(str(error))

    def check(self) -> None:
        """Raise if anything was noted."""
        if len(self.sentences) > 1:
            raise MistakesError(self.sentences)
        if self.sentences:
            raise T2IError(self.sentences[0])
