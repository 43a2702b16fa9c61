"""What captions of ``SyntheticFlowers`` name, read by the phrasings that they were written with."""

from __future__ import annotations

import re
from collections.abc import Mapping

from t2i_zoo.data.drawing import CENTRE_COLOURS, PETAL_COLOURS, PETAL_SHAPES
from t2i_zoo.data.synthetic import COUNT_WORDS, PHRASINGS, PLACES
from t2i_zoo.metrics.flowers.reader import ATTRIBUTES

_NAMED: dict[str, dict[str, str | int]] = {  # for each attribute, the words in captions and the values they stand for
    "petal_colour": {colour: colour for colour in PETAL_COLOURS},
    "petal_count": {word: count for count, word in COUNT_WORDS.items()},
    "centre_colour": {colour: colour for colour in CENTRE_COLOURS},
    "background": {phrase: background for background, phrase in PLACES.items()},
}
_FIELDS = {"colour": "petal_colour", "count": "petal_count", "centre": "centre_colour", "place": "background"}
_CENTRES = "|".join(CENTRE_COLOURS)
_CENTRE = re.compile(rf"\b(?:{_CENTRES}) (?:centre|middle)\b|\b(?:centre|middle) is (?:{_CENTRES})\b")


def _pattern(phrasing: str) -> re.Pattern[str]:
    """A pattern of the captions of one phrasing, with a group for each attribute that it names."""
    groups = {field: f"(?P<{name}>{'|'.join(_NAMED[name])})" for field, name in _FIELDS.items()}
    return re.compile(phrasing.replace("a {", "an? {").format(**groups, shape=f"(?:{'|'.join(PETAL_SHAPES)})"))


_PATTERNS = [_pattern(phrasing) for phrasing in PHRASINGS]


def read_caption(caption: str) -> Mapping[str, int]:
    """What a caption names: attributes and their indices in ``ATTRIBUTES``; empty for captions of other data."""
    for pattern in _PATTERNS:
        if match := pattern.fullmatch(caption):
            named = match.groupdict().items()
            return {name: ATTRIBUTES[name].index(_NAMED[name][word]) for name, word in named}
    return {}


def named_value(caption: str, attribute: str) -> str | None:
    """The word for the value of one attribute, such as ``petal_colour``, that a caption names; None if none."""
    named = read_caption(caption)
    return str(ATTRIBUTES[attribute][named[attribute]]) if attribute in named else None


def written_petal_colour(text: str) -> str | None:
    """The one petal colour that a text names apart from the centre's; None for none or several.

    Unlike ``read_caption`` it also understands texts of a network that has only half learned the captions' grammar.
    """
    words = re.findall(r"[a-z]+", _CENTRE.sub(" ", text.lower()))
    found = {word for word in words if word in PETAL_COLOURS}
    return found.pop() if len(found) == 1 else None
