"""Every training aid with every model; each group holds aids that go together."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn

from t2i_zoo.models import load_model
from t2i_zoo.models.base import TextToImageGAN

CAPTIONS = ["a red flower with round petals", "a white blossom on the sand"]
AIDS = runpy.run_path(str(Path(__file__).parents[2] / "conftest.py"))["AIDS"]  # other folders have such a module too
LOGGED = {
    "bounded": {"penalty_r1"},
    "paired": {"penalty_r1", "penalty_r2", "penalty_matching", "penalty_image_norm", "penalty_sentence_norm"},
    "projected": {"overfitting", "lecam"},
}


@pytest.fixture(params=AIDS)
def aids(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def aided(aids: str, options: dict[str, Any]) -> dict[str, Any]:
    """The aids of a group; a model without text has nothing to match."""
    without = {"matching_penalty": None} if options.get("text_encoder") == "none" and "r2" in AIDS[aids] else {}
    return {**AIDS[aids], **without}


def weights(model: TextToImageGAN) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_it_trains_validates_and_is_saved(
    build: Any, build_data: Any, build_trainer: Any, aids: str, aided: dict[str, Any], tmp_path: Path
) -> None:
    model = build(**aided)
    before = weights(model)
    # three: below two parameters that start at 0, DF-GAN's first layers move in the third batch
    trainer = build_trainer(limit_train_batches=3, limit_val_batches=1, num_sanity_val_steps=1)
    trainer.fit(model, build_data())
    for network in ("generator", "discriminator"):
        own = [n for n, p in model.named_parameters() if n.startswith(f"{network}.") and p.requires_grad]
        unmoved = [n for n in own if torch.equal(before[n], model.state_dict()[n])]
        # the last bias adds the same to real and fake logits, whose gradients these losses balance
        assert all(n.startswith("discriminator.") and n.endswith(".bias") for n in unmoved)
        assert all(p.isfinite().all() for p in model.parameters())
    logged = {name.partition("_")[2] for name in trainer.callback_metrics if name.startswith("train/discriminator")}
    conditional = (
        {"penalty_matching", "penalty_image_norm", "penalty_sentence_norm"} if not model.conditional else set()
    )
    assert logged >= LOGGED[aids] - conditional
    trainer.save_checkpoint(tmp_path / "aided.ckpt")
    noise = model.noise(2)
    found = load_model(tmp_path / "aided.ckpt")
    assert isinstance(found, TextToImageGAN)
    # channels_last is not saved, and the other order of memory rounds otherwise
    drawn = model.eval().generate(CAPTIONS, noise=noise)
    assert torch.allclose(found.generate(CAPTIONS, noise=noise), drawn, atol=1e-5)


def test_resuming_is_never_having_stopped(
    build: Any, build_data: Any, build_trainer: Any, aids: str, aided: dict[str, Any], tmp_path: Path
) -> None:
    def save(trainer: L.Trainer, model: Any, *_: Any) -> None:
        if model.clock == 1:
            trainer.save_checkpoint(tmp_path / "middle.ckpt")

    options = {"limit_train_batches": 3}
    build_trainer(**options, callbacks=[LambdaCallback(on_train_batch_end=save)]).fit(
        first := build(**aided), build_data()
    )
    second = build(**aided)
    L.seed_everything(99, verbose=False)
    build_trainer(**options).fit(second, build_data(), ckpt_path=tmp_path / "middle.ckpt")
    assert second.clock == first.clock == 3
    one, two = weights(first), weights(second)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("aid", [{}, {**AIDS["projected"], "augment": ["color", "translation", "cutout"]}])
def test_channels_last_reaches_every_convolution(
    build: Any, build_data: Any, build_trainer: Any, aid: dict[str, Any]
) -> None:
    model, lost, seen = build(**{**aid, "channels_last": True}), set[str](), set[str]()

    def look(name: str, inputs: tuple[Tensor, ...]) -> None:
        seen.add(name)
        if not inputs[0].is_contiguous(memory_format=torch.channels_last):
            lost.add(name)

    for name, part in model.named_modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)) and name.startswith(("generator.", "discriminator.")):
            part.register_forward_pre_hook(lambda _, inputs, name=name: look(name, inputs))
    build_trainer(limit_train_batches=1).fit(model, build_data())
    assert any(name.startswith("generator.") for name in seen)
    assert any(name.startswith("discriminator.") for name in seen)
    assert lost == set()
