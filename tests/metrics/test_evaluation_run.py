"""Whole evaluations of an untrained generator: repeatable, the same in any batches, and refused before any work."""

from __future__ import annotations

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics import evaluation, references
from t2i_zoo.metrics.draws import draw_captions
from t2i_zoo.metrics.evaluation import evaluate, seeded_noise
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import load_protocol
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.models.stackganpp import StackGANPlusPlus


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    hashing = {"kind": "hashing", "dim": 32}
    widths = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
    return GANCLS(image_size=16, noise_dim=4, text_encoder=hashing, **widths).eval()


@pytest.fixture(scope="module")
def tiny():
    return load_protocol("tiny")


@pytest.fixture
def protocol(tmp_path):
    def make(text):
        path = tmp_path / "own.yaml"
        path.write_text(text)
        return load_protocol(str(path))

    return make


def values(report):
    return {score.metric: score.value for score in report.scores}


def test_twice_the_same_and_in_any_batches(model, tiny, flowers, small):
    first, again = (evaluate(tiny, flowers, model, small, batch_size=16) for _ in range(2))
    assert first.scores == again.scores
    found = values(first)
    assert len(found) == 3 + 4 + 2
    assert all(torch.isfinite(torch.tensor(list(found.values()))))
    assert (first.images, first.split) == (24, "train")
    other = values(evaluate(tiny, flowers, model, small, batch_size=5))
    assert other == pytest.approx(found, rel=1e-4, abs=1e-6)


def test_the_seed_and_the_weights_matter(model, tiny, flowers, small):
    found = values(evaluate(tiny, flowers, model, small))
    assert values(evaluate(tiny.change(seed=1), flowers, model, small)) != found
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.mul_(1.5)
    assert values(evaluate(tiny, flowers, model, small)) == found  # the average is evaluated
    assert values(evaluate(tiny.change(ema=False), flowers, model, small)) != found


def test_photographs_against_photographs(tiny, flowers, small, model):
    report = evaluate(tiny, flowers, None, small)
    found, untrained = values(report), values(evaluate(tiny, flowers, model, small))
    half = len(flowers.split("train")[1]) // 2
    assert report.images == min(half, 24)
    assert report.reference_images == len(flowers.split("train")[1]) - half
    assert "caption_diversity" not in found  # 1 by definition
    assert found["frechet_distance"] < untrained["frechet_distance"]
    assert found["kernel_distance"] < untrained["kernel_distance"]


def test_features_of_photographs_are_kept_and_a_broken_file_is_made_again(flowers, small, monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    rows = flowers.split("test")[1]

    def look():
        return references.photograph_features(flowers, rows, small, torch.device("cpu"), 4)

    first = look()
    assert torch.allclose(first, small.look(flowers.images(rows))[0], atol=1e-5)
    (file,) = (tmp_path / "metrics").iterdir()
    monkeypatch.setattr(Network, "look", None)
    assert torch.equal(look(), first)  # read, not looked at
    monkeypatch.undo()
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path))
    file.write_bytes(file.read_bytes()[:-40])
    assert torch.equal(look(), first)
    assert [p.name for p in (tmp_path / "metrics").iterdir()] == [file.name]
    smaller = Photographs(flowers.store, 12)
    assert not torch.equal(references.photograph_features(smaller, rows, small, torch.device("cpu"), 4), first)
    assert len(list((tmp_path / "metrics").iterdir())) == 2


def test_captions_come_pass_after_pass(flowers):
    rows = flowers.split("train")[1]
    draws = draw_captions(flowers, rows, 2 * len(rows) + 3, 0)
    for part in (draws.rows[: len(rows)], draws.rows[len(rows) : 2 * len(rows)]):
        assert sorted(part.tolist()) == rows.tolist()
    assert (torch.from_numpy(flowers.labels)[draws.rows] == draws.labels).all()
    offsets = torch.from_numpy(flowers.offsets)
    assert ((offsets[draws.rows] <= draws.captions) & (draws.captions < offsets[draws.rows + 1])).all()
    repeated = draw_captions(flowers, rows, 12, 0, repeats=4)
    assert [len(set(group.tolist())) for group in repeated.captions.view(3, 4)] == [1, 1, 1]
    with pytest.raises(T2IError, match="--images 10, expected a multiple of the protocol's 4 images per caption"):
        draw_captions(flowers, rows, 10, 0, repeats=4)


