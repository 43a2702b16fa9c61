"""Signals during training: the batch is finished and saved, the process is left as it was."""

from __future__ import annotations

import os
import shutil
import signal

import lightning as L
import pytest
import torch

from t2i_zoo.callbacks import GracefulStop, ResumePoint
from t2i_zoo.models import load_model
from t2i_zoo.models.gancls import GANCLS

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals(L.Callback):
    """Send this process signals in the middle of one batch."""

    def __init__(self, *numbers: int, at: int = 2) -> None:
        self.numbers, self.at = numbers, at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)


@pytest.fixture
def fit(tmp_path, build_data, build_trainer, tiny_options):
    """``fit(*callbacks)``: train five batches with a checkpoint at the end; returns the model."""

    def run(*callbacks, **options):
        model = GANCLS(generator_width=8, discriminator_width=4, projection_dim=8, **tiny_options)
        run.model = model
        every = {"callbacks": [*callbacks, ResumePoint()], "limit_train_batches": 5, **options}
        build_trainer(**every).fit(model, build_data())
        return model

    run.options, run.trainer, run.data = tiny_options, build_trainer, build_data
    return run


@pytest.fixture(autouse=True)
def handlers():
    """Ours of this test, put back at its end whatever happens."""
    former = {number: signal.getsignal(number) for number in SIGNALS}
    mine = {number: (lambda *args: None) for number in SIGNALS}
    for number, handler in mine.items():
        signal.signal(number, handler)
    yield mine
    for number, handler in former.items():
        signal.signal(number, handler)


def current() -> dict[int, object]:
    return {number: signal.getsignal(number) for number in SIGNALS}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_the_batch_and_leaves(number, code, fit, tmp_path, handlers, capsys):
    with pytest.raises(SystemExit) as stop:
        fit(GracefulStop(), Signals(number))
    assert stop.value.code == code
    assert current() == handlers  # given back
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["t2i_zoo"]["clock"] == 3  # the third batch was finished
    saved = load_model(path).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in fit.model.state_dict().items())
    assert f"stopped after batch 3, saved {path}; continue with --ckpt_path last" in capsys.readouterr().out


def test_both_signals_are_one_stop(fit, tmp_path, handlers):
    with pytest.raises(SystemExit) as stop:
        fit(GracefulStop(), Signals(signal.SIGINT, signal.SIGTERM))
    assert stop.value.code == 0
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert current() == handlers


def test_a_second_ctrl_c_stops_at_once(fit, tmp_path):
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stop:
        fit(GracefulStop(), Signals(signal.SIGINT, signal.SIGINT))
    assert getattr(stop.value, "code", 1) != 0
    assert fit.model.clock == 2  # the batch was not finished
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_without_a_signal_training_ends_and_gives_the_handlers_back(fit, handlers):
    assert fit(GracefulStop()).clock == 5
    assert current() == handlers


class Broken(L.Callback):
    def on_train_batch_start(self, *args) -> None:
        raise ValueError("broken")


def test_an_error_gives_the_handlers_back_too(fit, handlers):
    with pytest.raises(ValueError, match="broken"):
        fit(GracefulStop(), Broken())
    assert current() == handlers


class Absent(L.Callback):
    def on_fit_start(self, *args) -> None:
        raise ValueError("no Stage I")


def test_a_callback_serves_for_several_runs(fit, build_trainer):
    stop = GracefulStop()
    with pytest.raises(SystemExit):
        fit(stop, Signals(signal.SIGTERM, at=1))
    assert fit(stop).clock == 5  # the signal was of the former run
    trainer = build_trainer(callbacks=[stop, Absent()], max_steps=6)
    with pytest.raises(ValueError, match="no Stage I"):
        trainer.fit(fit(stop), fit.data())
    assert trainer.max_steps == 6


def test_without_a_resume_point_it_says_nothing_was_saved(tmp_path, build_data, build_trainer, tiny_options, capsys):
    model = GANCLS(generator_width=8, discriminator_width=4, projection_dim=8, **tiny_options)
    trainer = build_trainer(callbacks=[GracefulStop(), Signals(signal.SIGTERM, at=0)])
    with pytest.raises(SystemExit):
        trainer.fit(model, build_data())
    said = capsys.readouterr().out
    assert "stopped after batch 1" in said
    assert "saved" not in said


def test_a_signal_in_the_last_batch_of_an_epoch_leaves_the_end_of_the_epoch_whole(fit, tmp_path):
    ends = []
    note = L.pytorch.callbacks.LambdaCallback(on_train_epoch_end=lambda trainer, model: ends.append(model.clock))
    L.seed_everything(0, verbose=False)
    with pytest.raises(SystemExit):
        fit(GracefulStop(), Signals(signal.SIGTERM, at=4), note, max_epochs=3)
    path = shutil.copy(tmp_path / "checkpoints" / "last.ckpt", tmp_path / "stopped.ckpt")
    assert ends == [5]
    assert torch.load(path, weights_only=True)["t2i_zoo"]["clock"] == 6  # the first batch of the second epoch
    L.seed_everything(0, verbose=False)
    fit(GracefulStop(), note, max_epochs=3)  # the same without a stop
    whole = fit.model.state_dict()
    del ends[1:]  # as of the stopped one
    model = GANCLS(generator_width=8, discriminator_width=4, projection_dim=8, **fit.options)
    every = {"callbacks": [GracefulStop(), note, ResumePoint()], "limit_train_batches": 5, "max_epochs": 3}
    fit.trainer(**every).fit(model, fit.data(), ckpt_path=path, weights_only=True)
    assert ends == [5, 10, 15]
    assert all(torch.equal(whole[name], value) for name, value in model.state_dict().items())


def test_epochs_of_one_batch_can_be_stopped(fit):
    with pytest.raises(SystemExit):
        fit(GracefulStop(), Signals(signal.SIGTERM, at=0), limit_train_batches=1, max_epochs=50)
    assert fit.model.clock == 1
