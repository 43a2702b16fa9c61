"""Plain word tokens, for the hashing encoder and for reports of words that are not in the training captions."""

from __future__ import annotations

import re
import unicodedata

MARK = "\x01"
_WORD = re.compile(rf"[^\W_](?:[^\W_]|{MARK})*(?:['-][^\W_](?:[^\W_]|{MARK})*)*")
_APOSTROPHES_AND_HYPHENS = str.maketrans({"\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"})


def normalized(caption: str) -> tuple[str, str]:
    """A caption in NFKC and lower case, and a copy of it to search, in which every combining mark is ``MARK``.

    Python's ``\\w`` excludes combining marks and would cut Hindi or Thai words at their vowel signs.
    """
    text = unicodedata.normalize("NFKC", caption.translate(_APOSTROPHES_AND_HYPHENS)).lower()
    if text.isascii():
        return text, text
    return text, "".join(MARK if unicodedata.category(char)[0] == "M" else char for char in text)


def words_of(caption: str) -> list[str]:
    """Split a caption into lower-case words, in order and with repetitions.

    The text is NFKC-normalized first. A word is a run of letters, digits and their combining marks, with single
    apostrophes or hyphens inside (``"bird's-eye"`` is one word). Punctuation, underscores and emoji separate words; a
    run of a script without spaces (Chinese, Japanese) is one word.

    Args:
        caption: any text.

    Returns:
        The words, an empty list if the caption has none.
    """
    text, shadow = normalized(caption)
    return [text[match.start() : match.end()] for match in _WORD.finditer(shadow)]
