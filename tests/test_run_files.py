"""Whole checkpoints after a failed save, and metrics that go on as if the run had never stopped."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.run_files import AtomicCheckpointIO, RunLogger, check_space

# Whole checkpoints --------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_saved_and_replaced(tmp_path):
    path, io = tmp_path / "new" / "last.ckpt", AtomicCheckpointIO()
    for value in (1, 2):
        io.save_checkpoint({"value": value}, path)
        assert torch.load(path, weights_only=True) == {"value": value}
        assert list(path.parent.iterdir()) == [path]


FULL = RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0")  # torch's words


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(28, "No space left on device"), T2IError),
        (FULL, T2IError),
        (RuntimeError("no disk"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_failed_save_leaves_the_former_checkpoint_whole(error, raised, tmp_path, monkeypatch):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"value": 1}, path)
    before = path.read_bytes()

    def full_disk(checkpoint, file):
        file.write(b"half of it")
        file.flush()
        raise error

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(raised) as found:
        io.save_checkpoint({"value": torch.zeros(400_000)}, path)
    if raised is T2IError:
        assert f"cannot write the checkpoint {path} of 1.6 MB" in str(found.value)
        assert "--ckpt_path last from the former one" in str(found.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_flush_leaves_the_former_checkpoint_whole(tmp_path, monkeypatch):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"value": 1}, path)

    def fail(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(T2IError, match="Input/output error"):
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


def test_a_copy_is_written_in_the_background(tmp_path):
    path, io, value = tmp_path / "last.ckpt", AtomicCheckpointIO(), torch.ones(3)
    io.save_checkpoint({"a": [value], "b": {"c": value}, "d": 3}, path, "background")
    value.zero_()  # training goes on
    io.teardown()
    found = torch.load(path, weights_only=True)
    assert found["a"][0].tolist() == found["b"]["c"].tolist() == [1.0, 1.0, 1.0]
    assert found["d"] == 3


def test_a_failure_in_the_background_is_raised_by_the_next_save(tmp_path, monkeypatch):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()

    def fail(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        io.save_checkpoint({"value": 1}, path, "background")
        with pytest.raises(T2IError, match="No space left"):
            io.save_checkpoint({"value": 2}, path, "background")
        io.save_checkpoint({"value": 3}, path, "background")
        io._thread.join()
    io.save_checkpoint({"value": 4}, path)  # which is newer than the one that failed, and is written
    assert torch.load(path, weights_only=True) == {"value": 4}


def test_another_file_does_not_stand_for_one_that_failed(tmp_path, monkeypatch):
    io = AtomicCheckpointIO()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        io.save_checkpoint({"value": 1}, tmp_path / "last.ckpt", "background")
        io._thread.join()
    with pytest.raises(T2IError, match=r"last.ckpt .*No space left"):
        io.save_checkpoint({"value": 1}, tmp_path / "epoch_0001.ckpt")
    assert (tmp_path / "epoch_0001.ckpt").is_file()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_replaces_nothing(value, tmp_path):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"state_dict": {"weight": torch.ones(2), "count": torch.tensor(3)}}, path)
    before = path.read_bytes()
    with pytest.raises(T2IError, match=r"last.ckpt is not written, .* weight with NaN or infinite values"):
        io.save_checkpoint({"state_dict": {"weight": torch.tensor([1.0, value])}}, path)
    assert path.read_bytes() == before


def test_the_room_for_checkpoints(tmp_path):
    check_space(tmp_path / "not" / "there" / "yet", 1000)
    with pytest.raises(T2IError, match=r"MB free for .*, expected 1,000,000,000,000 MB for two checkpoints"):
        check_space(tmp_path, 10**18)


# Metrics ------------------------------------------------------------------------------------------------------------


def logged(folder: Path, version: str, *rows: tuple[dict[str, float], int]) -> list[dict[str, str]]:
    logger = RunLogger(folder, version)
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


def kept(folder: Path, batches: int | None) -> list[dict[str, str]]:
    RunLogger(folder, "version_0", batches).experiment  # noqa: B018
    with (folder / "version_0" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_of_a_lost_training_are_dropped(tmp_path):
    logged(tmp_path, "version_0", *(({"loss": float(i)}, i) for i in range(6)))
    with (tmp_path / "version_0" / "metrics.csv").open("a") as file:
        file.write("7")  # the process was killed here
    assert [row["step"] for row in kept(tmp_path, None)][:6] == [str(i) for i in range(6)]
    assert [row["step"] for row in kept(tmp_path, 4)][:6] == [str(i) for i in range(6)]  # it may not come to training
    (resumed := RunLogger(tmp_path, "version_0", 4)).log_metrics({"loss": 4.0}, 4)
    assert (resumed.version, resumed.log_dir) == (0, str(tmp_path / "version_0"))  # as of a new run, for the bar
    found = kept(tmp_path, None)
    assert [row["step"] for row in found] == ["0", "1", "2", "3", "4"]
    assert found[-1] == {"loss": "4.0", "step": "4"}


def test_a_failed_rewrite_loses_no_row(tmp_path, monkeypatch):
    before = logged(tmp_path, "version_0", ({"loss": 1.0}, 0))

    def fail(self, rows):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(csv.DictWriter, "writerows", fail)
        with pytest.raises(OSError, match="No space"):
            logged(tmp_path, "version_0", ({"other": 1.0}, 1))
    assert kept(tmp_path, None) == before


def test_two_starts_at_once_get_two_folders(tmp_path):
    first, second = RunLogger(tmp_path), RunLogger(tmp_path)
    assert first.log_dir == second.log_dir  # both have looked
    assert [logger.claim().name for logger in (first, second)] == ["version_0", "version_1"]
    assert RunLogger(tmp_path, "version_1").claim() == tmp_path / "version_1"


def test_an_empty_metrics_file_of_a_killed_run(tmp_path):
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "metrics.csv").touch()
    assert logged(tmp_path, "version_0", ({"loss": 1.0}, 0)) == [{"loss": "1.0", "step": "0"}]
