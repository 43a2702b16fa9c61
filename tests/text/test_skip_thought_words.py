"""Tokens as in the Penn Treebank, and words with numbers."""

from __future__ import annotations

import pytest

from t2i_zoo.text.skip_thought_words import END, PADDING, UNKNOWN, Vocabulary, count_words, tokens_of
from t2i_zoo.text.vocabulary import padded


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A Red flower, with petals.", "a red flower , with petals ."),
        ("it doesn't have the bird's petals, it's", "it does n't have the bird 's petals , it 's"),
        ("I'm sure they've won't", "i 'm sure they 've wo n't"),
        ("multi-colored o'clock 3.5 1,000", "multi-colored o'clock 3.5 1,000"),
        ("yellow,red and/or (white)", "yellow , red and / or ( white )"),
        ('the "red" one', "the `` red '' one"),
        ("\u201cred\u201d petals\u2019 don\u2019t", "`` red '' petals ' do n't"),
        ("wait... snow_drop", "wait ... snow _ drop"),
        ("हिन्दी फूल!", "हिन्दी फूल !"),
        (" \t\n", ""),
    ],
)
def test_tokens(caption: str, tokens: str) -> None:
    assert tokens_of(caption) == tokens.split()


def test_words_are_counted_and_ties_go_by_the_alphabet() -> None:
    assert count_words(["red flower", "A Red zebra.", "a flower"]) == ["a", "flower", "red", ".", "zebra"]


def test_numbers() -> None:
    words = Vocabulary(["red", "flower"])
    assert len(words) == 5
    assert words.numbers("a red flower", 9, end=True) == [UNKNOWN, 3, 4, END]
    assert words.numbers("red, flower!", 9, end=False) == [3, 4]  # marks that are not known are left out
    assert words.numbers("red flower red", 2, end=True) == [3, 4, END]
    assert words.numbers("!", 2, end=False) == [UNKNOWN]


def test_padding() -> None:
    numbers, lengths = padded([[3, 4], [5]])
    assert numbers.tolist() == [[3, 4], [5, PADDING]]
    assert lengths.tolist() == [2, 1]
