"""The reader of drawn flowers against what was drawn, captions against their phrasings, and the accuracies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from t2i_zoo.data.drawing import CENTRE_COLOURS, Flower, draw_flower
from t2i_zoo.data.synthetic import COUNT_WORDS, PHRASINGS, PLACES, _flowers
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.draws import draw_captions
from t2i_zoo.metrics.flowers.agreement import Agreement
from t2i_zoo.metrics.flowers.drawn_captions import read_caption
from t2i_zoo.metrics.flowers.reader import ATTRIBUTES, read_flowers


@pytest.fixture(scope="module")
def drawn():
    """120 flowers at 96 px and what they show."""
    flowers = [flower for _, flower in _flowers(120, 11)]
    pixels = [draw_flower(f, 96, np.random.default_rng([11, n]))[0] for n, f in enumerate(flowers)]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
    truth = {
        name: torch.tensor([values.index(getattr(f, name)) for f in flowers]) for name, values in ATTRIBUTES.items()
    }
    return images, truth


@pytest.mark.parametrize(("side", "least"), [(96, 0.99), (64, 0.99), (32, 0.95)])
def test_the_reader_is_right(drawn, side, least):
    images, truth = drawn
    images = torch.nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    found = read_flowers(images)
    for name, values in truth.items():
        assert (found[name] == values).float().mean() >= least, name


def test_the_reader_survives_noise_and_grey(drawn):
    images, truth = drawn
    noisy = (images + 0.1 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert (read_flowers(noisy)["background"] == truth["background"]).float().mean() > 0.95
    for value in (-1.0, 0.0, 1.0):  # nothing to see is no error
        found = read_flowers(torch.full((2, 3, 64, 64), value))
        assert all(0 <= int(v) < len(ATTRIBUTES[name]) for name, values in found.items() for v in values)


@pytest.mark.parametrize("phrasing", PHRASINGS)
def test_captions_say_what_they_name(phrasing):
    for number, (colour, place) in enumerate(zip(ATTRIBUTES["petal_colour"], list(PLACES) * 2, strict=True)):
        centre = [c for c in CENTRE_COLOURS if c != colour][number % 3]
        count = ATTRIBUTES["petal_count"][number % 5]
        words = {"colour": colour, "count": COUNT_WORDS[count], "shape": "round", "centre": centre}
        found = read_caption(phrasing.format(**words, place=PLACES[place]))
        named = {"petal_colour": colour}
        named |= {"petal_count": count} if "{count}" in phrasing else {}
        named |= {"centre_colour": centre} if "{centre}" in phrasing else {}
        named |= {"background": place} if "{place}" in phrasing else {}
        assert {name: ATTRIBUTES[name][value] for name, value in found.items()} == named


def test_other_captions_name_nothing():
    for caption in ("two dogs on a green lawn", "", "this flower is red", "a red flower with five petals and a stem"):
        assert read_caption(caption) == {}
    assert read_caption("an orange blossom on the sand") == {"petal_colour": 1, "background": 3}


def test_drawn_images_agree_with_their_captions(flowers, make_job):
    rows = flowers.split("train")[1]
    draws = draw_captions(flowers, rows, len(rows), 0)
    metric = Agreement(make_job(len(rows), draws=draws))
    pixels = torch.stack([torch.from_numpy(flowers.store.image(int(row)).copy()) for row in draws.rows])
    images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    metric.update(images, flowers.sentences(draws.captions))
    scores = {score.metric: score for score in metric.compute()}
    assert set(scores) == {f"agreement.{name}" for name in ATTRIBUTES}
    assert scores["agreement.background"].value > 0.95  # of images of 19 px
    assert scores["agreement.petal_colour"].value > 0.8
    assert all(score.chance < 0.5 for score in scores.values())


def test_accuracy_and_chance_by_hand(make_job):
    flower = Flower("red", 5, "round", "yellow", "dark")
    image = torch.from_numpy(draw_flower(flower, 96, np.random.default_rng(0))[0]).permute(2, 0, 1) / 127.5 - 1
    metric = Agreement(make_job(4))
    captions = [
        "a red blossom on a dark background",
        "the petals of this flower are blue and round",
        "a single red flower with five petals",
    ]
    metric.update(image.expand(3, -1, -1, -1), captions)
    found = {score.metric: score for score in metric.compute()}
    assert set(found) == {"agreement.petal_colour", "agreement.petal_count", "agreement.background"}  # no centre named
    colour = found["agreement.petal_colour"]
    assert (colour.value, colour.chance) == (pytest.approx(2 / 3), pytest.approx(2 / 3))  # all show red, 2 of 3 say so
    assert colour.note == "3 captions name it"
    assert found["agreement.background"].value == found["agreement.petal_count"].value == 1.0


def test_refusals(make_job, flowers, monkeypatch):
    other = "this flower has red petals and a yellow stamen"  # names a colour, but nobody drew it
    monkeypatch.setattr(flowers.store, "captions", [*flowers.captions[:-300], *[other] * 300])
    with pytest.raises(T2IError, match="found the caption 'this flower has red petals and a yellow stamen', expected"):
        Agreement(make_job(56))
