"""DF-GAN: which pairs are mismatched, its own defaults, the preprint's steps, and its official files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from safetensors.torch import load_file
from torch import Tensor

from t2i_zoo.commands.convert import convert_from, convert_to
from t2i_zoo.errors import T2IError
from t2i_zoo.models.dfgan import DFGAN, losses, networks
from t2i_zoo.text import TextFeatures

WIDTHS: dict[str, Any] = {"generator_width": 4, "discriminator_width": 4, "noise_dim": 4}
TEXT = {"kind": "hashing", "dim": 16}


@pytest.fixture
def model() -> DFGAN:
    torch.manual_seed(0)
    return DFGAN(image_size=16, text_encoder=TEXT, **WIDTHS)


def batch_of(labels: list[int], size: int = 16) -> Any:
    rng = torch.Generator().manual_seed(1)
    count = len(labels)
    return {
        "images": [torch.rand(count, 3, size, size, generator=rng) * 2 - 1],
        "text": TextFeatures(torch.randn(count, 16, generator=rng)),
        "captions": ["a flower"] * count,
        "labels": torch.tensor(labels),
    }


# Mismatched pairs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "wraps", "images", "sentences"),
    [
        (4, True, [1, 2, 3, 0], [0, 1, 2, 3]),
        (4, False, [0, 1, 2], [1, 2, 3]),
        (1, True, [], []),
        (1, False, [], []),
    ],
)
def test_mismatched_pairs(count: int, wraps: bool, images: list[int], sentences: list[int]) -> None:
    found = losses.mismatched_pairs(count, wraps=wraps)
    assert [positions.tolist() for positions in found] == [images, sentences]


@pytest.mark.parametrize("variant", ["cvpr", "preprint"])
@pytest.mark.parametrize("exclude", [False, True])
def test_the_mismatched_term(variant: networks.Variant, exclude: bool) -> None:
    model = DFGAN(variant=variant, image_size=16, text_encoder=TEXT, exclude_same_class=exclude, **WIDTHS)
    batch = batch_of([3, 3, -1, -1])  # -1 is no class
    pairs = {"cvpr": [(1, 0), (2, 1), (3, 2), (0, 3)], "preprint": [(0, 1), (1, 2), (2, 3)]}[variant]
    if exclude:
        pairs = [(i, j) for i, j in pairs if {i, j} != {0, 1}]
        assert len(pairs) == {"cvpr": 3, "preprint": 2}[variant]
    images, text = batch["images"][0], batch["text"].sentence
    logits = [model.discriminator(images[[i]], text[[j]]).matched for i, j in pairs]
    terms = model.discriminator_loss(batch, model.draw(model.generator, model.noise(4), batch["text"]))
    torch.testing.assert_close(terms["wrong"], torch.cat(logits).add(1).relu().mean())
    torch.testing.assert_close(terms["loss"], terms["real"] + (terms["wrong"] + terms["fake"]) / 2)


def test_a_batch_of_one_image(model: DFGAN) -> None:
    batch = batch_of([0])
    fakes = model.draw(model.generator, model.noise(1), batch["text"])
    terms = model.discriminator_loss(batch, fakes)
    assert terms["wrong"] == 0
    assert terms["loss"].isfinite()


# Defaults and steps ---------------------------------------------------------------------------------------------------


def test_its_own_loss_is_the_hinge(model: DFGAN) -> None:
    assert model.hparams["adversarial_loss"] == "paper"
    assert model.adversarial.fake(torch.tensor([-3.0, 2.0])).tolist() == [0, 3]
    other = DFGAN(image_size=16, text_encoder=TEXT, adversarial_loss="relativistic", **WIDTHS)
    assert other.adversarial.relative


@pytest.mark.parametrize(("variant", "penalty_step", "steps"), [
    ("cvpr", None, 2), ("preprint", None, 3), ("cvpr", "separate", 3), ("preprint", "joint", 2),
])  # fmt: skip
def test_the_steps_of_a_batch(
    variant: Any, penalty_step: Any, steps: int, build_data: Any, build_trainer: Any, tmp_path: Path
) -> None:
    seen: list[int] = []
    note = LambdaCallback(on_before_optimizer_step=lambda *_: seen.append(1))
    model = DFGAN(variant=variant, penalty_step=penalty_step, image_size=16, text_encoder=TEXT, **WIDTHS)
    trainer = build_trainer(limit_train_batches=1, callbacks=[note])
    trainer.fit(model, build_data())
    assert len(seen) == steps
    assert model.hparams["penalty_step"] == penalty_step  # as given: a resumed run compares it
    assert trainer.callback_metrics["train/discriminator_penalty_matching"] > 0
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == [4e-4, 1e-4]
    assert all(optimizer.param_groups[0]["betas"] == (0.0, 0.9) for optimizer in trainer.optimizers)


@pytest.mark.parametrize("size", [8, 48, 100])
def test_sizes_that_no_network_has(size: int) -> None:
    with pytest.raises(T2IError, match=rf"--model\.image_size {size}, expected a power of two of at least 16"):
        DFGAN(image_size=size, text_encoder=TEXT, **WIDTHS)


@pytest.mark.parametrize("variant", ["cvpr", "preprint"])
@pytest.mark.parametrize("size", [16, 32, 128])
def test_other_sizes(variant: networks.Variant, size: int) -> None:
    generator = networks.Generator(8, 4, 2, size, variant)
    images = generator(torch.randn(2, 4), torch.randn(2, 8))
    assert images.shape == (2, 3, size, size)
    discriminator = networks.Discriminator(8, 2, size, variant)
    assert discriminator.features(images).shape[2:] == (4, 4)
    assert discriminator(images, torch.randn(2, 8)).matched.shape == (2,)


def test_the_text_has_no_effect_before_training(model: DFGAN) -> None:
    """The affine transformations are the identity at first."""
    noise = model.noise(1).repeat(2, 1)
    first, second = model.generator(noise, torch.randn(2, 16))
    assert torch.equal(first, second)


# Official files -------------------------------------------------------------------------------------------------------


def saved(model: DFGAN, path: Path, build_trainer: Any) -> Path:
    trainer = build_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def official(build_trainer: Any, tmp_path: Path) -> Path:
    """A file as the authors' training writes it, with optimizers and with numbers in the unused convolutions."""
    model = DFGAN(image_size=128, text_encoder=TEXT, **WIDTHS)
    (path,) = convert_to("dfgan", saved(model, tmp_path / "own.ckpt", build_trainer), tmp_path / "official")
    found = torch.load(path, weights_only=True)
    unused = {f"module.DBlocks.{i}.conv_s.{part}" for i in (3, 4) for part in ("weight", "bias")}
    assert found["model"].keys() == {"netG", "netD", "netC"}
    assert {k for k, t in found["model"]["netD"].items() if "conv_s" in k and not t.any()} == unused
    for key in unused:
        found["model"]["netD"][key].fill_(0.5)
    torch.save({**found, "optimizers": {"optimizer_G": {}, "optimizer_D": {}}, "epoch": 1220}, path)
    return path


