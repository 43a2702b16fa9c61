"""Which petal colour a caption names, against labels by hand; none if it names none or several."""

from __future__ import annotations

import pytest

from t2i_zoo.metrics.flowers.colour_captions import COLOURS, petal_colour
from t2i_zoo.metrics.flowers.colour_reader import colour_of_captions

LABELLED = {
    "white": [
        "this flower has broad white petals and a yellow center",
        "the petals of this flower are white with a short green pistil",
        "this flower has petals that are white and has purple stamens",
        "a white flower with rounded petals and many orange anthers",
        "the flower is white in color with petals that overlap",
        "white flower",
        "its petals are white and yellow stamen grow from the middle",
        "this bloom has off white petals and dark leaves",
    ],
    "yellow": [
        "this flower is yellow in color with petals that are oval and smooth",
        "the petals are a bright yellow with brown spots near the throat",
        "many thin yellow petals surround a large brown disc",
        "this flower has bright golden petals and a green stem",
        "the petals have a yellow coloring with red dots",
        "a small flower with lemon petals",
        "the petals are layered and are light yellow in color",
    ],
    "orange": [
        "the flower shown has dark orange petals and black stamen",
        "this flower has petals that are orange with red lines",
        "a bright orange flower with six large petals",
        "THE PETALS ARE ORANGE",
        "the petals on this flower are curled and orange",
    ],
    "red": [
        "this flower has red petals with white edges",
        "the flower has petals that are dark red and very soft",
        "a scarlet flower with a green stem",
        "this is a red flower with yellow pollen",
        "a flower with one long red petal and a white pistil",
        "the ruffled petals are bright red and the stamen are long with golden anthers",
    ],
    "pink": [
        "this flower has pink petals and a yellow center",
        "the petals of the flower are light pink in color and have dark green leaves",
        "this flower has large wide pink petals as its main feature",
        "numerous long petals in a light shade of pink",
        "this pale pink flower has a lot of small petals",
        "pink pedals and a yellow pistil",
        "a flower with green sepals and long pink petals",
        "a flower with a red center and a pink petal",
        "a flower with a yellow center and folded pink petals",
        "there are thin pink petals with white filament",
    ],
    "purple": [
        "this flower has petals that are purple with white stamen",
        "a lavender flower with many petals",
        "the petals on this flower are violet in color",
        "this flower has lilac petals and an orange stigma",
        "these flowers have petals of mauve and yellow anthers",
        "a purple in color flower with large petals",
        "this flower has purple petals which turn white near the stem",
        "layers of dark purple petals around a short pistil",
        "several petals in different shades of purple",
    ],
    "blue": [
        "the pistil is white and the petals are blue",
        "this flower is bright blue in color and has petals bent backwards",
        "a light blue flower with small petals",
        "the flower has blue petals and some leaves are red",
    ],
    None: [
        "this flower is pink and white in color with petals that are striped",
        "the petals of this flower are white and yellow with a short stigma",
        "a yellow flower with red petals",
        "these flowers have a red and a white petal",
        "this flower has purple and white petals",
        "a flower with round petals and a large yellow stamen",
        "this flower has many petals and no visible stigma",
        "the petals of this flower are green with a long stigma",
        "peach colored petals surround the center",
        "the stamen is yellow and the leaves are red",
        "a boat on a blue lake",
        "the flower has petals and a pink center",
        "this flower has petals with white spots",
        "a flower with multi colored petals",
        "",
        "...",
        "rotes Boot",
    ],
}


@pytest.mark.parametrize(("colour", "caption"), [(k, caption) for k, some in LABELLED.items() for caption in some])
def test_what_a_caption_names(colour, caption):
    assert petal_colour(caption) == colour


def test_every_colour_is_labelled():
    assert set(LABELLED) == {*COLOURS, None}
    assert sum(map(len, LABELLED.values())) >= 40


@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_said_of_other_parts_is_not_said_of_petals(colour):
    for part in ("stamen", "center", "pistil", "anther", "stigma", "sepals", "leaves", "spots", "edges"):
        assert petal_colour(f"this flower has round petals and a {colour} {part}") is None
        assert petal_colour(f"this flower has white petals and a {colour} {part}") == "white"
        assert petal_colour(f"the {part} is {colour} and the petals are white") == "white"


def test_the_majority_of_a_photographs_captions():
    red, pink, none = "a red flower", "this flower has pink petals", "this flower has petals"
    assert colour_of_captions([red, none, none]) == COLOURS.index("red")
    assert colour_of_captions([red, pink, red]) == COLOURS.index("red")
    assert colour_of_captions([red, pink]) is None  # they disagree
    assert colour_of_captions([none]) is colour_of_captions([]) is None
