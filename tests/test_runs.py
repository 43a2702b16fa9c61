"""Finding the run of a checkpoint and the newest run, whole checkpoints after a failed save, metrics that go on."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.runs import AtomicCheckpointIO, RunLogger, check_no_overrides, resolve_checkpoint, run_of_checkpoint


def checkpoint(folder: Path, age: float = 0.0) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_run_of_a_checkpoint(tmp_path, monkeypatch):
    path = checkpoint(tmp_path / "version_3")
    assert run_of_checkpoint(path) == tmp_path / "version_3"
    monkeypatch.chdir(path.parent)
    assert run_of_checkpoint(Path("last.ckpt")) == tmp_path / "version_3"


@pytest.mark.parametrize("place", ["model.ckpt", "checkpoints/model.ckpt", "version_0/model.ckpt"])
def test_a_checkpoint_without_a_run(place, tmp_path):
    assert run_of_checkpoint(tmp_path / "elsewhere" / place) is None


def test_last_is_the_run_that_was_saved_last(tmp_path):
    checkpoint(tmp_path / "version_10", age=50)
    newest = checkpoint(tmp_path / "version_1", age=10)  # resumed after version_10 had ended
    checkpoint(tmp_path / "version_2", age=99)
    (tmp_path / "version_11").mkdir()  # died before its first checkpoint
    assert resolve_checkpoint("last", tmp_path) == newest


@pytest.mark.parametrize("wish", ["version_0", "version_0/checkpoints", "version_0/checkpoints/last.ckpt", "."])
def test_a_checkpoint_by_file_run_or_folder_of_runs(wish, tmp_path):
    path = checkpoint(tmp_path / "version_0")
    assert resolve_checkpoint(str(tmp_path / wish), tmp_path / "unused").resolve() == path


def test_a_path_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = checkpoint(tmp_path / "version_0")
    assert resolve_checkpoint("~/version_0", tmp_path) == path


def test_nothing_to_resume(tmp_path):
    with pytest.raises(T2IError, match=r"no run to resume in .*runs: start one without --ckpt_path"):
        resolve_checkpoint("last", tmp_path / "runs")
    with pytest.raises(T2IError, match="no last"):
        resolve_checkpoint("last", tmp_path)
    with pytest.raises(T2IError, match="no checkpoint at"):
        resolve_checkpoint(str(tmp_path / "x.ckpt"), tmp_path)


# Whole checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_saved_and_replaced(tmp_path):
    path, io = tmp_path / "new" / "last.ckpt", AtomicCheckpointIO()
    for value in (1, 2):
        io.save_checkpoint({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_former_checkpoint_whole(error, tmp_path, monkeypatch):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"value": 1}, path)
    before = path.read_bytes()

    def full_disk(checkpoint, file):
        file.write(b"half of it")
        file.flush()
        raise error

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(type(error)):
        io.save_checkpoint({"value": 2}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_flush_leaves_the_former_checkpoint_whole(tmp_path, monkeypatch):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"value": 1}, path)

    def fail(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        io.save_checkpoint({"value": 2}, path)
    assert torch.load(path, weights_only=True) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_name_appears_only_once_the_file_is_whole(tmp_path, monkeypatch):
    path, seen = tmp_path / "last.ckpt", []
    original = torch.save

    def watch(checkpoint, file):
        original(checkpoint, file)
        seen.append(path.exists())

    monkeypatch.setattr(torch, "save", watch)
    AtomicCheckpointIO().save_checkpoint({"value": 1}, path)
    assert seen == [False]
    assert path.is_file()


def test_what_a_killed_process_left_is_swept_up(tmp_path):
    stale, other = tmp_path / ".last.ckpt.99999.partial", tmp_path / ".other.ckpt.99999.partial"
    stale.write_bytes(b"half")
    other.write_bytes(b"half")
    AtomicCheckpointIO().save_checkpoint({"value": 1}, tmp_path / "last.ckpt")
    assert not stale.exists()
    assert other.exists()


# Metrics ------------------------------------------------------------------------------------------------------------


def logged(folder: Path, version: str, *rows: tuple[dict[str, float], int]) -> list[dict[str, str]]:
    logger = RunLogger(folder, "", version)
    for values, step in rows:
        logger.log_metrics(values, step)
        logger.save()
    with (folder / version / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_second_logger_of_the_same_run_appends(tmp_path):
    logged(tmp_path, "version_0", ({"loss": 1.0}, 0), ({"loss": 0.5}, 1))
    found = logged(tmp_path, "version_0", ({"loss": 0.25}, 2))
    assert found == [{"loss": str(v), "step": str(i)} for i, v in enumerate((1.0, 0.5, 0.25))]


def test_new_columns_leave_the_old_rows(tmp_path):
    logged(tmp_path, "version_0", ({"loss": 1.0}, 0))
    found = logged(tmp_path, "version_0", ({"val": 2.0}, 1), ({"loss": 3.0}, 2))
    assert [(row["loss"], row["val"]) for row in found] == [("1.0", ""), ("", "2.0"), ("3.0", "")]


def test_an_empty_metrics_file_of_a_killed_run(tmp_path):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "metrics.csv").touch()
    assert logged(tmp_path, "version_0", ({"loss": 1.0}, 0)) == [{"loss": "1.0", "step": "0"}]


# No overrides -------------------------------------------------------------------------------------------------------

SAVED = {"learning_rate": 0.1, "weights": None, "text_encoder": {"kind": "hashing", "assets": {"a": 1}}}


def test_a_resumed_run_with_the_same_options(tmp_path):
    asked = {"learning_rate": 0.1, "weights": "start.ckpt", "text_encoder": {"kind": "hashing"}, "new_option": 1}
    check_no_overrides(SAVED, asked, tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"learning_rate": 0.2}, r"--model.learning_rate 0.1 and the command says 0.2.*--model.weights"),
        ({"text_encoder": {"kind": "hashing", "dim": 3}}, "--model.text_encoder"),
    ],
)
def test_a_resumed_run_with_other_options(asked, said, tmp_path):
    with pytest.raises(T2IError, match=said):
        check_no_overrides(SAVED, asked, tmp_path / "last.ckpt")


def test_a_resumed_run_no_longer_needs_what_it_began_from(tmp_path):
    saved, asked = {**SAVED, "stage1": None}, {**SAVED, "stage1": "runs/one"}  # as after a first resume
    check_no_overrides(saved, asked, tmp_path / "last.ckpt", ("weights", "stage1"))
    with pytest.raises(T2IError, match=r"--model\.stage1 None and the command says runs/one"):
        check_no_overrides(saved, asked, tmp_path / "last.ckpt")
