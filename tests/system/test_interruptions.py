"""Killed and stopped runs, as a user meets them: in a process of their own, resumed by the command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

TINY = Path(__file__).parents[1] / "tiny.yaml"
EPOCHS, BATCHES = 4, 12


def command(folder: Path, *more: str) -> list[str]:
    words = ["fit", "--config", "gancls_synthetic", "--config", str(TINY), "--data.batch_size", "4"]
    words += ["--data.source.images", "64", "--data.source.size", "24", "--trainer.default_root_dir", str(folder)]
    words += ["--trainer.max_epochs", str(EPOCHS), "--trainer.limit_train_batches", str(BATCHES)]
    words += ["--trainer.check_val_every_n_epoch", "1", "--samples.every_n_epochs", "1"]
    return [sys.executable, "-m", "t2i_zoo", *words, *more]


def run(folder: Path, *more: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(folder, *more), capture_output=True, text=True, timeout=300, env=environment)


def interrupted(folder: Path, number: int, ready) -> tuple[int, str]:
    """Start a run, send it a signal as soon as ``ready()``, and return exit code and output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = command(folder, "--trainer.callbacks+", "tests_slow.SlowBatches")
    environment["PYTHONPATH"] = os.pathsep.join([str(folder.parent), environment.get("PYTHONPATH", "")])
    slow = "import time, lightning as L\n\nclass SlowBatches(L.Callback):\n"
    slow += "    def on_train_batch_start(self, *args):\n        time.sleep(0.1)\n"
    (folder.parent / "tests_slow.py").write_text(slow)  # so that the signal meets the middle of an epoch
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    deadline = time.time() + 200
    while not ready() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    time.sleep(0.55)
    process.send_signal(number)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = run(folder)
    assert done.returncode == 0, done.stderr
    assert "samples with their captions: " in done.stdout
    return folder


def test_sigkill_in_an_epoch_resumes_from_the_last_whole_one(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    code, _ = interrupted(folder, signal.SIGKILL, lambda: last(folder).exists())
    assert code == -signal.SIGKILL
    saved = torch.load(last(folder), weights_only=True)
    assert 0 < saved["t2i_zoo"]["clock"] < EPOCHS * BATCHES
    assert saved["t2i_zoo"]["clock"] % BATCHES == 0
    done = run(folder, "--ckpt_path", "last")
    assert done.returncode == 0, done.stderr
    assert not (folder / "version_1").exists()  # it went on in place
    assert_same_end(folder, uninterrupted)


def test_sigterm_saves_the_batch_and_exits_cleanly(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    code, output = interrupted(folder, signal.SIGTERM, lambda: last(folder).exists())
    assert code == 0, output
    assert "stopped after batch" in output
    assert "Traceback" not in output
    saved = torch.load(last(folder), weights_only=True)
    assert saved["t2i_zoo"]["clock"] % BATCHES != 0  # in the middle of an epoch
    done = run(folder, "--ckpt_path", "last")
    assert done.returncode == 0, done.stderr
    assert_same_end(folder, uninterrupted)
    rows = (folder / "version_0" / "metrics.csv").read_text().splitlines()
    assert sum(row.startswith("0,") for row in rows) >= BATCHES - 1  # what was logged before the stop is still there


def test_ctrl_c_saves_and_says_130(tmp_path):
    folder = tmp_path / "run"
    code, output = interrupted(folder, signal.SIGINT, lambda: last(folder).exists())
    assert code == 130, output
    assert "Traceback" not in output
    assert "continue with --ckpt_path last" in output
    assert last(folder).is_file()
    assert not list(last(folder).parent.glob(".*"))
