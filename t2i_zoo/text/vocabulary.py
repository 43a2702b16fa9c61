"""Words and their numbers as in AttnGAN and its descendants, for encoders and captioners."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from t2i_zoo.text.tokens import MARK, by_character, normalized, split_formerly

END = 0  #: number of ``<end>``, which is also the padding
END_WORD = "<end>"

_RUN = re.compile(r"\w+")
_RUN_WITH_MARKS = re.compile(rf"\w(?:\w|{MARK})*")


def plain_tokens(caption: str, former: bool = False) -> list[str]:
    r"""Lower-case runs of letters, digits and underscores, the authors' ``\w+``, in order.

    Hyphens and apostrophes separate words. Outside ASCII, the text is NFKC-normalized and combining marks stay with
    their letters, while the authors' code splits at marks and removes all that is not ASCII; ``Words.number`` looks up
    both forms, and ``authors_tokens`` does as they do. ``former`` is that of ``words_of``.
    """
    text, shadow = normalized(caption, former)
    found = [text[match.start() : match.end()] for match in _RUN_WITH_MARKS.finditer(shadow)]
    return found if former else by_character(found)


def authors_tokens(caption: str) -> list[tuple[str, str]]:
    """Words as AttnGAN's code splits them: each as it is written, and its ASCII characters, which may be none."""
    return [(word, word.encode("ascii", "ignore").decode()) for word in _RUN.findall(caption.lower())]


class Words:
    """Known words, numbered from 1; 0 is ``<end>``. Captions are split as these words once were.

    Args:
        words: each once; ``words[0]`` has the number 1.
        ascii_only: split captions as the authors do, and know only the ASCII characters of a word, as published
            vocabularies need; by default as ``plain_tokens``.
    """

    def __init__(self, words: Iterable[str] = (), ascii_only: bool = False) -> None:
        self.words, self.ascii_only = list(words), ascii_only
        self._former = split_formerly(frozenset(self.words))
        self._numbers = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def of_captions(cls, captions: Iterable[str], limit: int | None = None, ascii_only: bool = False) -> Words:
        """The words of some captions, the most frequent first, equally frequent ones in alphabetical order.

        Args:
            captions: any number of texts.
            limit: the largest number of table rows, including ``<end>``; by default all words are kept.
            ascii_only: as in ``Words``.
        """
        split = cls(ascii_only=ascii_only).tokens
        counts = Counter(token for caption in captions for token in split(caption))
        found = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(found if limit is None else found[: limit - 1], ascii_only)

    def __len__(self) -> int:
        """Rows of a word table: the known words and ``<end>``."""
        return 1 + len(self.words)

    def tokens(self, caption: str) -> list[str]:
        """The words of a caption, known or not."""
        return [word for _, word in self._split(caption) if word]

    def _split(self, caption: str) -> list[tuple[str, str]]:
        """The words of a caption: as they are written, and as they are looked up."""
        if self.ascii_only:
            return authors_tokens(caption)
        return [(word, word) for word in plain_tokens(caption, self._former)]

    def number(self, word: str) -> int | None:
        """The number of a word, or of its ASCII characters; None if neither is known."""
        found = self._numbers.get(word)
        if found is None and not word.isascii():
            found = self._numbers.get(word.encode("ascii", "ignore").decode())
        return found

    def numbers(self, caption: str) -> list[int]:
        """Numbers of a caption's words; unknown ones are left out, as in the authors' code.

        A caption without any known word becomes ``[END]``; the authors' code fails on it.
        """
        return [n for _, word in self._split(caption) if (n := self.number(word)) is not None] or [END]

    def known(self, caption: str) -> list[str]:
        """The words of a caption as they are known, one for each of ``numbers``."""
        return [END_WORD if n == END else self.words[n - 1] for n in self.numbers(caption)]

    def unknown(self, caption: str) -> list[str]:
        """The words of a caption that ``numbers`` leaves out."""
        return [written for written, word in self._split(caption) if self.number(word) is None]


def random_subset(row: Sequence[int], limit: int) -> list[int]:
    """A random choice of ``limit`` words of a longer row, in their order, as in the authors' training.

    Draws from torch's global random state, which a resumed run continues.
    """
    if len(row) <= limit:
        return list(row)
    return [row[i] for i in torch.randperm(len(row))[:limit].sort().values.tolist()]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of word numbers as one table (B, T) int64, padded with ``END`` (0), and their lengths (B,) int64."""
    lengths = [len(row) for row in rows]
    longest = max(lengths, default=0)
    table = [[*row, *[END] * (longest - len(row))] for row in rows]
    return torch.tensor(table, dtype=torch.int64).view(len(rows), longest), torch.tensor(lengths, dtype=torch.int64)
