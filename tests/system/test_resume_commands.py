"""Resumes that fail, or have nothing to do: the run stays as it is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from t2i_zoo.__main__ import main
from t2i_zoo.library import fit


def contents(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "--trainer.max_epochs 1",
            "found --trainer.max_epochs 1 and a run of 2 epochs, expected more: .* --model.weights",
        ),
        ("--trainer.max_epochs 3 --data.batch_size 999", "fewer than one batch of 999"),
        ("--trainer.max_epochs 3 --trainer.precision 64-true", "found --trainer.precision 64-true, expected weights"),
    ],
)
def test_a_resume_that_fails_changes_nothing(copied, mistake, options, said, resumed_words):
    before = contents(copied)
    assert re.search(said, mistake("fit", *resumed_words(copied, *options.split())))
    assert contents(copied) == before


@pytest.mark.parametrize("option", ["max_epochs 2", "max_steps 12"])
def test_a_run_with_nothing_left_to_train_keeps_its_files(copied, option, capsys, resumed_words):
    before = contents(copied)
    words = resumed_words(copied, "--trainer." + option.split()[0], option.split()[1], "--data.batch_size", "4")
    words = words if "epochs" in option else [*words, "--trainer.max_epochs", "9"]
    assert main(["fit", *words]) == 0
    said = f"{copied} is finished after 2 epochs, 6 batches: raise --trainer.{option.split()[0]} to go on"
    assert capsys.readouterr().out.strip() == said
    assert contents(copied) == before
    (copied / "finished.json").unlink()  # as of a run that was killed after its last checkpoint
    assert fit(copied / "config.yaml", {"trainer.default_root_dir": copied.parent, "ckpt_path": "auto"}) == copied
    assert contents(copied) == before


def test_a_checkpoint_elsewhere_with_nothing_left_starts_no_run(copied, mistake, tmp_path):
    shutil.copy(copied / "checkpoints" / "last.ckpt", tmp_path / "it.ckpt")
    words = ["--config", str(copied / "config.yaml"), "--trainer.default_root_dir", str(tmp_path / "new")]
    assert "and a run of 2 epochs" in mistake("fit", *words, "--ckpt_path", str(tmp_path / "it.ckpt"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("command", "remedy"),
    [("fit", "start a new run from it with --model.weights flowers64"), ("test", "give a .ckpt file")],
)
def test_an_exported_generator_is_no_checkpoint(words, mistake, tmp_path, command, remedy):
    said = mistake(command, *words(tmp_path), "--ckpt_path", "flowers64")
    assert said.endswith(f"network without its training, expected a run or a .ckpt file: {remedy}")
    assert "flowers128" not in mistake(command, *words(tmp_path), "--ckpt_path", str(tmp_path / "nothing"))
