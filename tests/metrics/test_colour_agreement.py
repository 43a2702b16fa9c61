"""The colour reader on blobs and drawn flowers, the share that agrees with captions, and data that have no colours."""

from __future__ import annotations

import json
import math

import pytest
import torch

from t2i_zoo.__main__ import main
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import View
from t2i_zoo.metrics.draws import draw_captions
from t2i_zoo.metrics.flowers.colour_agreement import ColourAgreement
from t2i_zoo.metrics.flowers.colour_captions import COLOURS, petal_colour
from t2i_zoo.metrics.flowers.colour_reader import colour_features, fit_colours, fitted_reader
from t2i_zoo.metrics.protocol import load_protocol
from t2i_zoo.paths import cache_folder

PAINT = torch.tensor(
    [[240, 240, 240], [240, 220, 20], [240, 140, 20], [220, 20, 30], [240, 150, 190], [130, 40, 170], [40, 60, 220]]
)


def blobs(count: int, side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Discs of the seven colours under any light, somewhere on green or brown ground, and which colour each is."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(7, (count,), generator=rng)
    light = 0.7 + 0.3 * torch.rand(count, 1, generator=rng)
    ground = torch.tensor([[30, 90, 30], [90, 60, 30]])[torch.randint(2, (count,), generator=rng)].float()
    place = torch.linspace(-1, 1, side)
    middle, radius = torch.rand(count, 2, 1, generator=rng) * 0.6 - 0.3, 0.4 + 0.3 * torch.rand(count, 1, generator=rng)
    away = (place - middle[:, 0])[:, :, None] ** 2 + (place - middle[:, 1])[:, None, :] ** 2
    inside = (away < radius[:, :, None] ** 2)[:, None]
    paint = (PAINT[labels].float() * light)[:, :, None, None]
    pixels = torch.where(inside, paint, ground[:, :, None, None])
    pixels = pixels + 12 * torch.randn(pixels.shape, generator=rng)
    return (pixels / 127.5 - 1).clamp(-1, 1), labels


@pytest.mark.parametrize("side", [16, 32, 64])
def test_the_reader_fits_and_generalises(side):
    images, labels = blobs(210, side, 0)
    reader = fit_colours(colour_features(images), labels)
    again = fit_colours(colour_features(images), labels)
    assert torch.equal(reader.weights, again.weights)  # the same digits
    others, truth = blobs(140, side, 1)
    assert (reader.read(others) == truth).float().mean() > 0.95
    assert torch.equal(reader.read(others), torch.cat([reader.read(part) for part in others.split(9)]))


def test_colours_that_nobody_has_shown_are_not_read():
    images, labels = blobs(140, 32, 0)
    some = labels < 3
    reader = fit_colours(colour_features(images[some]), labels[some])
    assert int(reader.read(images).max()) < 3
    assert torch.isfinite(reader.weights).all()


def test_features_are_shares():
    images, _ = blobs(6, 32, 0)
    features = colour_features(images)
    shares = features.square().reshape(6, 3, -1).sum(2)
    torch.testing.assert_close(shares, torch.ones(6, 3))  # nothing of an image is lost, also where hue turns over
    torch.testing.assert_close(colour_features(images.flip(3)), features, rtol=0, atol=1e-5)
    flat = torch.cat([torch.full((1, 3, 8, 8), value) for value in (-1.0, 0.0, 1.0)])
    assert torch.isfinite(colour_features(flat)).all()
    reds = torch.tensor([[1.0, -1, -0.999], [1.0, -0.999, -1]])[:, :, None, None].expand(-1, -1, 8, 8)
    first, second = colour_features(reds)
    torch.testing.assert_close(first, second, rtol=0, atol=0.1)  # a step over the end of the circle is a small one


def test_drawn_flowers_agree_with_their_captions(flowers, make_job):
    rows = flowers.split("train")[1]
    draws = draw_captions(flowers, rows, len(rows), 0)
    metric = ColourAgreement(make_job(len(rows), draws=draws))
    metric.see(View(torch.arange(len(rows)), flowers.images(draws.rows), flowers.sentences(draws.captions)))
    first, *others = metric.compute()
    assert first.metric == "colour_agreement.all"
    assert first.value > 0.9  # on the images that it was fitted to
    assert first.chance < 0.5
    assert first.note.endswith(f" of {len(rows)} captions name one colour")
    named = {petal_colour(caption) for caption in flowers.sentences(draws.captions)} - {None}
    assert {score.metric for score in others} == {f"colour_agreement.{colour}" for colour in named}
    assert len(named) > 3


def test_share_and_chance_by_hand(make_job):
    metric = ColourAgreement(make_job(30))
    images, labels = blobs(210, 32, 0)
    metric._reader = fit_colours(colour_features(images), labels)
    images, labels = blobs(60, 32, 2)
    red, blue = (images[labels == COLOURS.index(name)][:1] for name in ("red", "blue"))
    captions = ["a red flower", "the petals are red", "a blue flower", "a blue flower", "this flower has petals"]
    metric.update(torch.cat([red, blue, blue]), captions[:3])
    metric.update(torch.cat([blue, red]), captions[3:])
    metric.update(red[:0], [])
    scores = {score.metric: score for score in metric.compute()}
    assert scores["colour_agreement.all"].value == 0.75
    assert scores["colour_agreement.all"].chance == pytest.approx(0.5 * 0.25 + 0.5 * 0.75)  # 2 of 4 say red, 1 shows it
    assert set(scores) == {"colour_agreement.all", "colour_agreement.red", "colour_agreement.blue"}
    assert scores["colour_agreement.all"].note == "4 of 5 captions name one colour"
    assert (scores["colour_agreement.red"].value, scores["colour_agreement.red"].chance) == (0.5, 0.25)
    assert scores["colour_agreement.red"].error == pytest.approx(math.sqrt(0.5 * 0.5))


def test_the_fit_is_kept(flowers, monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    first = fitted_reader(flowers)
    (path,) = (cache_folder() / "metrics").iterdir()
    written = path.read_bytes()
    assert torch.equal(fitted_reader(flowers).weights, first.weights)
    path.write_bytes(written[:100])  # half a file is fitted again
    assert torch.equal(fitted_reader(flowers).weights, first.weights)
    assert path.read_bytes() == written


def test_refusals(flowers, make_job, monkeypatch, tmp_path):
    with pytest.raises(T2IError, match="found no drawn caption that names one petal colour, expected some: raise"):
        ColourAgreement(make_job(30)).compute()
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    count = len(flowers.captions)
    monkeypatch.setattr(flowers.store, "captions", ["a red flower"] * count)
    with pytest.raises(
        T2IError, match="found 1 petal colours in the captions of the training photographs, expected at"
    ):
        ColourAgreement(make_job(30))
    monkeypatch.setattr(flowers.store, "captions", ["two boats on a lake"] * count)
    with pytest.raises(T2IError, match=r"found no caption among 1 that names one petal colour, .* for other data"):
        ColourAgreement(make_job(30))
    assert not list(tmp_path.rglob("*.npy"))


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data.source", "SyntheticFlowers", "--data.source.images", "72", "--data.source.size", "24"]
    words = ["evaluate", "--ckpt", "real", *data, "--data.image_size", "16", "--protocol", "agreement_colour"]
    for more in ([], ["--batch-size", "2"]):
        assert main([*words, *more]) == 0
    lines = [json.loads(text) for text in (tmp_path / "runs" / "real" / "metrics.jsonl").read_text().splitlines()]
    first, second = (lines[: len(lines) // 2], lines[len(lines) // 2 :])
    assert [line["value"] for line in first] == [line["value"] for line in second]
    assert first[0]["metric"] == "colour_agreement.all"
    assert {line["protocol_hash"] for line in lines} == {load_protocol("agreement_colour").hash}
    assert "agreement of petal colour" in capsys.readouterr().out
