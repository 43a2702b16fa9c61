"""Words and their numbers as in AttnGAN and its descendants, for encoders and captioners."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from t2i_zoo.text.tokens import split_formerly, words_of

END = 0  #: number of ``<end>``, which is also the padding
END_WORD = "<end>"

_ASCII_WORD = re.compile(r"\w+")
_INSIDE = re.compile("['-]")


def plain_tokens(caption: str, former: bool = False) -> list[str]:
    r"""Lower-case runs of letters, digits and underscores, the authors' ``\w+``, in order.

    Hyphens and apostrophes separate words. Outside ASCII, combining marks stay with their letters, while the authors'
    code would split at such characters and remove them; ``Words.number`` looks up both forms. ``former`` is that of
    ``words_of``.
    """
    if caption.isascii():
        return _ASCII_WORD.findall(caption.lower())
    return [part for word in words_of(caption, former) for part in _INSIDE.split(word)]


class Words:
    """Known words, numbered from 1; 0 is ``<end>``. Captions are split as these words once were.

    Args:
        words: each once; ``words[0]`` has the number 1.
    """

    def __init__(self, words: Iterable[str] = ()) -> None:
        self.words = list(words)
        self._former = split_formerly(frozenset(self.words))
        self._numbers = {word: number for number, word in enumerate(self.words, 1)}

    @classmethod
    def of_captions(cls, captions: Iterable[str], limit: int | None = None) -> Words:
        """The words of some captions, the most frequent first, equally frequent ones in alphabetical order.

        Args:
            captions: any number of texts.
            limit: the largest number of table rows, including ``<end>``; by default all words are kept.
        """
        counts = Counter(token for caption in captions for token in plain_tokens(caption))
        found = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(found if limit is None else found[: limit - 1])

    def __len__(self) -> int:
        """Rows of a word table: the known words and ``<end>``."""
        return 1 + len(self.words)

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
        return [n for token in plain_tokens(caption, self._former) if (n := self.number(token)) is not None] or [END]

    def known(self, caption: str) -> list[str]:
        """The words of a caption as they are known, one for each of ``numbers``."""
        return [END_WORD if n == END else self.words[n - 1] for n in self.numbers(caption)]

    def unknown(self, caption: str) -> list[str]:
        """The words of a caption that ``numbers`` leaves out."""
        return [token for token in plain_tokens(caption, self._former) if self.number(token) is None]


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
