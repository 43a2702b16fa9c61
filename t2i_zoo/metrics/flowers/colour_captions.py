"""The petal colour that an English caption of a flower names, by rule: of the petals, or of the whole flower.

Written for the style of Reed et al.'s captions of Oxford-102. A caption that names none of the seven colours for
petals, or several colours of any kind, counts as naming none: what such an image should show is a matter of taste.
"""

from __future__ import annotations

import re

#: the colours, in the order of the numbers that ``ColourReader`` returns
COLOURS = ("white", "yellow", "orange", "red", "pink", "purple", "blue")

_OTHER = "other"  # any other colour: a caption that names it for petals counts as naming several
_NAMES = {
    "white": "white whitish ivory",
    "yellow": "yellow yellowish golden gold lemon",
    "orange": "orange orangish",
    "red": "red reddish scarlet crimson",
    "pink": "pink pinkish fuchsia",
    "purple": "purple purplish violet lavender lilac mauve",
    "blue": "blue bluish",
    _OTHER: "green greenish brown brownish black gray grey peach cream beige maroon magenta burgundy tan salmon coral "
    "multicolored multicolor",
}
_WORDS = {word: colour for colour, words in _NAMES.items() for word in words.split()}


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PETALS = _set("petal petals pedal pedals peddles petaled petalled")
_FLOWER = _set("flower flowers blossom blossoms bloom blooms floret florets")
_PARTS = _set(  # of a flower or a pattern: what is said of these is not said of petals
    "stamen stamens steman pistil pistils anther anthers stigma stigmas center centers centre centres middle filament "
    "filaments style styles pollen ovary ovaries carpel tube tubes sepal sepals pedicel pedicels pedicle leaf leaves "
    "stem stems receptacle receptacles bud buds spot spots dot dots speck specks speckles line lines vein veins stripe "
    "stripes streak streaks edge edges edging tip tips accent accents accented patch patches marking markings "
    "highlights hue hues fringe rim border base bottom top inside interior outside throat disc disk cone core bulb "
    "hair hairs bract bracts spadix dust background foliage grass end ends pod seeds part parts portion"
)
_LINKS = _set("is are was were has have s")  # s as in "the flower's white in color"
_STOPS = _LINKS | _set(  # words that end what is said of one thing
    "with of the a an this that these those which who it its in on at by from for to into surrounding surrounded "
    "around as but while where there than having showing shown features"
)
_JOINS = _set("and or to")
_BETWEEN = _set("of in on from this that the these those which flower flowers blossom")  # noun and verb
_SHADES = _set(
    "shade shades of varying various different color colors colour colours coloring a an the light dark bright pale "
    "deep soft vivid hues tones tone hue"
)


def petal_colour(caption: str) -> str | None:
    """The one of ``COLOURS`` that a caption names for the petals or for the flower; None for none or several."""
    text = caption.lower().replace("multi colored", "multicolored").replace("off white", "white")
    words = re.findall(r"[a-z]+", text)
    found: set[str] = set()
    for place, word in enumerate(words):
        if word in _PETALS or word in _FLOWER:
            found |= _before(words, place)
            found |= _behind(words, place)
    return found.pop() if len(found) == 1 and _OTHER not in found else None


def _before(words: list[str], place: int) -> set[str]:
    """Colours among the adjectives before a noun: ``purple and white ruffled petals``."""
    found: set[str] = set()
    for i in range(place - 1, max(place - 9, -1), -1):
        word, former = words[i], words[i - 1] if i else ""
        if word in _WORDS:
            found.add(_WORDS[word])
        elif (word == "in" and re.fullmatch("colou?r", words[i + 1])) or (word == "a" and former in _JOINS):
            continue  # a purple in color flower; a red and a white petal
        elif word in _STOPS | _PARTS | _PETALS | _FLOWER or (word in _JOINS and former in _PARTS | _PETALS):
            break
    return found


def _behind(words: list[str], place: int) -> set[str]:
    """Colours that follow a noun: ``petals of this flower are dark purple and white``."""
    i = place + 1
    if words[place] in _PETALS and words[i : i + 1] in (["of"], ["in"]):  # petals of lavender and white
        j = next((j for j in range(i + 1, len(words)) if words[j] not in _SHADES), len(words))
        if j < len(words) and words[j] in _WORDS:
            return _list(words, j)
    while i < min(len(words), place + 7) and words[i] in _BETWEEN:  # petals on this flower that ...
        i += 1
    if i == len(words) or words[i] not in _LINKS:
        return set()
    if words[i] not in ("has", "have"):
        return _list(words, i + 1)
    # petals have a yellow coloring; but a flower has petals, and petals have spots
    end = next((j for j in range(i + 1, min(i + 7, len(words))) if words[j].startswith(("color", "colour"))), i)
    said = words[i + 1 : end]
    return set() if any(word in _PARTS | _PETALS for word in said) else _list(said, 0)


def _list(words: list[str], start: int) -> set[str]:
    """Colours from word ``start`` on, until the caption turns to something else."""
    found: list[str] = []
    since = 0  # colours found before the last "and"
    for i in range(start, len(words)):
        word = words[i]
        if word in _WORDS:
            found.append(_WORDS[word])
        elif word in _JOINS:
            since = len(found)
        elif word in ("a", "an", "in", "very", "shades", "shade", "of") and i < start + 6 and not found:
            continue
        elif word in _PARTS:  # petals are white and yellow stamen
            return set(found[:since])
        elif word in ("is", "are") and words[i - 1] == "and":  # petals are layered and are light pink
            continue
        elif word in _STOPS or word in _PETALS or word in _FLOWER:
            break
    return set(found)
