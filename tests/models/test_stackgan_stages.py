"""What StackGAN's Stage II takes from its Stage I, how it keeps it, and what it says where one does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.commands.convert import convert_from
from t2i_zoo.commands.official_states import to_official
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.exported import pack, write
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.models.stackgan import StackGAN

WIDTHS = {"condition_dim": 6, "generator_width": 4, "discriminator_width": 4}
FIRST = {"image_size": 8}
SECOND = {"stage": 2, "image_size": 32, "residual_blocks": 1}


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    """What both stages have in common."""
    return {**WIDTHS, "noise_dim": 4, "text_encoder": {"kind": "hashing", "dim": 32}, "learning_rate": 1e-2}


@pytest.fixture
def build(options: dict[str, Any]) -> Any:
    """``build(**SECOND)``: a tiny model with seeded weights."""

    def seeded(**changed: Any) -> StackGAN:
        L.seed_everything(0, verbose=False)
        return StackGAN(**{**options, **changed})

    return seeded


def fitted(model: TextToImageGAN, build_data: Any, build_trainer: Any, **options: Any) -> L.Trainer:
    """The trainer that trained a model on three batches."""
    path = options.pop("ckpt_path", None)
    trainer = build_trainer(**{"limit_train_batches": 3, **options})
    trainer.fit(model, build_data(image_size=model.hparams["image_size"]), ckpt_path=path)
    return trainer


@pytest.fixture
def first(build: Any, build_data: Any, build_trainer: Any, tmp_path: Path) -> tuple[StackGAN, Path]:
    """A Stage I after three batches, and its checkpoint in the folder of a run."""
    fitted(model := build(**FIRST), build_data, build_trainer)
    path = tmp_path / "run" / "version_0" / "checkpoints" / "last.ckpt"
    model.trainer.save_checkpoint(path)
    return model, path


def copies(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("averaged", [True, False])
def test_stage_two_takes_the_weights_of_stage_one(first: Any, build: Any, averaged: bool) -> None:
    former, path = first
    assert not same(copies(former.generator), copies(former.generator_ema))
    wanted = copies(former.generator_ema if averaged else former.generator)
    for place in (path, path.parents[1], path.parents[2]):  # the file, the run, the folder of runs
        model = build(**SECOND, stage1=str(place), stage1_ema=averaged)
        assert same(copies(model.generator.stage1), wanted)
        assert same(copies(model.generator_ema.stage1), wanted)
    assert model.hparams["stage1"] == str(place)
    text, noise = model.encode(["a red flower"] * 2), model.noise(2)
    small = model.draw(model.generator_ema, noise, text).images[0]
    network = (former.generator_ema if averaged else former.generator).eval()
    assert torch.equal(small, former.draw(network, noise[:, :10], text).images[0])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_stage_one_is_frozen(first: Any, build: Any, build_data: Any, build_trainer: Any, mode: str) -> None:
    model = build(**SECOND, stage1=str(first[1]), stage1_mode=mode)
    before, own = copies(model.generator.stage1), copies(model.generator.residual)
    trainer = fitted(model, build_data, build_trainer)
    assert not same(own, copies(model.generator.residual))
    after, weights = copies(model.generator.stage1), dict(model.generator.stage1.named_parameters())
    assert same({name: before[name] for name in weights}, {name: after[name] for name in weights})
    assert all(p.grad is None and not p.requires_grad for p in weights.values())
    optimized = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    assert optimized.isdisjoint(map(id, weights.values()))
    counted = {name: int(after[name] - before[name]) for name in after if name.endswith("num_batches_tracked")}
    assert set(counted.values()) == {3 if mode == "train" else 0}
    moved = [name for name in after if name.endswith("running_mean") and not torch.equal(before[name], after[name])]
    assert bool(moved) is (mode == "train")
    assert model.train().generator.stage1.training is (mode == "train")
    assert not model.eval().generator.stage1.training


def test_a_checkpoint_holds_its_stage_one(first: Any, build: Any, build_data: Any, build_trainer: Any) -> None:
    model = build(**SECOND, stage1=str(first[1]))
    fitted(model, build_data, build_trainer).save_checkpoint(path := first[1].with_name("second.ckpt"))
    first[1].unlink()
    noise = model.noise(2)
    wanted = model.eval().generate(["a red flower", "a blue flower"], noise=noise)
    again = load_model(path)
    assert again.hparams["stage1"] is None
    assert torch.equal(again.generate(["a red flower", "a blue flower"], noise=noise), wanted)
    fitted(again, build_data, build_trainer)  # trained on
    fitted(build(**SECOND, weights=str(path)), build_data, build_trainer)  # fine-tuned
    resumed = build(**SECOND)
    fitted(resumed, build_data, build_trainer, max_epochs=2, ckpt_path=path)
    assert [again.clock, resumed.clock] == [6, 6]


def test_stage_two_needs_a_stage_one(build: Any, build_data: Any, build_trainer: Any) -> None:
    with pytest.raises(
        T2IError, match=r"found stage 2 without a Stage I: set --model\.stage1 to the run of one, or to"
    ):
        fitted(build(**SECOND), build_data, build_trainer)
    trial = build(**SECOND, stage1="untrained")
    fitted(trial, build_data, build_trainer)
    assert trial.clock == 3


@pytest.mark.parametrize(
    ("option", "other", "sentence"),
    [
        ("noise_dim", 5, "has noise_dim 4 and this Stage II has 5: set --model.noise_dim to the former"),
        ("condition_dim", 7, "has condition_dim 6 and this Stage II has 7"),
        ("generator_width", 8, "has generator_width 4 and this Stage II has 8"),
        ("ca_activation", "lrelu", "has ca_activation relu and this Stage II has lrelu"),
        (
            "text_encoder",
            {"kind": "hashing", "dim": 48},
            r"'dim': 32} and this Stage II has {'kind': 'hashing', 'dim': 48}",
        ),
        ("image_size", 64, "has 8 px and this Stage II 64 px: set --model.image_size and --data.image_size to 32"),
    ],
)
def test_another_stage_one_is_refused(first: Any, build: Any, option: str, other: Any, sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        build(**{**SECOND, "stage1": str(first[1]), option: other})


def test_a_text_encoder_is_known_by_its_name_too(build: Any, tmp_path: Path) -> None:
    former = build(**FIRST, text_encoder="hashing")
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(former)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    model = build(**SECOND, stage1=str(tmp_path / "first.ckpt"), text_encoder={"kind": "hashing"})
    assert same(copies(model.generator.stage1), copies(former.generator_ema))


def test_an_exported_stage_one_has_its_own_text_encoder(build: Any, tmp_path: Path) -> None:
    former, path = build(**FIRST), tmp_path / "first.safetensors"
    tensors, header = pack(former, "stackgan")
    write(tensors, json.dumps(header), path)
    model = build(**SECOND, stage1=str(path))
    for name, tensor in former.generator_ema.state_dict().items():
        assert torch.allclose(model.generator.stage1.state_dict()[name], tensor, rtol=1e-3)
    shape = {"dim": 32, "word_dim": 4}
    words = {"kind": "rnn", "path": "of a DAMSM", "assets": {"words.txt": "a", "shape.json": json.dumps(shape)}}
    with pytest.raises(T2IError, match=r"has text_encoder HashingEncoder of dimension 32 and this .* RNN"):
        build(**{**SECOND, "text_encoder": words}, stage1=str(path))


def test_what_is_no_stage_one(build: Any, build_data: Any, build_trainer: Any, tmp_path: Path) -> None:
    with pytest.raises(T2IError, match=r"found no checkpoint at .*gone\.ckpt"):
        build(**SECOND, stage1=str(tmp_path / "gone.ckpt"))
    trial = fitted(build(**SECOND, stage1="untrained"), build_data, build_trainer)
    trial.save_checkpoint(tmp_path / "second.ckpt")
    with pytest.raises(T2IError, match=r"second\.ckpt holds stage 2: give the run of a StackGAN of stage 1"):
        build(**SECOND, stage1=str(tmp_path / "second.ckpt"))
    other = GANCLS(image_size=16, generator_width=4, discriminator_width=4, text_encoder={"kind": "hashing", "dim": 32})
    fitted(other, build_data, build_trainer).save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(T2IError, match=r"other\.ckpt holds GANCLS: give the run of a StackGAN of stage 1"):
        build(**SECOND, stage1=str(tmp_path / "other.ckpt"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"stage": 3}, r"found --model\.stage 3, expected 1 or 2"),
        ({"image_size": 4}, r"image_size 4 in stage 1, expected a power of two of at least 8, such as 64"),
        ({"image_size": 48}, r"image_size 48 in stage 1, expected a power of two"),
        (
            {**SECOND, "image_size": 16},
            r"image_size 16 in stage 2, expected a power of two of at least 32, such as 256",
        ),
        ({"stage1": "untrained"}, r"found --model\.stage1 untrained in stage 1: set --model\.stage 2"),
        ({"mismatch": "class", "exclude_same_class": True}, r"exclude_same_class with --model\.mismatch class"),
    ],
)
def test_options_that_do_not_fit(build: Any, changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        build(**changed)


def test_one_image_a_batch(build: Any, build_data: Any, build_trainer: Any) -> None:
    model = build(**FIRST)
    with pytest.raises(T2IError, match=r"found --data\.batch_size 1, expected at least 2 images"):
        build_trainer().fit(model, build_data(image_size=8, batch_size=1))
    fakes = model.eval().draw(model.generator, model.noise(1), text := model.encode(["a red flower"]))
    found = model.discriminator_loss({"images": [torch.rand(1, 3, 8, 8)], "text": text}, fakes)  # a ragged last one
    assert float(found["wrong"]) == 0.0
    assert found["loss"].isfinite()


def test_a_converted_stage_one_will_do(build: Any, tmp_path: Path) -> None:
    options = {"noise_dim": 100, "least_channels": 1, "text_encoder": {"kind": "hashing", "dim": 1024}}
    first = build(image_size=64, **options)
    hparams = {key: value for key, value in first.hparams.items() if key != "text_encoder"}
    files = to_official("stackgan_v1", {**hparams, "text_encoder": "hashing"}, first.state_dict(), ema=False)
    paths = [tmp_path / name for name in files]
    for path, weights in zip(paths, files.values(), strict=True):
        torch.save(weights, path)
    convert_from("stackgan_v1", paths, tmp_path / "first.safetensors")
    second = build(stage=2, image_size=256, residual_blocks=1, stage1=str(tmp_path / "first.safetensors"), **options)
    for name, tensor in first.generator.state_dict().items():
        assert torch.equal(second.generator.stage1.state_dict()[name], tensor), name
    with pytest.raises(T2IError, match=r"has text_encoder 1024 and this Stage II has 32"):
        build(
            **{**SECOND, **options, "text_encoder": {"kind": "hashing", "dim": 32}, "image_size": 256},
            stage1=str(tmp_path / "first.safetensors"),
        )
