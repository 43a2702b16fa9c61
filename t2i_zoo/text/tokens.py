"""Plain word tokens, for the hashing encoder and for reports of words that are not in the training captions."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MARK = "\x01"
_WORD = re.compile(rf"[^\W_](?:[^\W_]|{MARK})*(?:['-][^\W_](?:[^\W_]|{MARK})*)*")
_APOSTROPHES_AND_HYPHENS = str.maketrans({"\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"})
# Chinese and Japanese are written without spaces: Han characters with their repetition mark, Hiragana, Katakana
_UNSPACED = re.compile(
    "([\u3005-\u3007\u3041-\u3096\u309d-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]"
    "[\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef]*)"  # voicing marks and variants stay with their character
)
_UNSEEN = re.compile("[ZM]|C[cfs]")  # categories of spaces, marks, control and format characters, surrogates


def normalized(caption: str, former: bool = False) -> tuple[str, str]:
    """A caption in NFKC and case-folded, and a copy of it to search, in which every combining mark is ``MARK``.

    Python's ``\\w`` excludes combining marks and would cut Hindi or Thai words at their vowel signs.
    """
    text = unicodedata.normalize("NFKC", caption.translate(_APOSTROPHES_AND_HYPHENS))
    if text.isascii():
        return text.lower(), text.lower()
    text = text.lower() if former else unicodedata.normalize("NFKC", text.casefold())
    return text, "".join(MARK if unicodedata.category(char)[0] == "M" else char for char in text)


def by_character(words: list[str]) -> list[str]:
    """The words, with those of Chinese and Japanese split into their characters."""
    return [part for word in words for part in ([word] if word.isascii() else _UNSPACED.split(word)) if part]


def words_of(caption: str, former: bool = False) -> list[str]:
    """Split a caption into case-folded words, in order and with repetitions.

    The text is NFKC-normalized first. A word is a run of letters, digits and their combining marks, with single
    apostrophes or hyphens inside (``"bird's-eye"`` is one word), or one character of Chinese or Japanese. Punctuation,
    underscores and emoji separate words.

    Args:
        caption: any text.
        former: split as version 0.1 did: lower case instead of case folding (so ``ß`` is not ``ss``), and a
            run of Chinese or Japanese is one word.

    Returns:
        The words, an empty list if the caption has none.
    """
    text, shadow = normalized(caption, former)
    found = [text[match.start() : match.end()] for match in _WORD.finditer(shadow)]
    return found if former else by_character(found)


@lru_cache(maxsize=8)
def split_formerly(words: frozenset[str]) -> bool:
    """Whether a vocabulary comes from the ``former`` way of splitting, since one of its words would be split now."""
    return any(words_of(word) != [word] == words_of(word, former=True) for word in words if not word.isascii())


def names_of(caption: str) -> list[str]:
    """The words in the Unicode names of a caption's characters, for a caption without a word.

    ``"!"`` is "exclamation mark"; a character that this Python has no name for is its code point, such as "u1fae8".
    """
    visible = [char for char in caption if not _UNSEEN.match(unicodedata.category(char))]
    return [word for char in visible for word in words_of(unicodedata.name(char, f"u{ord(char):x}"))]


def words_or_names(caption: str, former: bool = False) -> list[str]:
    """The words of a caption or, where it has none, of the names of its characters."""
    return words_of(caption, former) or names_of(caption)
