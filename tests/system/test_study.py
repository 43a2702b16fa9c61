"""``t2i-zoo study`` with real, tiny runs: equal budgets, scores at each time, and continuing after an interruption."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from processes import Process

from t2i_zoo.__main__ import main
from t2i_zoo.commands import study
from t2i_zoo.commands.study_file import Study


@pytest.fixture
def file(tmp_path: Path, tiny_widths: Callable[[str], dict], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of two arms and two times, whose runs begin as forks of a server that has imported everything."""

    def run(command: list[str], env: dict[str, str]) -> int:
        assert command[0] == sys.executable
        assert env["OMP_NUM_THREADS"] == "1"
        return Process(command[1:]).wait()

    monkeypatch.setattr(study, "run_to_end", run)
    monkeypatch.chdir(tmp_path)
    options = {f"model.{name}": value for name, value in tiny_widths("gancls").items()}
    content = {
        "minutes": [0.004, 0.008],
        "options": {
            **{**options, "model.image_size": 16, "model.text_encoder": {"kind": "hashing", "dim": 16}},
            **{"data.source": "SyntheticFlowers", "data.source.images": 64, "data.source.size": 24},
            **{"data.image_size": 16, "data.batch_size": 8, "trainer.accelerator": "cpu"},
            **{"trainer.limit_val_batches": 0, "trainer.enable_progress_bar": False},
        },
        "scores": [{"protocol": "diversity_caption", "images": 16}],
        "arms": {"plain": {"model": "GANCLS"}, "bounded": {"model": "GANCLS", "model.adversarial_loss": "hinge"}},
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def change(file: Path, **content: Any) -> None:
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **content}, sort_keys=False))


