"""The resume point: when it is written, that every end of a run leaves one, and that it continues bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch.callbacks import EarlyStopping, timer

from t2i_zoo.callbacks import FurtherCheckpoints, GracefulStop, ResumePoint, SampleGrid, further_checkpoints, resume
from t2i_zoo.errors import T2IError
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.run_files import AtomicCheckpointIO

BATCHES = 5  # in an epoch


class StopAt(L.Callback):
    """End the training after some batches, as callbacks of Lightning's do."""

    def __init__(self, clock: int) -> None:
        self.clock = clock

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        trainer.should_stop = trainer.should_stop or pl_module.clock == self.clock


class Saves(L.Callback):
    """Batches at which a checkpoint was taken."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint) -> None:
        self.seen.append(pl_module.clock)


@pytest.fixture
def fit(tmp_path, build_data, build_trainer, tiny_options):
    """``fit(*callbacks, max_epochs=2)``: train and resume in one folder; returns the trainer."""

    def run(*callbacks, resumed=False, folder: Any = tmp_path, **options) -> L.Trainer:
        L.seed_everything(99 if resumed else 3, verbose=False)
        model = GANCLS(
            **{"generator_width": 8, "discriminator_width": 4, "projection_dim": 8, "lr_decay": 0.5},
            **{**tiny_options, "lr_decay_every": 2},
        )
        more = {"limit_train_batches": BATCHES, "plugins": [AtomicCheckpointIO()], **options}
        trainer = build_trainer(callbacks=[GracefulStop(), *callbacks, ResumePoint()], folder=folder, **more)
        trainer.fit(model, build_data(), ckpt_path=last(folder) if resumed else None)
        return trainer

    return run


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def assert_same(one: L.Trainer, two: L.Trainer) -> None:
    """The same weights, optimizers, learning rates and random numbers."""
    first, second = one.lightning_module, two.lightning_module
    assert first.clock == second.clock
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    for a, b in zip(one.optimizers, two.optimizers, strict=True):
        assert a.param_groups[0]["lr"] == b.param_groups[0]["lr"]
        for index, moments in a.state_dict()["state"].items():
            assert all(torch.equal(v, b.state_dict()["state"][index][k]) for k, v in moments.items())
    assert torch.equal(first.rng.get_state(), second.rng.get_state())


ENDS: dict[str, tuple[list[Any], dict[str, Any]]] = {  # after 7 batches, or 10, in the second of three epochs
    "max_steps in an epoch": ([], {"max_steps": 14}),
    "max_steps at an epoch's end": ([], {"max_steps": 20}),
    "a callback in an epoch": ([StopAt(7)], {}),
    "a callback in an epoch's last batch": ([StopAt(10)], {}),
    "an epoch's end": ([], {"max_epochs": 2}),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 30}], ids=["epochs", "steps"])
def test_whatever_ends_a_run_it_continues_as_if_nothing_had(end, limits, fit, tmp_path):
    callbacks, options = ENDS[end]
    stopped = fit(*callbacks, **{"max_epochs": 3, **options})
    assert stopped.lightning_module.clock in (7, 10)
    saved = torch.load(last(tmp_path), weights_only=True)
    assert saved["t2i_zoo"]["clock"] == stopped.lightning_module.clock
    whole = fit(folder=tmp_path / "whole", max_epochs=3)
    resumed = fit(resumed=True, **limits)
    assert whole.lightning_module.clock == 15
    assert_same(whole, resumed)
    assert resumed.current_epoch == 3


def test_the_learning_rate_moves_only_with_whole_epochs(fit):
    assert fit(max_epochs=3, max_steps=8).optimizers[0].param_groups[0]["lr"] == 1e-3
    assert fit(max_epochs=3, max_steps=10).optimizers[0].param_groups[0]["lr"] == 5e-4


def test_max_time_stops_between_two_batches(fit, tmp_path, monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(timer, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    trainer = fit(max_epochs=3, max_time="00:00:00:03")
    saved = torch.load(last(tmp_path), weights_only=True)["t2i_zoo"]["clock"]
    assert saved == trainer.lightning_module.clock
    assert 0 < saved < BATCHES
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1e-3


def test_a_run_that_ends_in_an_epoch_has_a_last_grid(fit, tmp_path):
    fit(SampleGrid(every_n_epochs=3, rows=1, columns=1), max_epochs=3, max_steps=14)
    assert [path.name for path in tmp_path.rglob("epoch_*.png")] == ["epoch_0002.png"]


# When it is written -------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """The time that resume points see; each look at it takes ``clock.step`` seconds."""

    class Clock:
        now, step = 0.0, 0.0

        def monotonic(self) -> float:
            self.now += self.step
            return self.now

    found = Clock()
    monkeypatch.setattr(resume, "time", found)
    return found


def test_quick_epochs_are_not_all_saved_but_the_first_and_the_last_are(clock, fit, tmp_path):
    saves = Saves()
    fit(saves, max_epochs=4, limit_train_batches=2)
    assert saves.seen == [2, 8]
    assert torch.load(last(tmp_path), weights_only=True)["t2i_zoo"]["clock"] == 8


def test_slow_epochs_are_all_saved(clock, fit):
    clock.step, saves = 11.0, Saves()
    fit(saves, max_epochs=4, limit_train_batches=2, plugins=[])  # by Lightning's writer: ours may still be at work
    assert saves.seen == [2, 4, 6, 8]


def test_a_long_epoch_is_saved_by_time(clock, fit, tmp_path):
    clock.step, saves = 250.0, Saves()  # ten minutes are three looks
    fit(saves, max_epochs=1)
    assert saves.seen[0] == 3
    assert saves.seen[-1] == BATCHES


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_that_cannot_be(minutes):
    with pytest.raises(T2IError, match=r"found --resume.minutes .*, expected a number above 0 such as 10"):
        ResumePoint(minutes)


def test_without_room_for_two_checkpoints_nothing_starts(fit, monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(T2IError, match=r"found 0 MB free for .*checkpoints, expected \d+ MB for two checkpoints"):
        fit()
    assert not list(tmp_path.iterdir())


def test_an_address_is_no_folder(fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(T2IError, match=r"found --trainer.default_root_dir s3://place/run, expected a folder of this"):
        fit(folder="s3://place/run")
    assert not list(tmp_path.iterdir())


def test_a_monitor_of_validation_is_looked_at_where_that_ran(fit, tmp_path):
    more = FurtherCheckpoints(
        dirpath=tmp_path / "more", filename="{epoch}", monitor="val/generator_loss", save_top_k=-1,
        save_on_train_epoch_end=True, auto_insert_metric_name=False,
    )  # fmt: skip
    fit(more, max_epochs=3, check_val_every_n_epoch=2, limit_val_batches=1, num_sanity_val_steps=0)
    assert [path.name for path in (tmp_path / "more").iterdir()] == ["1.ckpt"]


# Further checkpoints ------------------------------------------------------------------------------------------------

PLAIN = {"filename": None, "monitor": None, "every_n_epochs": None, "every_n_train_steps": None, "save_top_k": 0}
OLD = {"filename": "last", "every_n_epochs": 1, "save_top_k": 1}  # what configs of earlier versions say
NAME = "epoch_{epoch:04d}"


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ({}, (None, 0)),
        (OLD, (None, 0)),
        ({**OLD, "every_n_epochs": 10}, (NAME, 1)),
        ({"every_n_epochs": 10}, (NAME, -1)),
        ({"every_n_epochs": 10, "save_top_k": 2}, (NAME, 2)),
        ({"monitor": "val/x"}, (NAME, 1)),
        ({"filename": "{epoch}"}, ("{epoch}", -1)),
        ({"save_top_k": -1}, (NAME, -1)),
    ],
)
def test_options_of_further_checkpoints(given, completed):
    options = Namespace(**{**PLAIN, "train_time_interval": None, **given})
    further_checkpoints(options)
    assert (options.filename, options.save_top_k) == completed
    again = options.clone()
    further_checkpoints(again)  # of the config that the run has saved
    assert again == options


@pytest.mark.parametrize("name", ["", "/"])
def test_a_further_checkpoint_without_a_name(name):
    with pytest.raises(T2IError, match=f"found --checkpoint.filename '{name}', expected a name such as epoch_"):
        further_checkpoints(Namespace(**{**PLAIN, "filename": name}))


def test_further_checkpoints_never_touch_the_resume_point(fit, tmp_path):
    options = {"save_top_k": -1, "every_n_epochs": 2, "auto_insert_metric_name": False}
    further = FurtherCheckpoints(tmp_path / "checkpoints", NAME, save_on_train_epoch_end=True, **options)
    fit(further, max_epochs=5, limit_train_batches=1)
    kept = {p.name: torch.load(p, weights_only=True)["t2i_zoo"]["clock"] for p in last(tmp_path).parent.iterdir()}
    assert kept == {"last.ckpt": 5, "epoch_0001.ckpt": 2, "epoch_0003.ckpt": 4}


def test_early_stopping_saves_the_end(fit, tmp_path):
    stopper = EarlyStopping("train/generator_loss", patience=0, check_on_train_epoch_end=True, stopping_threshold=1e9)
    fit(stopper, max_epochs=5)
    assert torch.load(last(tmp_path), weights_only=True)["t2i_zoo"]["clock"] == BATCHES
