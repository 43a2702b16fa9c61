"""Streamed shards give the batches that the packed store gives: what is in them, their order, on any processes."""

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from t2i_zoo.batch import BatchNeeds
from t2i_zoo.data import CaptionDataModule, StreamDataModule, SyntheticFlowers, WebDataset
from t2i_zoo.data.shard_writer import write_shards
from t2i_zoo.data.store import StoreSpec, open_store
from t2i_zoo.data.stream import Stream
from t2i_zoo.errors import T2IError
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.text import build_text_encoder

ENCODER: dict[str, object] = {"kind": "hashing", "dim": 16}
FLOWERS = SyntheticFlowers(images=64, size=24)


def build(root: Path | str, **options: Any) -> StreamDataModule:
    source = {name: options.pop(name) for name in ("buffer",) if name in options}
    module = CaptionDataModule(WebDataset(str(root), **source), **{"image_size": 16, "batch_size": 8, **options})
    assert isinstance(module, StreamDataModule)
    return module


class Asks(ZooModule):
    """A model that keeps its batches."""

    needs = BatchNeeds(words=True, wrong_images=True, neighbours=True)

    def __init__(self, encoder: dict[str, object] | None = ENCODER) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder(encoder) if encoder else None
        self.line, self.seen = nn.Linear(1, 1), []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch)
        return self.line.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(model: Asks, module: Any, folder: Path, **options: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "limit_val_batches": 0}
    resume = options.pop("ckpt_path", None)
    plain = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "enable_checkpointing": False, **options}
    trainer = L.Trainer(default_root_dir=folder, **quiet, **plain)
    trainer.fit(model, module, ckpt_path=resume, weights_only=True)
    return trainer


def numbers(loader: Any) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


def test_shards_hold_what_the_store_holds(shards: Path, tmp_path: Path) -> None:
    store = open_store(StoreSpec(FLOWERS, 19), tmp_path)
    packed = open_store(StoreSpec(WebDataset(str(shards), stream=False), 19), tmp_path)
    both = [
        {
            (*one.captions_of(row), int(one.splits[row]), int(one.labels[row])): np.array(one.image(row))
            for row in range(len(one.starts))
        }
        for one in (store, packed)
    ]
    assert set(both[0]) == set(both[1])
    assert all(np.array_equal(pixels, both[1][key]) for key, pixels in both[0].items())
    assert len(packed.captions) == len(store.captions)


def test_what_a_model_asks_of_the_module(shards: Path) -> None:
    module, store = build(shards), CaptionDataModule(FLOWERS, image_size=16, batch_size=8)
    assert module.num_classes == store.num_classes
    assert module.vocabulary() == store.vocabulary()
    assert sorted(module.captions_of("test")) == sorted(store.captions_of("test"))
    assert len(set(module.example_captions(4))) == 4
    assert set(module.example_captions(4)) <= set(store.captions_of("test"))
    assert len(module.train_dataloader()) == len(store.train_dataloader())
    assert len(module.val_dataloader()) == len(store.val_dataloader())


def test_a_batch_in_training(shards: Path, tmp_path: Path) -> None:
    model, module = Asks(), build(shards, pyramid=[4, 8])
    fit(model, module, tmp_path)
    assert module.cached_text
    assert len(model.seen) == len(module.train_dataloader()) > 3
    samples = {s.number: s for shard in module.index.of("train") for s in module.source.samples(module.index, shard)}
    for batch in model.seen:
        keys = {"captions", "images", "index", "labels", "text", "neighbours"}
        assert set(batch) == keys | {"wrong_captions", "wrong_images", "wrong_labels", "wrong_text"}
        assert (batch["labels"] != batch["wrong_labels"]).all()
        for kind in ("", "wrong_"):
            assert [image.shape for image in batch[f"{kind}images"]] == [(8, 3, s, s) for s in (4, 8, 16)]
            assert batch[f"{kind}images"][-1].abs().max() <= 1
            expected = model.text_encoder.encode(batch[f"{kind}captions"], words=True)
            assert torch.allclose(batch[f"{kind}text"].sentence, expected.sentence, atol=1e-6)
            assert torch.equal(batch[f"{kind}text"].mask, expected.mask)
            assert torch.allclose(batch[f"{kind}text"].words, expected.words, atol=1e-6)
        for i, number in enumerate(batch["index"].tolist()):
            sample = samples[number]
            place = sample.captions.index(batch["captions"][i])
            before, after = (sample.captions[(place + step) % len(sample.captions)] for step in (-1, 1))
            assert batch["neighbours"][i] == (before, after)
            assert batch["labels"][i] == sample.class_id
            pixels = torch.from_numpy(np.array(module.decode(sample))).permute(2, 0, 1) / 127.5 - 1
            cuts = [pixels[:, t : t + 16, x : x + 16] for t in range(4) for x in range(4)]
            image = batch["images"][-1][i]
            assert any(torch.allclose(image, side, atol=1e-5) for cut in cuts for side in (cut, cut.flip(-1)))


def test_evaluation_gives_the_very_batches_of_the_store(shards: Path) -> None:
    stream, store = build(shards), CaptionDataModule(FLOWERS, image_size=16, batch_size=8)
    store.setup("validate")
    found = [stream.on_after_batch_transfer(batch) for batch in stream.val_dataloader()]
    expected = [store.on_after_batch_transfer(part) for part in store.val_dataloader()]
    assert [batch["index"].tolist() for batch in found] == [batch["index"].tolist() for batch in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours["images"][-1], theirs["images"][-1])
        assert torch.equal(ours["labels"], theirs["labels"])


