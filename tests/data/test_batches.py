"""Batches without a Trainer: the very ones that a Trainer hands to a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from t2i_zoo.batch import BatchNeeds
from t2i_zoo.data import CaptionDataModule, SyntheticFlowers, WebDataset
from t2i_zoo.errors import T2IError
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.text import build_text_encoder


class Asks(ZooModule):
    """A model that keeps its batches."""

    needs = BatchNeeds(sizes=(8, 16), words=True, wrong_images=True)

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.text_encoder = build_text_encoder({"kind": "hashing", "dim": dim})
        self.line, self.seen = nn.Linear(1, 1), []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch)
        return self.line.weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture(params=[False, True], ids=["packed", "streamed"])
def data(request: Any, shards: Path) -> Any:
    source = WebDataset(str(shards)) if request.param else SyntheticFlowers(images=64, size=24)
    return CaptionDataModule(source, image_size=16, batch_size=8)


def agree(one: Any, two: Any) -> bool:
    """Whether two batches are equal, tensor by tensor."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(agree(one[key], two[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    return (
        all(map(agree, one, two)) if isinstance(one, (list, tuple)) and one and type(one[0]) is not str else one == two
    )


def test_a_plain_loop_meets_the_batches_of_training(data: Any, build_trainer: Any) -> None:
    model = Asks()
    build_trainer(max_epochs=2).fit(model, data)
    plain = [batch for epoch in range(2) for batch in data.batches("train", model, epoch)]
    assert len(plain) == len(model.seen) > 6
    assert all(agree(one, two) for one, two in zip(plain, model.seen, strict=True))
    assert {"text", "wrong_text", "wrong_images"} <= plain[0].keys()


def test_loops_of_two_models_do_not_meet(data: Any) -> None:
    narrow, wide = Asks(16), Asks(24)
    wide.needs = BatchNeeds(images=False)
    for one, two in zip(data.batches("train", narrow), data.batches("train", wide), strict=True):
        assert one["captions"] == two["captions"]
        assert [x.shape[-1] for x in one["images"]] == [8, 16]
        assert torch.allclose(one["text"].words, narrow.text_encoder.encode(one["captions"], words=True).words)
        assert not {"images", "wrong_images"} & two.keys()
        if "text" in two:  # the shards hold other features, and then the model encodes
            assert torch.allclose(two["text"].sentence, wide.text_encoder.encode(two["captions"]).sentence)


def test_what_is_mismatched_is_left_out_where_nobody_reads_it(data: Any) -> None:
    whole, images, sentences = Asks(), Asks(), Asks()
    images.needs = replace(whole.needs, wrong_text=False)
    sentences.needs = replace(whole.needs, wrong_words=False)
    batches = (data.batches("train", model) for model in (whole, images, sentences))
    for full, few, plain in zip(*batches, strict=True):
        assert full.keys() - few.keys() == {"wrong_captions", "wrong_text"}
        assert agree(few, {key: part for key, part in full.items() if key in few})
        assert plain["wrong_text"].words is None
        assert agree(
            {**plain, "wrong_text": plain["wrong_text"].sentence}, {**full, "wrong_text": full["wrong_text"].sentence}
        )


def test_strings_are_not_looked_at_on_their_way(data: Any) -> None:
    strings = ["a flower"]
    part = {"captions": strings, "labels": torch.zeros(1)}
    moved = data.transfer_batch_to_device(part, torch.device("meta"), 0)
    assert moved["captions"] is strings
    assert moved["labels"].is_meta


def test_without_a_model(data: Any) -> None:
    batches = list(data.batches("test"))
    assert sum(len(batch["captions"]) for batch in batches) >= 8
    assert not {"text", "wrong_images"} & batches[0].keys()
    assert batches[0]["images"][0].shape[1:] == (3, 16, 16)
    assert agree(batches, list(data.batches("test", epoch=3)))  # held-out batches are the same in each epoch


def test_splits_that_cannot_be(data: Any) -> None:
    with pytest.raises(T2IError, match="has no images in the split 'val': choose another split"):
        next(data.batches("val"))
    large = CaptionDataModule(data.source, image_size=16, batch_size=500)
    with pytest.raises(T2IError, match="fewer than one batch of 500"):
        next(large.batches("train"))


@pytest.mark.parametrize("split", ["class_disjoint", "random"])
def test_images_with_rare_words_come_more_often(split: Any) -> None:
    source = SyntheticFlowers(images=64, size=24, split=split)
    options: dict[str, Any] = {"image_size": 16, "batch_size": 8}
    data = CaptionDataModule(source, **options, oversample={"red": 3, "petals": 2})
    rows = data.opened.rows("train").tolist()
    planner = data.planner("train", train=True)
    order = planner.epoch_order(0)
    drawn = planner.rows[order].tolist()
    for row in rows:
        words = " ".join(data.opened.captions_of(row)).split()
        assert drawn.count(row) == (3 if "red" in words else 2 if "petals" in words else 1)
    assert 1 < len(drawn) / len(rows) < 3
    assert data.planner("train", train=False).rows.tolist() == rows
    data.opened.labels[:] = -1  # now any other image is a mismatch, but never the same one
    planner = data.planner("train", train=True)
    for batch in range(len(planner)):
        plan = planner.plan(0, batch, order)
        assert not (plan.rows == plan.wrong_rows).any()
        assert (plan.labels == -1).all()
        assert (plan.wrong_labels == -1).all()
    data.order = "class_balanced"  # of the one class, whose images come as often as in the other order
    assert data.planner("train", train=True).sizes.tolist() == [len(planner.rows)]


def test_an_oversampled_word_that_no_caption_has(capsys: Any, tmp_path: Path) -> None:
    source, options = SyntheticFlowers(images=64, size=24), {"image_size": 16, "cache_dir": str(tmp_path)}
    for words, said in (({"red": 2, "bleu": 4}, True), ({"red": 2}, False)):
        CaptionDataModule(source, **options, oversample=words).prepare_data()
        note = "note: no training caption has bleu, of --data.oversample\n"
        assert (note in capsys.readouterr().err) is said


@pytest.mark.parametrize("words", [{"Red": 2}, {"red": 0}, {"two words": 2}])
def test_oversampled_words_are_checked(words: Any) -> None:
    with pytest.raises(T2IError, match=r"in --data\.oversample, expected words in lower case"):
        CaptionDataModule(SyntheticFlowers(images=64, size=24), image_size=16, oversample=words)
