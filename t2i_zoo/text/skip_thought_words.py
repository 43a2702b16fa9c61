"""Sentences to word numbers for skip-thought vectors: tokens as in the Penn Treebank, and a vocabulary."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

PADDING, UNKNOWN, END = 0, 1, 2
SPECIAL = ("", "UNK", "<eos>")  #: the words of these three numbers, as the authors' tables call them

_PUNCTUATION = re.escape("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_PLAIN = f"[^\\s{_PUNCTUATION}]+"
_SUFFIX = re.compile(r"(?<=\w)(n't|'(?:s|ll|re|ve|d|m))(?!\w)")
_WORD = rf"{_PLAIN}(?:[-']{_PLAIN}|[.,](?=\d){_PLAIN})*"
_TOKEN = re.compile(rf"n't(?!\w)|'(?:s|ll|re|ve|d|m)(?!\w)|{_WORD}|``|''|\.\.\.|\S")
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"', "\u2010": "-"})


def tokens_of(caption: str) -> list[str]:
    """Words and punctuation marks of a caption, in lower case.

    The authors use NLTK's word_tokenize; this follows its rules for what captions contain: marks are separate tokens,
    ``don't`` is ``do n't``, ``bird's`` is ``bird 's``, hyphens stay inside words, quotes become `````` and ``''``.

    Args:
        caption: any text.

    Returns:
        The tokens, an empty list if the caption is blank.
    """
    text = caption.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", caption.translate(_QUOTES)).lower()
    if text.replace(" ", "").isalpha():  # most captions have no marks
        return text.split()
    if '"' in text:
        text = re.sub(r'(^|[\s(\[{<])"', r"\1`` ", text).replace('"', " '' ")
    return _TOKEN.findall(_SUFFIX.sub(r" \1", text))


def is_word(token: str) -> bool:
    """Whether a token has a letter or a digit and so is not a punctuation mark."""
    return any(char.isalnum() for char in token)


def count_words(captions: Iterable[str]) -> list[str]:
    """All distinct tokens of some captions, the most frequent first, equally frequent ones in alphabetical order."""
    counts = Counter(token for caption in captions for token in tokens_of(caption))
    return sorted(counts, key=lambda word: (-counts[word], word))


class Vocabulary:
    """Words with their numbers, which start after those of ``SPECIAL``.

    Args:
        words: known words, each once; ``words[0]`` has the number 3.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._numbers = {word: number for number, word in enumerate(self.words, len(SPECIAL))}

    def __len__(self) -> int:
        """Rows of a word table: the known words and the three special ones."""
        return len(SPECIAL) + len(self.words)

    def __contains__(self, word: str) -> bool:
        """Whether the word is known."""
        return word in self._numbers

    def number(self, word: str) -> int:
        """The number of a word, ``UNKNOWN`` if it is not known."""
        return self._numbers.get(word, UNKNOWN)

    def name(self, number: int) -> str:
        """The word of a number."""
        return SPECIAL[number] if number < len(SPECIAL) else self.words[number - len(SPECIAL)]

    def numbers(self, caption: str, limit: int, end: bool) -> list[int]:
        """Numbers of the first ``limit`` tokens, unknown words as ``UNKNOWN``, followed by ``END`` if ``end`` is true.

        Unknown marks are left out: a full stop at the end of a caption means nothing to a vocabulary without it.
        """
        known = [t for t in tokens_of(caption) if t in self._numbers or is_word(t)]
        row = [self.number(token) for token in known[:limit]] or [UNKNOWN]
        return [*row, END] if end else row