def test_arms_have_equal_budgets_and_a_finished_study_is_left_alone(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = file.parent / "out"
    assert main(["study", str(file), "--out", str(out), "--minutes", "0.004"]) == 0  # stopped early, as it were
    assert main(["study", str(file), "--out", str(out)]) == 0
    found = lines(out)
    assert [(line["arm"], line["minutes"]) for line in found] == [
        *(("plain", 0.004), ("bounded", 0.004)),
        *(("plain", 0.008), ("bounded", 0.008)),
    ]
    assert all(line["scores"]["diversity_caption.caption_diversity"] > 0 for line in found)
    first, _, second, _ = (line["batches"] for line in found)
    assert 0 < first < second
    for line in found:
        assert (out / "grids" / f"{line['arm']}-0-{line['minutes']:g}.jpg").stat().st_size > 1000
    runs = {arm: [*(out / f"{arm}-0").glob("version_*")] for arm in ("plain", "bounded")}
    assert {arm: len(each) for arm, each in runs.items()} == {"plain": 1, "bounded": 1}, "resumed in place"
    saved = torch.load(runs["plain"][0] / "checkpoints" / "last.ckpt", weights_only=True)
    used = saved["callbacks"]["ProcessorBudget"]["seconds"]
    assert 0.48 <= used < 2, "the first run's time counts"
    capsys.readouterr()
    assert main(["study", str(file), "--out", str(out)]) == 0
    assert lines(out) == found
    assert capsys.readouterr().out == f"everything is done: {out / 'results.jsonl'}\n"


def test_an_arm_that_was_trained_for_longer_is_not_scored_as_if_it_were_not(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = file.parent / "out"
    words = ["study", str(file), "--out", str(out), "--arms", "plain", "--minutes"]
    assert main([*words, "0.008"]) == 0
    assert main([*words, "0.004", "0.012"]) == 0
    assert "trained for 0.0 minutes already, too long for 0.004" in capsys.readouterr().out
    assert [line["minutes"] for line in lines(out)] == [0.008, 0.012]


def test_a_stopped_arm_is_not_scored_and_ends_the_study(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, real = file.parent / "out", study.run_to_end

    def stopped(command: list[str], env: dict[str, str]) -> int:
        short = [word.replace('"minutes": 0.004', '"minutes": 0.0001') for word in command]
        return real(short, env)

    monkeypatch.setattr(study, "run_to_end", stopped)
    assert main(["study", str(file), "--out", str(out)]) == 0
    assert "stopped; the same command goes on from here" in capsys.readouterr().out
    assert (out / "plain-0").exists()
    assert not (out / "bounded-0").exists()
    assert not (out / "results.jsonl").exists()
    monkeypatch.setattr(study, "run_to_end", real)
    assert main(["study", str(file), "--out", str(out), "--minutes", "0.004"]) == 0
    assert [line["arm"] for line in lines(out)] == ["plain", "bounded"]


def test_a_signal_before_the_training_listens_is_a_stop_too() -> None:
    main_thread, former = threading.get_ident(), signal.getsignal(signal.SIGTERM)
    threading.Timer(1.0, lambda: signal.pthread_kill(main_thread, signal.SIGTERM)).start()
    assert study.run_to_end([sys.executable, "-c", "import time; time.sleep(60)"]) == 130
    assert signal.getsignal(signal.SIGTERM) == former
    assert study.run_to_end([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_an_arm_that_fails_does_not_keep_the_others_from_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = yaml.safe_load(file.read_text())["arms"]
    change(file, arms={"odd": {"model": "GANCLS", "model.damsm": "nowhere"}, **arms})
    out = file.parent / "out"
    assert main(["study", str(file), "--out", str(out), "--minutes", "0.004"]) == 2
    assert "found odd-0 that could not be trained" in capsys.readouterr().err
    assert [line["arm"] for line in lines(out)] == ["plain", "bounded"]


def test_a_mistake_in_the_scores_comes_before_any_training(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "out"
    change(file, scores=[{"protocol": "fmd_5k", "images": 16, "network": "file:nowhere.pt"}])
    assert main(["study", str(file), "--out", str(out)]) == 2
    assert "nowhere.pt" in capsys.readouterr().err
    assert not out.exists()


def test_an_arm_that_cannot_be_scored_is_not_trained_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = file.parent / "out", ["study", str(file), "--out", str(file.parent / "out"), "--minutes", "0.004"]
    right = yaml.safe_load(file.read_text())["scores"]
    change(file, scores=[{"protocol": "rprec_damsm", "images": 16, "network": "checkpoint:later"}])
    assert main(words) == 2
    said = capsys.readouterr()
    assert "found plain-0, bounded-0 that could not be trained or scored" in said.err
    assert "plain, seed 0: found no checkpoint at later" in said.out
    assert not (out / "results.jsonl").exists()
    monkeypatch.setattr(study, "run_to_end", lambda *_: pytest.fail("the budget is used up"))
    change(file, scores=right)
    assert main(words) == 0
    assert [line["arm"] for line in lines(out)] == ["plain", "bounded"]


def test_an_arm_with_other_options_is_not_taken_for_the_one_that_was_trained(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = file.parent / "out", ["study", str(file), "--out", str(file.parent / "out"), "--arms", "plain"]
    arms, former = yaml.safe_load(file.read_text())["arms"], file.read_text()
    assert main([*words, "--minutes", "0.004"]) == 0
    (found,) = lines(out)
    assert {name: len(text) for name, text in found["hashes"].items()} == {"options": 8, "captions": 8, "scores": 8}

    change(file, arms={**arms, "plain": {"model": "GANCLS", "model.r1": 10.0, "data.batch_size": 4}})
    assert main(words) == 2
    expected = "plain, seed 0: it was trained with other options (data.batch_size 8, no model.r1) than the file has now"
    assert expected in capsys.readouterr().out
    shutil.rmtree(out / "plain-0")  # the line alone knows of it too
    assert main([*words, "--minutes", "0.004"]) == 2
    assert "it was trained with other options than the file has now" in capsys.readouterr().out
    assert lines(out) == [found]

    file.write_text(former)
    change(file, captions="a red flower", scores=[])
    monkeypatch.setattr(study, "run_to_end", lambda *_: pytest.fail("the arm is done"))
    assert main([*words, "--minutes", "0.004"]) == 0
    said = capsys.readouterr().out
    assert "plain, seed 0: results.jsonl has lines by other captions and scores than the file has now" in said
    assert "everything is done" in said
    del found["hashes"]  # as lines of older versions
    (out / "results.jsonl").write_text(json.dumps(found) + "\n")
    assert main([*words, "--minutes", "0.004"]) == 0
    assert capsys.readouterr().out == f"everything is done: {out / 'results.jsonl'}\n"


def test_an_arm_that_another_process_trains_is_left_to_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = file.parent / "out"
    out.mkdir()
    with FileLock(out / "plain-0.lock"):
        assert main(["study", str(file), "--out", str(out), "--arms", "plain"]) == 0
    assert "plain, seed 0: another process has it" in capsys.readouterr().out
    assert not (out / "results.jsonl").exists()


def test_an_arm_overrides_what_all_share_and_names_its_model_first(file: Path) -> None:
    chosen = Study({"wide": {"model.width": 8, "model": "GANCLS"}}, {"model.width": 4, "model.r1": 1.0})
    words = chosen.words("wide", 3)
    assert words == ["--seed_everything", "3", "--model", "GANCLS", "--model.width", "8", "--model.r1", "1.0"]


def test_mistakes_are_one_sentence(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(file), "--arms", "plane"]) == 2
    assert "found no arm plane" in capsys.readouterr().err
    file.write_text("arms: {odd: {model: GANCLS, model.nonsense: 1}}\n")
    assert main(["study", str(file)]) == 2
    assert "found odd-0 that could not be trained" in capsys.readouterr().err
