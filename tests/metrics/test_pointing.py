"""Masks cut as the images are, where a word's attention is largest, shares by hand, and a real DAMSM."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from metrics_worker import Looker
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.data.store import open_store
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.flowers.masks import FlowerMasks
from t2i_zoo.metrics.flowers.pointing import Pointing
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.pointing import share_of_maximum
from t2i_zoo.models.damsm import DAMSM


def photographs_at(size, load_size):
    module = CaptionDataModule(SyntheticFlowers(images=72, size=24), image_size=size, load_size=load_size)
    return Photographs(open_store(module.spec, module.cache / "stores"), size)


def drawn_masks(rows):
    folder = SyntheticFlowers(images=72, size=24).path / "masks"
    return torch.from_numpy(np.stack([np.asarray(Image.open(folder / f"image_{row + 1:05d}.png")) for row in rows]))


def test_masks_are_cut_as_the_images_are(cache_folder):
    rows, same = torch.tensor([0, 5, 71]), FlowerMasks(photographs_at(24, 24))  # which draws them
    whole = drawn_masks(rows.tolist())
    assert torch.equal(same.read(rows), whole.long())
    assert torch.equal(FlowerMasks(photographs_at(16, 24)).read(rows), whole[:, 4:20, 4:20].long())
    halves = FlowerMasks(photographs_at(8, 12)).read(rows)
    counts = torch.stack([(whole == part).float().unfold(1, 2, 2).unfold(2, 2, 2).sum((3, 4)) for part in range(3)], 1)
    first, second = counts.topk(2, dim=1).values.unbind(1)
    clear = first > second  # else two parts share the pixel equally
    expected = counts.argmax(1)[:, 2:10, 2:10]
    assert torch.equal(halves[clear[:, 2:10, 2:10]], expected[clear[:, 2:10, 2:10]])
    assert clear.float().mean() > 0.8


def test_masks_lie_on_the_flowers(flowers):
    rows = torch.arange(40)
    images, masks = flowers.images(rows), FlowerMasks(flowers).read(rows)
    for shift, alike in ((0, True), (5, False)):
        moved = (masks == 1).roll(shift, 2)[:, None].float()
        mean = (images * moved).sum((2, 3)) / moved.sum((2, 3))
        away = ((images - mean[..., None, None]) * moved).square().sum((1, 2, 3)) / moved.sum((1, 2, 3))
        assert (float(away.mean()) < 0.2) == alike  # petals are of one colour


def test_the_place_of_the_maximum():
    corner = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    mask = torch.zeros(4, 4)
    mask[0, 3] = 1
    assert share_of_maximum(corner, mask) == 1
    assert share_of_maximum(corner, 1 - mask) == 0
    mask = torch.zeros(8, 8)
    mask[0, 6] = 1
    assert share_of_maximum(corner, mask) == 0.25  # enlarged four times, two by two places share the maximum
    mask[:2, 6:] = 1
    assert share_of_maximum(corner, mask) == 1
    assert share_of_maximum(torch.full((2, 2), 0.25), mask) == 4 / 64  # even attention: the area
    assert share_of_maximum(torch.rand(3, 3), torch.zeros(4, 4)) == 0
    inner = torch.zeros(4, 4)
    inner[2, 1] = 1.0
    light = torch.nn.functional.interpolate(inner[None, None], (16, 16), mode="bilinear")[0, 0]
    assert share_of_maximum(inner, (light == light.max()).float()) == 1


class Aimed(Looker):
    """Regions in which one word prevails in each: four known words, row by row."""

    def __init__(self, captions, words):
        super().__init__(captions)
        self.words = words

    def features(self, images):
        regions = torch.zeros(len(images), len(self.known), 2, 2)
        for i, word in enumerate(self.words):
            regions[:, self.known.number(word), i // 2, i % 2] = 30.0
        return regions, images.mean((2, 3))


@pytest.fixture
def make_pointing(flowers, make_job):
    """``make_pointing(encoder)``: the metric over photographs."""
    return lambda encoder, **more: Pointing(make_job(30, network=Network("aimed", "", dual=encoder), real=True, **more))


def test_shares_by_hand(flowers, make_pointing):
    captions = ["a red bloom with a green centre on a green background", "a blue blossom against the sky"]
    aimed = Aimed([*flowers.captions, *captions], ["red", "blue", "sky", "green"])
    metric = make_pointing(aimed)
    masks = torch.zeros(3, 16, 16, dtype=torch.int64)
    masks[0, 0, 0], masks[0, 8:, 8:] = 1, 2  # red looks to the upper left and hits; both greens to the lower right
    masks[1, :8] = 1  # blue to the upper right: hits
    masks[2, 8:, 8:] = 1  # blue: misses
    metric.update(torch.zeros(2, 3, 16, 16), captions, masks[:2])
    metric.update(torch.zeros(1, 3, 16, 16), captions[1:], masks[2:])
    metric.update(torch.zeros(0, 3, 16, 16), [], masks[:0])
    scores = {score.metric: score for score in metric.compute()}
    hit = 1 / 16  # of two by two regions the outer four by four positions of sixteen share the maximum
    petals, centre = scores["pointing.petals"], scores["pointing.centre"]
    assert (petals.value, centre.value) == (pytest.approx((hit + 1 + 0) / 3), 1)
    assert (petals.chance, centre.chance) == (pytest.approx((1 + 128 + 64) / 256 / 3), 0.25)
    assert scores["pointing.petals_fixed"].value == pytest.approx(2 / 3)  # the upper left corner
    assert scores["pointing.centre_fixed"].value == 1
    error = float(torch.tensor([hit, 1, 0]).std()) / math.sqrt(3)
    assert list(scores) == ["pointing.petals", "pointing.petals_fixed", "pointing.centre", "pointing.centre_fixed"]
    assert scores["pointing.petals"].error == pytest.approx(error, rel=1e-6)
    assert (scores["pointing.centre"].error, scores["pointing.centre"].chance) == (None, 0.25)
    assert scores["pointing.petals"].note == "3 captions name their colour"


def test_which_word_is_looked_for(flowers, make_pointing):
    metric = make_pointing(encoder := Looker([*flowers.captions, "this flower has six round red petals and a centre"]))
    for caption, petals, centre in (
        ("this flower has six round red petals and a green centre", 5, 9),
        ("on a green background there is a white flower with six round petals", 7, None),
        ("a white bloom with a green centre on a green background", 1, 5),
        ("an orange blossom on the sand", 1, None),
        ("two boats on a lake", None, None),
    ):
        assert (metric._place(caption, "petals"), metric._place(caption, "centre")) == (petals, centre), caption
    encoder.hparams["max_words"] = 5
    assert metric._place("this flower has six round red petals and a green centre", "petals") is None
    metric.update(
        torch.zeros(2, 3, 16, 16),
        ["this flower has six round red petals and a green centre", "a white blossom on the sand"],
        torch.ones(2, 16, 16, dtype=torch.int64),
    )
    assert metric.unread.tolist() == [1, 1]
    (petals, _) = metric.compute()
    assert petals.note == "1 captions name their colour, and 1 in words that are not read"


def test_refusals(flowers, make_job, make_pointing, monkeypatch):
    looker = Looker(flowers.captions)
    with pytest.raises(T2IError, match="generated images have none: give --ckpt real with a config such as"):
        Pointing(make_job(30, network=Network("looker", "", dual=looker)))
    with pytest.raises(T2IError, match="codes has no vectors of words and regions: give a DAMSM"):
        Pointing(make_job(30, real=True))
    with pytest.raises(T2IError, match="found no petal colour among the words that this aimed knows"):
        make_pointing(Looker(["two boats on a lake"]))
    metric = make_pointing(looker)
    with pytest.raises(T2IError, match="NaN"):
        metric.update(torch.full((1, 3, 16, 16), torch.nan), ["a red blossom"], torch.zeros(1, 16, 16))
    manifest = flowers.store.manifest
    monkeypatch.setattr(flowers.store, "manifest", {**manifest, "skipped": ["image_00003.jpg"]})
    with pytest.raises(T2IError, match="found drawn flowers of which 1 cannot be read"):
        make_pointing(looker)
    monkeypatch.setattr(flowers.store, "manifest", {**manifest, "source": {"kind": "Flowers102", "root": "x"}})
    with pytest.raises(T2IError, match="found images of Flowers102, which have no masks"):
        make_pointing(looker)
    gone = {**manifest, "source": {**manifest["source"], "root": "nowhere"}}
    monkeypatch.setattr(flowers.store, "manifest", gone)
    with pytest.raises(T2IError, match=r"image_00001\.png"):
        FlowerMasks(replace(flowers)).read(torch.tensor([0]))


def test_a_limit_leaves_no_row_its_mask(cache_folder):
    module = CaptionDataModule(SyntheticFlowers(images=72, size=24), image_size=16, limit=30)
    kept = Photographs(open_store(module.spec, module.cache / "stores"), 16)
    with pytest.raises(T2IError, match=rf"found {len(kept.labels)} of 72 drawn flowers, .* leave out --data\.limit"):
        FlowerMasks(kept)


@pytest.fixture
def damsm_run(tmp_path, build_data, build_trainer, tiny_widths):
    """A DAMSM that was trained for two batches."""
    trainer = build_trainer(max_epochs=1, limit_train_batches=2)
    trainer.fit(DAMSM(**tiny_widths("damsm")), build_data("random"))
    trainer.save_checkpoint(tmp_path / "damsm.ckpt")
    return tmp_path / "damsm.ckpt"


def test_on_the_command_line(damsm_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data.source.images", "72", "--data.source.size", "24", "--protocol", "pointing_synthetic"]
    data += ["--data.source.split", "class_disjoint", "--network", f"checkpoint:{damsm_run}"]
    words = ["evaluate", "--ckpt", "real", "--config", "damsm_synthetic", "--data.image_size", "16", *data]
    for more in ([], ["--batch-size", "2"]):
        assert main([*words, *more]) == 0
    lines = [json.loads(text) for text in (tmp_path / "runs" / "real" / "metrics.jsonl").read_text().splitlines()]
    half = len(lines) // 2
    assert [line["value"] for line in lines[:half]] == [line["value"] for line in lines[half:]]
    assert lines[0]["metric"] == "pointing.petals"
    assert 0 < lines[0]["chance"] < 0.6
    assert lines[1]["value"] >= lines[1]["chance"]  # the best place is on petals more often than places are
    capsys.readouterr()
    assert main(["evaluate", "--ckpt", "untrained:gancls_synthetic", *data]) != 0
    assert "generated images have none" in capsys.readouterr().err