def test_noise_belongs_to_the_picture(model):
    some = seeded_noise(model, [5, 9], 0)
    assert torch.equal(seeded_noise(model, [9, 3], 0)[0], some[1])
    assert not torch.equal(seeded_noise(model, [5, 9], 1), some)
    many = seeded_noise(model, list(range(200)), 0, truncation=0.7)
    assert many.abs().max() < 0.7
    assert many.std() == pytest.approx(0.387, abs=0.03)  # of the normal distribution cut at 0.7


def test_a_size_of_its_own(model, protocol, flowers, small):
    own = "metrics: [frechet_distance]\nnetwork: ask\nreference: train\nimages: 8\nsize: 12"
    smaller = Photographs(flowers.store, 12)
    seen = []
    original = evaluation._look

    def look(*args):
        view = original(*args)
        seen.append(view.images.shape)
        return view

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_look", look)
        evaluate(protocol(own), smaller, model, small)
    assert seen == [(8, 3, 12, 12)]
    with pytest.raises(T2IError, match=r"packed at 19 px, expected 40 px or more: raise --data\.load_size"):
        evaluate(protocol(own), Photographs(flowers.store, 40), model, small)


def test_what_cannot_be_measured_is_refused(model, protocol, flowers, small):
    dual = Network("pictures", "", vision=small.vision)
    unconditional = StackGANPlusPlus(
        image_size=32, noise_dim=4, text_encoder="none", generator_width=8, discriminator_width=4
    )
    plain = Photographs(flowers.store, 16)
    for text, subject, network, message in (
        (
            "metrics: [r_precision]\nnetwork: ask",
            model,
            dual,
            "r_precision reads captions and pictures reads",
        ),
        ("metrics: [prdc]\nnetwork: ask", model, None, "found no network for prdc"),
        ("metrics: [agreement]", unconditional, None, "agreement compares images with captions and this model"),
        ("metrics: [caption_diversity]\nsamples_per_caption: 2", None, None, "caption_diversity for real images"),
        ("metrics: [agreement]\nreference: test\nimages: 0", model, None, "found images 0"),
    ):
        with pytest.raises(T2IError, match=message):
            evaluate(protocol(f"{text}"), plain, subject, network)
    report = evaluate(
        protocol("metrics: [msssim_class]\nreference: train\nimages: 48"), Photographs(flowers.store, 16), unconditional
    )
    assert 0 < report.scores[0].value <= 1  # a model without text is measured where captions do not matter


def test_a_truncation_of_noise_that_is_not_normal(protocol, flowers, model, monkeypatch):
    monkeypatch.setattr(type(model), "noise_is_normal", False)
    with pytest.raises(T2IError, match=r"found truncated or scaled noise in .* and a GANCLS, whose noise"):
        evaluate(protocol("metrics: [agreement]\nimages: 4\ntruncation: 1.5\n"), flowers, model)


def test_images_that_are_not_finite_are_refused(model, protocol, flowers, monkeypatch):
    monkeypatch.setattr(model, "generate", lambda *a, noise, **k: torch.full((len(noise), 3, 16, 16), torch.nan))
    with pytest.raises(T2IError, match="NaN or infinite, expected finite ones: evaluate an earlier checkpoint"):
        evaluate(protocol("metrics: [agreement]\nimages: 2"), flowers, model)


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_network_returns_must_be_finite(place, model, tiny, flowers, small, monkeypatch):
    references.photograph_features(flowers, flowers.split("train")[1], small, torch.device("cpu"), 16)
    original = small.look

    def look(images):
        seen = list(original(images))
        seen[place] = torch.full_like(seen[place], torch.inf)
        return tuple(seen)

    monkeypatch.setattr(small, "look", look)
    what = ("features", "class scores")[place]
    with pytest.raises(T2IError, match=f"found {what} that are NaN or infinite, expected finite ones"):
        evaluate(tiny, flowers, model, small)