def test_an_epoch_shows_every_picture_at_most_once_in_a_new_order(shards: Path) -> None:
    module = build(shards, buffer=12)
    epochs = [numbers(Stream(module, "train", True, 0, 1, lambda epoch=epoch: epoch)) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]
    flat = [number for batch in epochs[0] for number in batch]
    assert len(flat) == len(set(flat)) == len(epochs[0]) * 8
    assert flat != sorted(flat)


@pytest.mark.parametrize(("world", "buffer"), [(2, 2), (3, 2048), (7, 8)])
def test_processes_share_the_shards_evenly(shards: Path, world: int, buffer: int) -> None:
    module = build(shards, batch_size=2, buffer=buffer)
    parts = [numbers(Stream(module, "train", True, rank, world, lambda: 3)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    seen = Counter(number for part in parts for batch in part for number in batch)
    assert max(seen.values()) == 1
    held_out = [numbers(Stream(module, "test", False, rank, world, lambda: 0)) for rank in range(world)]
    assert len({len(part) for part in held_out}) == 1
    assert {n for part in held_out for batch in part for n in batch} == set(range(module.index.pictures("test")))


def test_a_resumed_run_meets_the_batches_that_it_would_have_met(shards: Path, tmp_path: Path) -> None:
    whole = Asks()
    fit(whole, build(shards, buffer=16), tmp_path, max_epochs=2)
    part = Asks()
    part.on_train_batch_end = lambda *_: part.trainer.save_checkpoint(tmp_path / f"{len(part.seen)}.ckpt")
    fit(part, build(shards, buffer=16), tmp_path, max_epochs=2, max_steps=8)
    rest = Asks()
    fit(rest, build(shards, buffer=16), tmp_path, max_epochs=2, ckpt_path=tmp_path / "8.ckpt")
    together = [*part.seen, *rest.seen]
    assert len(together) == len(whole.seen) > 8
    for a, b in zip(together, whole.seen, strict=True):
        assert a["captions"] == b["captions"]
        assert a["wrong_captions"] == b["wrong_captions"]
        assert torch.equal(a["images"][-1], b["images"][-1])


def test_features_of_another_encoder_are_not_taken(shards: Path, tmp_path: Path, capsys: Any) -> None:
    model = Asks({"kind": "hashing", "dim": 32})
    fit(model, build(shards), tmp_path)
    assert "text" not in model.seen[0]
    assert "the shards hold no features of this text encoder: captions are encoded" in capsys.readouterr().err
    with pytest.raises(T2IError, match=r"hold no features of this text encoder, which --data\.captions_averaged 4"):
        fit(Asks({"kind": "hashing", "dim": 32}), build(shards, captions_averaged=4), tmp_path)


def test_averaged_captions(shards: Path, tmp_path: Path) -> None:
    model, module = Asks(), build(shards, captions_averaged=64)
    fit(model, module, tmp_path)
    samples = {s.number: s for shard in module.index.of("train") for s in module.source.samples(module.index, shard)}
    batch = model.seen[0]
    for vector, number in zip(batch["text"].sentence, batch["index"].tolist(), strict=True):
        mean = torch.from_numpy(samples[number].features()[0]).mean(0)  # of 64 draws among at most ten
        assert torch.nn.functional.cosine_similarity(vector, mean, 0) > 0.95


def test_sources_without_captions_and_classes(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(9):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(root / f"{i}.png")
    from t2i_zoo.data import CaptionFolder

    write_shards(StoreSpec(CaptionFolder(str(root), captions=False), 19), tmp_path / "shards")
    model = Asks(None)
    model.needs = BatchNeeds()
    fit(model, build(tmp_path / "shards", batch_size=4), tmp_path)
    assert model.seen[0]["captions"] == [""] * 4
    assert (model.seen[0]["labels"] == -1).all()
    assert build(tmp_path / "shards").num_classes == 0
    with pytest.raises(T2IError, match="have no captions and the model reads them"):
        fit(Asks(), build(tmp_path / "shards", batch_size=4), tmp_path)


def test_mismatched_captions_follow_the_seed(shards: Path) -> None:
    def pairs(seed: int, epoch: int = 0) -> set[tuple[str, str]]:
        batches = build(shards, seed=seed).batches("train", Asks(), epoch)
        return {pair for batch in batches for pair in zip(batch["captions"], batch["wrong_captions"], strict=True)}

    assert pairs(0) == pairs(0)
    assert pairs(0) != pairs(1)
    assert pairs(0) != pairs(0, epoch=1)


def test_a_run_says_how_many_images_it_leaves_out(tmp_path: Path, capsys: Any) -> None:
    with tarfile.open(tmp_path / "train-0.tar", "w") as archive:
        for i in range(8):
            out = io.BytesIO(b"<html>" if i == 3 else b"")
            if i != 3:
                Image.new("RGB", (20, 20), (i, 0, 0)).save(out, "png")
            for name, content in ((f"{i}.png", out.getvalue()), (f"{i}.txt", b"c")):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    options = {"batch_size": 4, "on_bad_image": "skip", "cache_dir": str(tmp_path / "cache")}
    model = Asks(None)
    model.needs = BatchNeeds()
    fit(model, build(tmp_path, **options), tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1
    assert said[0].startswith("1 image cannot be read and is left out, such as: ")
