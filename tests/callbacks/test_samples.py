"""Grids during training: when they come, and that nothing but the weights changes from one to the next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from t2i_zoo.callbacks import SampleGrid, samples
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.pictures import save_images
from t2i_zoo.run_files import RunLogger


@pytest.fixture
def fit(tmp_path, build_data, build_trainer, tiny_options):
    """``fit(callback, epochs)``: train with a grid; returns the model and the folder of the grids."""

    def run(callback, epochs=2, trainer=None, **options):
        torch.manual_seed(0)
        widths = {"generator_width": 8, "discriminator_width": 4, "projection_dim": 8}
        model = GANCLS(**{**tiny_options, **widths, **options})
        settings = {"logger": RunLogger(tmp_path), "limit_train_batches": 2, **(trainer or {})}
        build_trainer(callbacks=[callback], max_epochs=epochs, **settings).fit(model, build_data())
        return model, tmp_path / "version_0" / "samples"

    return run


@pytest.fixture
def drawn(monkeypatch):
    """What is put on each grid: (captions, rows of pictures)."""
    seen = []
    original = samples.caption_grid

    def note(rows, captions, **options):
        seen.append((list(captions), rows))
        return original(rows, captions, **options)

    monkeypatch.setattr(samples, "caption_grid", note)
    return seen


def names(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(
    ("every", "expected"),
    [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5]), (0, [5])],
)
def test_every_n_epochs_and_at_the_end(every, expected, fit):
    _, folder = fit(SampleGrid(every, rows=1, columns=1), epochs=5)
    assert names(folder) == [f"epoch_{epoch:04d}.png" for epoch in expected]


def test_the_same_captions_and_noise_in_each_epoch(fit, drawn):
    _, folder = fit(SampleGrid(1, rows=3, columns=2), epochs=2)
    (captions, first), (again, second) = drawn
    assert captions == again
    assert len(set(captions)) == 3
    assert all(row.shape == (2, 3, 16, 16) for row in first + second)
    assert (first[0][0] - first[0][1]).abs().max() > 1e-4  # two noises
    assert names(folder) == ["epoch_0001.png", "epoch_0002.png"]


def test_two_grids_of_the_same_weights_are_the_same_pixels(fit, monkeypatch):
    monkeypatch.setattr(GANCLS, "update_ema", lambda self, count: None)  # for batch norm moves without any learning
    _, folder = fit(SampleGrid(1, rows=2, columns=2), epochs=2, learning_rate=0.0)
    assert (folder / "epoch_0001.png").read_bytes() == (folder / "epoch_0002.png").read_bytes()


def test_training_shows_in_the_grid(fit):
    _, folder = fit(SampleGrid(1, rows=2, columns=2), epochs=2, learning_rate=0.01)
    assert (folder / "epoch_0001.png").read_bytes() != (folder / "epoch_0002.png").read_bytes()


def test_the_averaged_generator_is_drawn(fit, drawn):
    model, _ = fit(SampleGrid(1, captions=["a red flower"], columns=3, seed=7), epochs=1, learning_rate=0.05)
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(7))
    ((captions, rows),) = drawn
    assert captions == ["a red flower"]
    assert torch.equal(rows[0], model.generate(["a red flower"] * 3, noise=noise))
    assert not torch.equal(rows[0], model.generate(["a red flower"] * 3, noise=noise, ema=False))


def test_grids_leave_the_training_as_it_was(fit):
    with_grids, _ = fit(SampleGrid(1, rows=2, columns=2), epochs=2)
    without, _ = fit(SampleGrid(0, rows=1, columns=1), epochs=2)
    assert with_grids.generator.training
    for name, value in without.state_dict().items():
        assert torch.equal(with_grids.state_dict()[name], value), name


def test_captions_are_printed_on_the_grid(fit, monkeypatch):
    from PIL import ImageDraw

    texts = []
    original = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, at, text, **o: texts.append(text) or original(self, at, text, **o)
    )
    _, folder = fit(SampleGrid(1, captions=["a red flower", "une fleur 🌸"], columns=2), epochs=1)
    assert texts == ["a red flower", "une fleur 🌸"]
    with Image.open(folder / "epoch_0001.png") as page:
        assert page.width >= 2 * 128


def test_a_fast_run_draws_without_leaving_files(fit, drawn, tmp_path):
    fit(SampleGrid(1, rows=1, columns=1), trainer={"fast_dev_run": True, "logger": None})
    assert len(drawn) == 1
    assert not list(tmp_path.rglob("*.png"))


def test_where_the_pictures_are_is_said_once(fit, capsys):
    _, folder = fit(SampleGrid(1, rows=1, columns=1), epochs=3)
    said = capsys.readouterr().out
    assert said.count("samples with their captions: ") == 1
    assert str(folder / "epoch_0003.png") in said
    assert f"t2i-zoo sample --ckpt {folder.parent} " in said


def test_saved_pictures_carry_their_caption(tmp_path):
    images = torch.stack([torch.full((3, 4, 4), value) for value in (-1.0, 1.0)])
    save_images(images, ["schwarz ✓", "white"], tmp_path / "new", ["a", "b"])
    for name, caption, value in (("a", "schwarz ✓", 0), ("b", "white", 255)):
        with Image.open(tmp_path / "new" / f"{name}.png") as picture:
            assert picture.text["Description"] == caption
            assert set(picture.getdata()) == {(value,) * 3}


def test_a_caption_that_json_would_escape(tmp_path):
    save_images(torch.zeros(1, 3, 4, 4), ['a "red"\nflower'], tmp_path, ["a"])
    with Image.open(tmp_path / "a.png") as picture:
        assert json.loads(json.dumps(picture.text["Description"])) == 'a "red"\nflower'
