"""Finding the run of a checkpoint and the newest run, and keeping two processes out of one folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from t2i_zoo.errors import T2IError
from t2i_zoo.paths import find_weights
from t2i_zoo.runs import (
    check_no_overrides,
    lock,
    remove_failed_start,
    resolve_checkpoint,
    run_of_checkpoint,
)


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
    (tmp_path / "version_11").mkdir()  # a start that failed
    assert resolve_checkpoint("last", tmp_path) == resolve_checkpoint("auto", tmp_path) == newest


def test_last_is_no_older_run_where_the_newest_has_no_checkpoint(tmp_path):
    checkpoint(tmp_path / "version_0", age=50)
    (tmp_path / "version_1").mkdir()
    (tmp_path / "version_1" / "config.yaml").touch()  # killed in its first epoch
    with pytest.raises(T2IError, match=r"the newest run, .*version_1, ended before its first checkpoint: start again"):
        resolve_checkpoint("last", tmp_path)
    assert resolve_checkpoint("auto", tmp_path) is None


def test_a_file_that_happens_to_lie_beside_the_runs(tmp_path):
    (tmp_path / "config.yaml").touch()
    path = checkpoint(tmp_path / "version_0", age=50)
    assert resolve_checkpoint("last", tmp_path) == path


def test_auto_without_any_run(tmp_path):
    assert resolve_checkpoint("auto", tmp_path / "runs") is None


def test_one_process_in_a_run(tmp_path):
    held = lock(tmp_path)
    with pytest.raises(T2IError, match=f"another process is training in {tmp_path}: wait"):
        lock(tmp_path)
    held.release()
    lock(tmp_path).release()


@pytest.mark.parametrize("more", ["", "metrics.csv", "checkpoints/last.ckpt"])
def test_a_failed_start_is_removed_but_nothing_that_was_trained(more, tmp_path):
    run = tmp_path / "version_0"
    for name in ("run.lock", "config.yaml", "hparams.yaml", *([more] if more else [])):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    remove_failed_start(run)
    assert (run / more).exists() if more else not run.exists()


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
        resolve_checkpoint(str(tmp_path), tmp_path)
    with pytest.raises(T2IError, match="no checkpoint at"):
        resolve_checkpoint(str(tmp_path / "x.ckpt"), tmp_path)


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


def test_a_folder_of_several_configs_names_their_runs(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name / "version_0" / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "version_0" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(T2IError, match=r"several configs in .*, expected one: name .*first, .*second$"):
        find_weights(tmp_path)


def test_a_relative_checkpoint_is_of_a_relative_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / "version_0"
    assert run_of_checkpoint(folder / "checkpoints" / "last.ckpt") == folder
    monkeypatch.chdir(Path("/"))
    (tmp_path / "link.ckpt").symlink_to(tmp_path / folder / "checkpoints" / "last.ckpt")
    assert run_of_checkpoint(tmp_path / "link.ckpt") == tmp_path / folder
