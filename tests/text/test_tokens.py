import sys

import pytest

from t2i_zoo.text import words_of
from t2i_zoo.text.tokens import names_of, split_formerly
from t2i_zoo.text.vocabulary import Words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        (
            "This flower has Red petals, and 5 stamens.",
            ["this", "flower", "has", "red", "petals", "and", "5", "stamens"],
        ),
        (
            "a bird's-eye view -- 'quoted' rock-'n'-roll",
            ["a", "bird's-eye", "view", "quoted", "rock", "n", "roll"],
        ),
        ("the flower\u2019s blue\u2010green", ["the", "flower's", "blue-green"]),
        ("snake_case", ["snake", "case"]),
        ("\uff32\uff25\uff24 \ufb01ve", ["red", "five"]),
        ("cafe\u0301 caf\u00e9", ["caf\u00e9", "caf\u00e9"]),
        ("a \u2764\ufe0f \U0001f33a flower", ["a", "flower"]),
        (
            "\u7ea2\u8272\u7684\u82b1\uff0c\u9ec4\u8272\u4e2d\u5fc3",
            list("\u7ea2\u8272\u7684\u82b1\u9ec4\u8272\u4e2d\u5fc3"),
        ),
        ("iPhone\u624b\u673a \u306f\u306a \u30ab\u30fc", ["iphone", *"\u624b\u673a\u306f\u306a\u30ab\u30fc"]),
        ("\u845b\U000e0100\u4ed6", ["\u845b\U000e0100", "\u4ed6"]),
        ("\ud55c\uad6d\uc5b4 \uaf43", ["\ud55c\uad6d\uc5b4", "\uaf43"]),
        ("STRASSE Stra\u00dfe", ["strasse", "strasse"]),
        ("\u0932\u093e\u0932 \u092b\u0942\u0932", ["\u0932\u093e\u0932", "\u092b\u0942\u0932"]),
        ("", []),
        (" \t\n... \U0001f33a \ud800", []),
    ],
)
def test_words(caption, words):
    assert words_of(caption) == words


def test_words_are_split_the_same_a_second_time():
    """What ``split_formerly`` relies on, for every character: a vocabulary of today is never taken for a former one."""
    found = {word for number in range(sys.maxunicode + 1) for word in words_of(chr(number))}
    assert len(found) > 100_000
    assert not split_formerly(frozenset(found))


@pytest.mark.parametrize("word", ["\u7ea2\u8272", "stra\u00dfe", "\u03c3\u03b1\u03c2"])
def test_a_vocabulary_tells_how_it_was_split(word):
    assert words_of(word, former=True) == [word]
    assert split_formerly(frozenset(["red", word]))
    assert not split_formerly(frozenset(["red", *words_of(word)]))
    assert Words(["red", word]).numbers(f"a red {word}") == [1, 2]
    assert Words(["red", *words_of(word)]).unknown(f"a red {word}") == ["a"]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("\U0001f338 !", ["cherry", "blossom", "exclamation", "mark"]),
        ("\U0001f9d1\u200d\U0001f33e\ufe0f", ["adult", "ear", "of", "rice"]),
        ("\U000323b0", ["u323b0"]),  # assigned to nothing
        ("\u200d \x07\n", []),
    ],
)
def test_names(caption, words):
    assert names_of(caption) == words
