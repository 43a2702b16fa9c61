"""A tiny trained run, and the command line called in this process."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small import Small

from t2i_zoo.__main__ import main

TINY = Path(__file__).parents[1] / "tiny.yaml"
SMALL = ["--config", str(TINY), "--data.source.images", "64", "--data.source.size", "24"]
BATCHES = ["--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1"]


def words(folder: Path, *more: str) -> list[str]:
    """Options of a tiny run in ``folder``, one epoch of three batches unless ``more`` says otherwise."""
    epochs = [] if "--trainer.max_epochs" in more else ["--trainer.max_epochs", "1"]
    place = ["--trainer.default_root_dir", str(folder)]
    return ["--config", "gancls_synthetic", *SMALL, *BATCHES, *place, *epochs, *more]


@pytest.fixture(name="words")
def words_fixture() -> Callable[..., list[str]]:
    """``words(folder, *more)``: options of a tiny run."""
    return words


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Path:
    """The folder of a run of two epochs; tests must not write to it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["fit", *words(folder, "--trainer.max_epochs", "2", "--model.learning_rate", "0.01")]) == 0
    return folder / "version_0"


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The trained run, to be written to."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "version_0"))


@pytest.fixture
def resumed_words() -> Callable[..., list[str]]:
    """``resumed_words(run, *more)``: options that resume a run in its folder."""

    def options(run: Path, *more: str) -> list[str]:
        config = str(run / "config.yaml")
        return ["--config", config, "--trainer.default_root_dir", str(run.parent), "--ckpt_path", "last", *more]

    return options


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``--network`` takes: a small network in a file."""
    path = tmp_path_factory.mktemp("network") / "small.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.jit.trace(Small(), torch.zeros(2, 3, 16, 16)).save(str(path))
    return f"file:{path}"


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Lightning's advice is not under test."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``mistake("fit", ...)``: the sentence about a wrong command, which must be one line and exit with 2."""

    def run(*args: str) -> str:
        capsys.readouterr()
        code = main(args)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert code == 2, "it went well"
        assert len(said) == 1, "not one sentence"
        assert not any(sign in said[0] for sign in ("<class", "typing.", "'>", "Literal[", "NoneType", "  "))
        return said[0].removeprefix("error: ")

    return run
