"""Pictures that keep their aspect ratio, sources without captions, and what models ask of a batch."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from t2i_zoo.batch import BatchNeeds
from t2i_zoo.data import CaptionDataModule, CaptionFolder
from t2i_zoo.data.images import load_image, load_shape
from t2i_zoo.data.store import StoreSpec, open_store
from t2i_zoo.errors import T2IError
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.text import build_text_encoder

SHAPES = [(40, 30), (30, 40), (33, 47), (60, 31), (30, 30), (31, 30)]  # width, height


def folder_of(path, captions=2, count=6):
    path.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        width, height = SHAPES[i % len(SHAPES)]
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
        if captions:
            (path / f"{i}.txt").write_text("\n".join(f"picture {i} line {j}" for j in range(captions)))
    return path


class Asks(ZooModule):
    """A model that asks for what it is told to and keeps its batches."""

    def __init__(self, text_encoder: str | None = None, **needs: Any) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(text_encoder) if text_encoder else None
        self.line, self.seen, self.needs = nn.Linear(1, 1), [], BatchNeeds(**needs)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch)
        return self.line.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def train(folder, model, source, **options):
    data = CaptionDataModule(source, **{"image_size": 16, "batch_size": 2, **options})
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    L.Trainer(default_root_dir=folder, accelerator="cpu", max_epochs=1, enable_checkpointing=False, **quiet).fit(
        model, data
    )
    return data


@pytest.mark.parametrize(("width", "height"), SHAPES)
@pytest.mark.parametrize("resample", ["area", "bilinear"])
def test_the_short_side_decides(tmp_path, width, height, resample):
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = load_image(tmp_path / "a.png", 20, "short_side", resample=resample)
    long = int(20 * max(width, height) / min(width, height))
    assert found.shape == ((long, 20, 3) if width <= height else (20, long, 3))
    assert load_shape(tmp_path / "a.png", 20, "short_side") == found.shape[:2]
    whole = Image.fromarray(pixels).resize(found.shape[1::-1], Image.Resampling.BILINEAR)
    if resample == "bilinear":
        assert np.array_equal(found, np.asarray(whole))
    else:
        assert not np.array_equal(found, np.asarray(whole))
        assert np.abs(found.mean((0, 1)) - pixels.mean((0, 1))).max() < 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_head_of_a_turned_picture_is_turned_too(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    found = load_image(tmp_path / "a.jpg", 10, "short_side")
    assert found.shape[:2] == load_shape(tmp_path / "a.jpg", 10, "short_side")
    assert found.shape[:2] == ((10, 20) if orientation < 5 else (20, 10))


@pytest.mark.parametrize("box", [(5, 2, 20, 10), (-5, 0, 100, 15), (30, 0, 20.5, 30.7)])
def test_the_head_knows_the_box(tmp_path, box):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", 8, "short_side", box).shape[:2] == load_shape(
        tmp_path / "a.png", 8, "short_side", box
    )


def test_a_store_of_many_shapes(tmp_path):
    source = CaptionFolder(str(folder_of(tmp_path / "s")))
    store = open_store(StoreSpec(source, 20, "short_side", resample="bilinear"), tmp_path / "stores")
    assert store.pixels().starts is not None
    for row, record in enumerate(source.records()):
        wanted = load_image(record.image, 20, "short_side", resample="bilinear")
        assert np.array_equal(store.image(row), wanted)


def test_a_store_of_many_shapes_skips_bad_pictures(tmp_path):
    root = folder_of(tmp_path / "s")
    (root / "1.png").write_bytes(b"nothing")
    (root / "3.png").write_bytes((root / "3.png").read_bytes()[:-200])  # its head is whole
    source = CaptionFolder(str(root))
    for resize in ("short_side", "stretch"):
        store = open_store(StoreSpec(source, 20, resize, "skip", "bilinear"), tmp_path / "stores")
        assert [name.split()[0].rpartition("/")[2] for name in store.manifest["skipped"]] == ["1.png", "3.png"]
        for row, i in enumerate((0, 2, 4, 5)):
            assert np.array_equal(store.image(row), load_image(root / f"{i}.png", 20, resize, resample="bilinear"))
            assert store.captions[store.offsets[row]] == f"picture {i} line 0"
        with pytest.raises(T2IError, match=r"1\.png is not a readable image"):
            open_store(StoreSpec(source, 20, resize, "raise", "bilinear"), tmp_path / "stores")


def test_batches_are_cut_from_pictures_of_many_shapes(tmp_path):
    model = Asks(sizes=(8, 16), wrong_images=True)
    source = CaptionFolder(str(folder_of(tmp_path / "s", count=24)))
    data = train(tmp_path, model, source, resize="short_side", resample="bilinear", load_size=18)
    planner = data.planner("train", True)
    order, tops, lefts = planner.epoch_order(0), set(), set()
    for number, batch in enumerate(model.seen):
        plan = planner.plan(0, number, order)
        assert [image.shape for image in batch["images"]] == [(2, 3, 8, 8), (2, 3, 16, 16)]
        pairs = {"images": (plan.rows, plan.crops), "wrong_images": (plan.wrong_rows, plan.wrong_crops)}
        for name, (rows, crops) in pairs.items():
            for image, row, top, left, flip in zip(batch[name][-1], rows, *crops, strict=True):
                cut = data.store.image(int(row))[top : top + 16, left : left + 16]
                cut = np.flip(cut, 1) if flip else cut
                assert np.allclose(image.permute(1, 2, 0).numpy(), cut / 127.5 - 1, atol=1e-5)
                tops.add(int(top))
                lefts.add(int(left))
    assert max(tops) > 2  # tall pictures have more room than the load size leaves
    assert max(lefts) > 2


def test_neighbours_are_the_captions_around(tmp_path):
    model = Asks(neighbours=True, images=False)
    train(tmp_path, model, CaptionFolder(str(folder_of(tmp_path / "s", captions=4))))
    assert model.seen
    for batch in model.seen:
        assert "images" not in batch
        for caption, (before, after) in zip(batch["captions"], batch["neighbours"], strict=True):
            picture, line = caption.rsplit(" ", 1)
            assert (before, after) == (f"{picture} {(int(line) - 1) % 4}", f"{picture} {(int(line) + 1) % 4}")


@pytest.mark.parametrize("encoder", [None, "none"])
def test_pictures_without_captions(tmp_path, encoder):
    model = Asks(text_encoder=encoder)
    source = CaptionFolder(str(folder_of(tmp_path / "s", captions=0)), captions=False)
    data = train(tmp_path, model, source)
    assert data.example_captions(3) == ["", "", ""]
    assert data.vocabulary() == frozenset()
    for batch in model.seen:
        assert batch["captions"] == batch["wrong_captions"] == ["", ""]
        assert batch["images"][-1].shape == (2, 3, 16, 16)


def test_a_model_that_reads_text_wants_captions(tmp_path):
    source = CaptionFolder(str(folder_of(tmp_path / "s", captions=0)), captions=False)
    with pytest.raises(
        T2IError,
        match=r"have no captions and the model reads .* with a model that can, as --config stackganpp_unc",
    ):
        train(tmp_path, Asks(text_encoder="hashing"), source)


def test_missing_captions_are_not_taken_for_a_wish(tmp_path):
    root = folder_of(tmp_path / "s")
    (root / "2.txt").unlink()
    with pytest.raises(
        T2IError, match=r"1 of the 6 images .* has no caption .*2\.png: there is no file .*on_bad_caption skip"
    ):
        train(tmp_path, Asks(), CaptionFolder(str(root)))
    assert all(not record.captions for record in CaptionFolder(str(root), captions=False).records())


def test_a_model_without_text_ignores_captions(tmp_path):
    model = Asks(text_encoder="none")
    train(tmp_path, model, CaptionFolder(str(folder_of(tmp_path / "s"))))
    assert all("text" not in batch and batch["captions"][0].startswith("picture") for batch in model.seen)
    assert build_text_encoder("none").encode(["a", "b"]).sentence.shape == (2, 0)
