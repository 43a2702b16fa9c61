import pytest

from t2i_zoo.text import words_of


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
            ["\u7ea2\u8272\u7684\u82b1", "\u9ec4\u8272\u4e2d\u5fc3"],
        ),
        ("\u0932\u093e\u0932 \u092b\u0942\u0932", ["\u0932\u093e\u0932", "\u092b\u0942\u0932"]),
        ("", []),
        (" \t\n... \U0001f33a \ud800", []),
    ],
)
def test_words(caption, words):
    assert words_of(caption) == words
