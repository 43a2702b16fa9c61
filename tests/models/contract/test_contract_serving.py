"""What every encoder, caption writer and classifier promises; a new one gets all these tests for its line in TINY."""

from __future__ import annotations

import functools
import inspect
import runpy
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from t2i_zoo.errors import T2IError
from t2i_zoo.models import list_models, load_model, model_class
from t2i_zoo.models.serving import ServingModule

_HELP = runpy.run_path(str(Path(__file__).with_name("test_contract.py")))  # by its path, as in the GANs' conftest
TINY = runpy.run_path(str(Path(__file__).parents[2] / "conftest.py"))["TINY"]
copies, keeper, same, plain_values = (_HELP[name] for name in ("copies", "keeper", "same", "plain_values"))


def variants() -> list[str]:
    """The models that draw nothing and, behind a colon, their variants in ``TINY``."""
    names = [name for name in list_models() if name not in list_models("gan")]
    return [key for name in names for key in [name, *(k for k in TINY if k.startswith(f"{name}:"))]]


@pytest.fixture(params=variants())
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def options(variant: str, tiny_widths: Any) -> dict[str, Any]:
    return tiny_widths(variant)


@pytest.fixture
def build_data(build_data: Any) -> Any:
    """Pictures whose classes are all in the training split, which a classifier wants."""
    return functools.partial(build_data, split="random")


@pytest.fixture
def build(name: str, options: dict[str, Any]) -> Any:
    """``build(learning_rate=0.1)``: the model under test with seeded weights; the seed also rules the training."""

    def seeded(**changed: Any) -> ServingModule:
        L.seed_everything(3, verbose=False)
        found = model_class(name)(**{**options, **changed})
        assert isinstance(found, ServingModule)
        return found

    return seeded


def test_every_parameter_gets_a_gradient(build: Any, build_trainer: Any, build_data: Any) -> None:
    build_trainer(limit_train_batches=1).fit(model := build(), build_data())
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not lacking
    assert any(p.grad.any() for p in model.parameters())


def test_resuming_is_never_having_stopped(build: Any, build_data: Any, build_trainer: Any, tmp_path: Path) -> None:
    """From the end of an epoch, and from the middle of one."""

    def save(trainer: L.Trainer, model: Any, *_: Any) -> None:
        if model.clock == 5:  # the second epoch's second batch
            trainer.save_checkpoint(tmp_path / "middle.ckpt")

    watch = LambdaCallback(on_train_batch_end=save)
    whole = build_trainer(max_epochs=2, callbacks=[keeper(tmp_path), watch])
    whole.fit(first := build(), build_data())
    build_trainer(max_epochs=1, callbacks=[keeper(tmp_path)]).fit(build(), build_data())
    for path in (tmp_path / "checkpoints" / "last.ckpt", tmp_path / "middle.ckpt"):
        second, rest = build(), build_trainer(max_epochs=2)
        L.seed_everything(99, verbose=False)  # a new process is in another random state
        rest.fit(second, build_data(), ckpt_path=path)
        assert second.clock == first.clock == 6
        assert same(copies(first), copies(second))
        assert same(whole.optimizers[0].state_dict(), rest.optimizers[0].state_dict())


def test_a_checkpoint_is_whole(build: Any, build_trainer: Any, build_data: Any, tmp_path: Path) -> None:
    trainer = build_trainer(limit_train_batches=1, callbacks=[keeper(tmp_path)])
    trainer.fit(model := build(), build_data())
    found = load_model(tmp_path)
    assert type(found) is type(model)
    assert same(copies(found), copies(model))
    assert found.clock == model.clock == 1
    assert not found.training
    if model.known is not None:
        assert found.known.words == model.known.words != []
    build_trainer(limit_train_batches=1).fit(found, build_data())
    assert found.training
    if model.known is not None:  # words that are there stay
        assert found.known.words == model.known.words
    if "weights" in model.hparams:
        source, started = copies(model), copies(build(weights=str(tmp_path)))
        names = [name for name in source if name.startswith(model.parts)]
        assert names
        assert all(torch.equal(started[name], source[name]) for name in names)


def test_hyperparameters_are_the_signature(build: Any) -> None:
    model = build()
    assert set(model.hparams) == set(inspect.signature(type(model).__init__).parameters) - {"self"}
    for value in plain_values(dict(model.hparams)):
        assert type(value) in (int, float, str, bool, type(None)), f"{value!r} cannot be loaded with weights_only=True"


def test_half_precision_agrees_loosely(build: Any, build_trainer: Any, build_data: Any) -> None:
    found = []
    for precision in ("32", "bf16-mixed"):
        trainer = build_trainer(limit_train_batches=1, precision=precision)
        trainer.fit(model := build(), build_data())
        found.append(float(trainer.callback_metrics["train/loss"]))
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert found[0] != found[1] == pytest.approx(found[0], rel=0.15)


def test_judging_leaves_the_model_alone_and_repeats(build: Any, build_trainer: Any, build_data: Any) -> None:
    build_trainer(limit_train_batches=1).fit(model := build(), build_data())
    before = copies(model)
    judge = build_trainer(limit_val_batches=1.0)
    found = [judge.validate(model, build_data(), verbose=False)[0] for _ in range(2)]
    assert found[0] == found[1]
    assert all(key.startswith("val/") for key in found[0])
    assert "val/loss" in found[0]
    assert same(before, copies(model))


def test_judging_does_not_change_the_training(build: Any, build_trainer: Any, build_data: Any) -> None:
    build_trainer(max_epochs=2).fit(plain := build(), build_data())
    build_trainer(max_epochs=2, limit_val_batches=1.0).fit(judged := build(), build_data())
    assert same(copies(plain), copies(judged))


def test_it_draws_no_pictures(build: Any, build_trainer: Any, build_data: Any) -> None:
    with pytest.raises(T2IError, match="generates no images: "):
        build_trainer(limit_predict_batches=1).predict(build(), build_data())
