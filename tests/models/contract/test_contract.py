"""What every listed model promises; a new model gets all of these tests for one line in ``TINY``."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from t2i_zoo.callbacks import SampleGrid
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.base import TextToImageGAN

CAPTIONS = ["a red flower with round petals", "a white blossom on the sand", "five blue petals"]
NETWORKS = ("discriminator", "generator")  # in the order of their steps


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.named_parameters()}


def trained(network: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters but those that a model froze when it was built, such as those of an earlier stage."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def same(first: Any, second: Any) -> bool:
    """Bit equality of nested dicts, lists and tensors, NaN never equal."""
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


class Steps(L.Callback):
    """Both networks just before each optimizer step and after the batch, and the gradients of each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, dict[str, Tensor]]] = []
        self.gradients: list[dict[str, Tensor | None]] = []
        self.optimized: list[set[int]] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.seen.append({part: parameters(getattr(pl_module, part)) for part in NETWORKS})
        self.optimized.append({id(p) for group in optimizer.param_groups for p in group["params"]})
        network = getattr(pl_module, NETWORKS[(len(self.seen) - 1) % 2])
        self.gradients.append({n: copy.deepcopy(p.grad) for n, p in trained(network).items()})

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.seen.append({part: parameters(getattr(pl_module, part)) for part in NETWORKS})
        trainer.should_stop = True


def keeper(folder: Path) -> ModelCheckpoint:
    """``last.ckpt`` after every epoch, as the command line sets it up."""
    return ModelCheckpoint(
        folder / "checkpoints", save_last=True, save_top_k=0, every_n_epochs=1, save_on_train_epoch_end=True
    )


def test_pictures_are_in_range(build: Any, options: dict[str, Any]) -> None:
    images = build().generate(CAPTIONS)
    assert images.shape == (3, 3, options["image_size"], options["image_size"])
    assert images.dtype == torch.float32
    assert -1 <= images.min() < images.max() <= 1