def test_the_authors_file_is_read(official: Path, tmp_path: Path) -> None:
    weights = load_file(convert_from("dfgan", [official], tmp_path / "own.safetensors"))
    state: dict[str, Tensor] = torch.load(tmp_path / "own.ckpt", weights_only=True)["state_dict"]
    wanted = {key: t for key, t in state.items() if key.startswith(("generator.", "discriminator."))}
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[key], tensor) for key, tensor in wanted.items())


def test_unused_weights_of_another_shape(official: Path, tmp_path: Path) -> None:
    found = torch.load(official, weights_only=True)
    found["model"]["netD"]["module.DBlocks.4.conv_s.bias"] = torch.zeros(7)
    torch.save(found, official)
    with pytest.raises(
        T2IError, match=r"state_epoch_000\.pth:netD: DBlocks\.4\.conv_s\.bias of shape \(7,\) has no place"
    ):
        convert_from("dfgan", [official], tmp_path / "own.safetensors")


def test_a_file_without_unused_weights(official: Path, tmp_path: Path) -> None:
    found = torch.load(official, weights_only=True)
    for key in [key for key in found["model"]["netD"] if key.startswith("module.DBlocks.4.conv_s")]:
        del found["model"]["netD"][key]
    torch.save({"model": {"netD": found["model"]["netD"]}}, official)
    assert load_file(convert_from("dfgan", [official], tmp_path / "own.safetensors"))
