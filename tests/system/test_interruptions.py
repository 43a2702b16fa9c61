"""Killed and stopped runs, as a user meets them: in a process of their own, resumed by the command line."""

import contextlib
import io
import signal
from pathlib import Path

import pytest
import torch
from processes import Process

from t2i_zoo.__main__ import main

TINY = Path(__file__).parents[1] / "tiny.yaml"
EPOCHS, BATCHES = 2, 8


def command(folder: Path, *more: str) -> list[str]:
    words = ["fit", "--config", "gancls_synthetic", "--config", str(TINY), "--data.batch_size", "4"]
    words += ["--data.source.images", "64", "--data.source.size", "24", "--trainer.default_root_dir", str(folder)]
    words += ["--trainer.max_epochs", str(EPOCHS), "--trainer.limit_train_batches", str(BATCHES)]
    return [*words, "--trainer.check_val_every_n_epoch", "1", "--samples.every_n_epochs", "1", *more]


BATCH_START = f"on_train_batch_start(self, trainer, module, *_):\n        if module.clock == {BATCHES + 5}"


def interrupted(folder: Path, number: signal.Signals, moment: str = BATCH_START) -> tuple[int, str]:
    """Exit code and output of a run that is sent a signal, in the middle of its second epoch unless told otherwise."""
    (folder.parent / "tests_signal.py").write_text(
        "import os, lightning as L\n\n"
        "class Signal(L.Callback):\n"
        f"    def {moment}:\n"
        f"            os.kill(os.getpid(), {number:d})\n"
    )
    words = ["-m", "t2i_zoo", *command(folder, "--trainer.callbacks+", "tests_signal.Signal")]
    log = folder.parent / "log"
    code = Process(words, log, PYTHONPATH=str(folder.parent)).wait()
    return code, log.read_text()


def last(folder: Path) -> Path:
    return folder / "version_0" / "checkpoints" / "last.ckpt"


def differences(a, b, path="") -> list[str]:
    """Where two checkpoints differ, bit for bit."""
    if isinstance(a, torch.Tensor):
        return [] if isinstance(b, torch.Tensor) and torch.equal(a, b) else [path]
    if isinstance(a, dict):
        if set(a) != set(b):
            return [f"{path}: keys {set(a) ^ set(b)}"]
        return [d for key in a for d in differences(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, (list, tuple)):
        return [d for i, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{path}.{i}")]
    return [] if a == b else [path]


def assert_same_end(folder: Path, reference: Path) -> None:
    ours, theirs = (torch.load(last(f), weights_only=True) for f in (folder, reference))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "t2i_zoo", "epoch", "global_step"):
        assert not differences(ours[part], theirs[part], part)
    rows = [(f / "version_0" / "metrics.csv").read_text().splitlines() for f in (folder, reference)]
    assert rows[0] == rows[1]
    # the header, and of each epoch its batches, its validation and what its grid shows
    assert len(rows[0]) == 1 + EPOCHS * (BATCHES + 2)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(command(folder)) == 0
    assert "samples with their captions: " in said.getvalue()
    return folder


def test_sigkill_in_an_epoch_resumes_from_the_last_whole_one(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    code, output = interrupted(folder, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert torch.load(last(folder), weights_only=True)["t2i_zoo"]["clock"] == BATCHES
    rows = (folder / "version_0" / "metrics.csv").read_text().splitlines()
    assert len(rows) > 1 + BATCHES + 1  # some of the epoch that is repeated
    assert main(command(folder, "--ckpt_path", "auto")) == 0
    assert not (folder / "version_1").exists()  # it went on in place
    assert_same_end(folder, uninterrupted)


def test_sigterm_saves_the_batch_and_exits_cleanly(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    code, output = interrupted(folder, signal.SIGTERM)
    assert code == 0, output
    assert "stopped after batch" in output
    assert "Traceback" not in output
    saved = torch.load(last(folder), weights_only=True)
    assert saved["t2i_zoo"]["clock"] == BATCHES + 6  # in the middle of an epoch
    assert main(command(folder, "--ckpt_path", "last")) == 0
    assert_same_end(folder, uninterrupted)


def test_ctrl_c_saves_and_says_130(tmp_path):
    folder = tmp_path / "run"
    code, output = interrupted(folder, signal.SIGINT)
    assert code == 130, output
    assert "Traceback" not in output
    assert "continue with --ckpt_path last" in output
    assert torch.load(last(folder), weights_only=True)["t2i_zoo"]["clock"] == BATCHES + 6
    assert not list(last(folder).parent.glob(".*"))


def test_sigkill_after_the_last_batch_loses_no_grid(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    code, output = interrupted(folder, signal.SIGKILL, "on_train_end(self, *_)")
    assert code == -signal.SIGKILL, output
    assert main(command(folder, "--ckpt_path", "auto", "--samples.every_n_epochs", "0")) == 0
    assert_same_end(folder, uninterrupted)
    grids = [sorted(path.name for path in (f / "version_0" / "samples").iterdir()) for f in (folder, uninterrupted)]
    assert grids[0] == grids[1]
    assert (folder / "version_0" / "finished.json").is_file()


def test_ctrl_c_before_the_first_batch_leaves_nothing(tmp_path):
    folder = tmp_path / "run"
    code, output = interrupted(folder, signal.SIGINT, "setup(self, *_, **__)")
    assert code == 130, output
    assert "Traceback" not in output
    assert not list(folder.glob("version_*"))