def test_a_seeded_generator_decides_the_pictures(build: Any) -> None:
    model = build()
    first, again, other = (model.generate(CAPTIONS, rng=torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_leaves_modes_and_buffers_alone(build: Any) -> None:
    model = build().train()
    before = copies(model)
    model.generate(CAPTIONS, ema=False)
    assert same(before, copies(model))
    assert model.generator.training
    assert not model.generator_ema.training
    assert not model.text_encoder.training


class Read(dict[str, Any]):
    """A batch that knows what was read of it."""

    def __getitem__(self, key: str) -> Any:
        self.seen = {*getattr(self, "seen", ()), key}
        return super().__getitem__(key)

    def get(self, key: str, *default: Any) -> Any:
        return self[key] if key in self else super().get(key, *default)


def test_mismatched_images_and_texts_come_only_where_they_are_read(build: Any, tiny_data: Any) -> None:
    model = build().train()
    batch: Any = Read(next(tiny_data.batches("train", model)))
    batch["text"], model.rng = model.encode(batch), torch.Generator()
    fakes = model.fake(batch)
    model.discriminator_loss(batch, fakes.detach())
    model.generator_loss(batch, fakes)
    assert {key for key in batch if key in ("wrong_images", "wrong_text")} == batch.seen & {
        "wrong_images",
        "wrong_text",
    }
    assert ("wrong_captions" in batch) == ("wrong_text" in batch) == model.needs.wrong_text
    assert "wrong_text" not in batch or batch["wrong_text"].words is None


def test_each_step_leaves_the_other_network_alone(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    steps = Steps()
    model = build()
    names = {part: trained(getattr(model, part)).keys() for part in NETWORKS}
    build_trainer(callbacks=[steps]).fit(model, tiny_data)
    before_d, before_g, after = steps.seen[:3]
    assert same(before_d["generator"], before_g["generator"])
    assert not same(before_d["discriminator"], before_g["discriminator"])
    assert same(before_g["discriminator"], after["discriminator"])
    assert not same(before_g["generator"], after["generator"])
    assert {part: trained(getattr(model, part)).keys() for part in NETWORKS} == names


def test_a_rate_of_zero_freezes_the_discriminator(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    model = build(discriminator_learning_rate=0.0)
    start = {part: parameters(getattr(model, part)) for part in NETWORKS}
    build_trainer().fit(model, tiny_data)
    assert same(start["discriminator"], parameters(model.discriminator))
    assert not same(start["generator"], parameters(model.generator))


def test_every_parameter_gets_a_gradient(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    steps = Steps()
    build_trainer(callbacks=[steps]).fit(model := build(), tiny_data)
    for part, gradients, optimized in zip(NETWORKS, steps.gradients, steps.optimized, strict=False):
        network = getattr(model, part)
        assert gradients.keys() == trained(network).keys()
        assert optimized == {id(p) for p in trained(network).values()}
        lacking = [n for n, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
        assert not lacking, f"{part}: no finite gradient for {lacking}"
        assert any(gradient.any() for gradient in gradients.values() if gradient is not None)


def test_the_average_is_one_lerp_after_one_batch(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    model = build()
    start = parameters(model.generator)
    build_trainer(limit_train_batches=1).fit(model, tiny_data)
    decay = 2 / 11  # (1 + clock) / (10 + clock) at clock 1, well below ema_decay
    for name, average in model.generator_ema.named_parameters():
        live = model.generator.get_parameter(name)
        assert not average.requires_grad
        torch.testing.assert_close(average, decay * start[name] + (1 - decay) * live)
    assert same(dict(model.generator.named_buffers()), dict(model.generator_ema.named_buffers()))


def test_the_average_is_another_network(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    build_trainer(limit_train_batches=3).fit(model := build(), tiny_data)
    live, average = parameters(model.generator), parameters(model.generator_ema)
    assert all(not torch.equal(live[n], average[n]) for n in trained(model.generator) if live[n].numel() > 1)
    places = {t.data_ptr() for t in model.generator.state_dict().values()}
    assert places.isdisjoint(t.data_ptr() for t in model.generator_ema.state_dict().values())
    noise = model.noise(3)
    assert not torch.equal(model.generate(CAPTIONS, noise=noise), model.generate(CAPTIONS, noise=noise, ema=False))


def test_a_checkpoint_draws_the_same(build: Any, build_trainer: Any, tiny_data: Any, tmp_path: Path) -> None:
    build_trainer(callbacks=[keeper(tmp_path)]).fit(model := build(), tiny_data)
    path, noise = tmp_path / "checkpoints" / "last.ckpt", model.noise(3)
    saved = torch.load(path, weights_only=True)
    assert same(saved["state_dict"], copies(model))
    assert set(saved["t2i_zoo"]["vocabulary"]) == tiny_data.vocabulary()
    wanted = model.eval().generate(CAPTIONS, noise=noise)
    for place in (path, tmp_path, tmp_path.parent):  # the file, the run's folder, the folder of runs
        found = load_model(place)
        assert type(found) is type(model)
        assert torch.equal(found.generate(CAPTIONS, noise=noise), wanted)
        assert found.clock == model.clock > 0
    assert found.unknown_words("a zxqv flower") == ["zxqv"]


def test_resuming_is_never_having_stopped(build: Any, build_data: Any, build_trainer: Any, tmp_path: Path) -> None:
    decay = {"lr_decay": 0.5, "lr_decay_every": 2}
    whole = build_trainer(max_epochs=2)
    whole.fit(build(**decay), build_data())
    build_trainer(max_epochs=1, callbacks=[keeper(tmp_path)]).fit(build(**decay), build_data())
    resumed, rest = build(**decay), build_trainer(max_epochs=2)
    L.seed_everything(99, verbose=False)  # a new process is in another random state
    rest.fit(resumed, build_data(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    first, second = whole.lightning_module, rest.lightning_module
    assert second.clock == first.clock == 6
    assert same(copies(first), copies(second))
    for one, two in zip(whole.optimizers, rest.optimizers, strict=True):
        assert same(one.state_dict(), two.state_dict())
        assert one.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert torch.equal(first.noise(2, first.rng), second.noise(2, second.rng))


def test_resuming_in_the_middle_of_an_epoch(build: Any, build_data: Any, build_trainer: Any, tmp_path: Path) -> None:
    def save(trainer: L.Trainer, model: Any, *_: Any) -> None:
        if model.clock == 5:  # the second epoch's second batch; GracefulStop saves at this point too
            trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole = build_trainer(max_epochs=2, callbacks=[LambdaCallback(on_train_batch_end=save)])
    whole.fit(first := build(), build_data())
    second = build()
    L.seed_everything(99, verbose=False)
    build_trainer(max_epochs=2).fit(second, build_data(), ckpt_path=tmp_path / "middle.ckpt")
    assert second.clock == first.clock == 6
    assert same(copies(first), copies(second))


def metrics_of_one_batch(model: TextToImageGAN, trainer: L.Trainer, data: Any) -> dict[str, float]:
    trainer.fit(model, data)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def test_half_precision_agrees_loosely(build: Any, build_data: Any, build_trainer: Any) -> None:
    single = metrics_of_one_batch(build(), build_trainer(limit_train_batches=1), build_data())
    trainer = build_trainer(limit_train_batches=1, precision="bf16-mixed")
    half = metrics_of_one_batch(model := build(), trainer, build_data())
    assert single.keys() == half.keys() >= {"train/discriminator_loss", "train/generator_loss"}
    assert half == pytest.approx(single, rel=0.1, abs=0.02)
    assert half != single
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.generate(CAPTIONS).dtype == torch.float32


class Caching(MixedPrecision):
    """Autocast as it is outside Lightning 2.6.6, and was in it: with a cache of half-precision weights."""

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=True)


def test_the_generator_meets_the_stepped_discriminator(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    """Without the toggles autocast would keep the discriminator's weights of before its step (trap 5)."""
    seen: dict[str, Any] = {}
    model = build(discriminator_learning_rate=0.1)
    original = model.generator_loss

    def watched(batch: Any, fakes: Any) -> Any:
        judge, again = model.discriminator, copy.deepcopy(model.discriminator)  # a forward may change its buffers
        losses = original(batch, fakes)
        model.discriminator = again
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            seen.update(met=losses["loss"].item(), fresh=original(batch, fakes)["loss"].item())
        model.discriminator = judge
        return losses

    model.generator_loss = watched
    build_trainer(limit_train_batches=1, plugins=[Caching("bf16-mixed", "cpu")]).fit(model, tiny_data)
    assert seen["met"] == pytest.approx(seen["fresh"], abs=1e-6)


def plain_values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (*plain_values(key), *plain_values(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from plain_values(inner)
    else:
        yield value


def test_hyperparameters_are_the_signature(build: Any) -> None:
    model = build()
    classes = [cls for cls in type(model).__mro__ if issubclass(cls, TextToImageGAN)]
    named = {key for cls in classes for key in inspect.signature(cls.__init__).parameters} - {"self", "options"}
    assert set(model.hparams) == named
    for value in plain_values(dict(model.hparams)):
        assert type(value) in (int, float, str, bool, type(None)), f"{value!r} cannot be loaded with weights_only=True"


def test_samples_do_not_change_the_training(build: Any, build_data: Any, build_trainer: Any, tmp_path: Path) -> None:
    build_trainer(max_epochs=2).fit(alone := build(), build_data())
    watcher = build_trainer(max_epochs=2, callbacks=[SampleGrid(1, rows=2, columns=2)])
    watcher.fit(watched := build(), build_data())
    assert same(copies(alone), copies(watched))
    drawn = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert drawn == ["epoch_0001.png", "epoch_0002.png"]


def test_fast_dev_run(build: Any, build_trainer: Any, tiny_data: Any, tmp_path: Path) -> None:
    trainer = build_trainer(fast_dev_run=True, limit_val_batches=1, callbacks=[SampleGrid(1)])
    trainer.fit(model := build(), tiny_data)
    assert model.clock == 1
    assert math.isfinite(trainer.callback_metrics["val/generator_loss"])
    assert not list(tmp_path.rglob("*.png"))


def test_a_loaded_model_is_trained_in_training_mode(
    build: Any, build_trainer: Any, build_data: Any, tmp_path: Path
) -> None:
    """Lightning leaves modes alone, and what ``load_model`` gives is in eval mode."""
    model, seen = build(), list[bool]()
    trainer = build_trainer(limit_train_batches=1)
    trainer.fit(model, build_data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = load_model(tmp_path / "last.ckpt")
    again.generator.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    build_trainer(limit_train_batches=1).fit(again, build_data())
    assert seen[0]
    assert not any(module.training for module in again.generator_ema.modules())


def test_calling_a_model_gives_pictures(build: Any) -> None:
    model = build().eval()
    captions = CAPTIONS[:2] if model.conditional else ["", ""]
    rows = model(captions, n=2, seed=3)
    assert [len(row) for row in rows] == [2, 2]
    again = model(captions[1], n=2, seed=3)
    assert [image.tobytes() for image in again] == [image.tobytes() for image in rows[1]]
    side = model.hparams["image_size"]
    assert {(image.size, image.mode) for row in rows for image in row} == {((side, side), "RGB")}
    noise = model.noise(2, torch.Generator().manual_seed(3))
    pixels = model.generate([captions[1]] * 2, noise=noise).add(1).mul(127.5).round().byte()
    assert again[1].tobytes() == pixels[1].permute(1, 2, 0).numpy().tobytes()
    assert rows[0][0].tobytes() != rows[0][1].tobytes()
    with pytest.raises(T2IError, match=r"found n=0, expected an integer from 1"):
        model(captions[0], n=0)
