"""fit, validate, test and predict: configs, the run's folder, and a resumed run that goes on in place."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.callbacks import PredictionWriter
from t2i_zoo.cli import _for_devices, build
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.parsing import packaged_configs
from t2i_zoo.runs import lock

LOSSES = {"discriminator_loss", "generator_loss"}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def with_loss(run: Path, stage: str) -> list[dict[str, str]]:
    return [row for row in rows(run) if row.get(f"{stage}/generator_loss")]


# Configs ------------------------------------------------------------------------------------------------------------


def test_overrides_reach_model_data_trainer_and_samples(words, tmp_path, capsys):
    more = ["--model.text_encoder.dim", "48", "--data.source.images", "33", "--trainer.max_epochs", "7"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words(tmp_path), *more, "--samples.rows", "5", "--model.gradient_clip=2", "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["text_encoder"] == {"kind": "hashing", "dim": 48}
    assert config["model"]["init_args"]["gradient_clip"] == 2.0
    assert config["data"]["source"]["init_args"]["images"] == 33
    assert config["trainer"]["max_epochs"] == 7
    assert config["samples"]["rows"] == 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_the_other_commands_print_the_same_config(command, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, *words(tmp_path), "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["image_size"] == 16


def test_a_config_by_path_from_another_folder_names_the_run(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    shutil.copy(packaged_configs()["gancls_synthetic"], tmp_path / "experiments" / "mine.yaml")
    given = ["--config", "experiments/mine.yaml", *words(tmp_path)[2:]]
    at = given.index("--trainer.default_root_dir")
    assert main(["fit", *given[:at], *given[at + 2 :], "--trainer.limit_train_batches", "1"]) == 0
    assert (tmp_path / "runs" / "mine" / "version_0" / "checkpoints" / "last.ckpt").is_file()


def test_a_packaged_config_by_its_path_in_the_checkout_from_anywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # there is no folder experiments here
    with pytest.raises(SystemExit):
        main(["fit", "--config=experiments/gancls_synthetic.yaml", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["source"]["class_path"].endswith("SyntheticFlowers")


# The run's folder ---------------------------------------------------------------------------------------------------


def test_what_a_run_leaves_behind(trained):
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["model"]["init_args"]["learning_rate"] == 0.01
    assert config["trainer"]["max_epochs"] == 2
    assert config["ckpt_path"] is None
    assert (trained / "checkpoints" / "last.ckpt").is_file()
    assert not list(trained.rglob("*.partial*"))
    found = with_loss(trained, "train")
    assert len(found) == 6
    assert [int(row["step"]) for row in found] == list(range(6))
    assert all(float(row[f"train/{loss}"]) > 0 for row in found for loss in LOSSES)


def test_a_second_run_of_the_same_config_is_version_1(words, tmp_path):
    one = ["--trainer.limit_train_batches", "1"]
    assert main(["fit", *words(tmp_path, *one)]) == 0
    before = (tmp_path / "version_0" / "metrics.csv").read_bytes()
    assert main(["fit", *words(tmp_path, *one)]) == 0
    assert (tmp_path / "version_1" / "config.yaml").is_file()
    assert (tmp_path / "version_1" / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "version_0" / "metrics.csv").read_bytes() == before
    assert len(list(tmp_path.glob("version_*"))) == 2


def test_the_saved_config_trains_the_same_run_again(trained, tmp_path):
    assert main(["fit", "--config", str(trained / "config.yaml"), "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert rows(tmp_path / "version_0") == rows(trained)
    ours, theirs = (
        torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (tmp_path / "version_0", trained)
    )
    assert all(torch.equal(ours["state_dict"][k], theirs["state_dict"][k]) for k in theirs["state_dict"])


def test_a_resumed_run_appends_in_place(copied, monkeypatch, resumed_words):
    monkeypatch.setattr(TextToImageGAN, "compile_backend", "aot_eager")  # needs no compiler of C++
    before = (copied / "metrics.csv").read_text()
    assert main(["fit", *resumed_words(copied, "--trainer.max_epochs", "3", "--model.compile", "networks")]) == 0
    assert [f.name for f in copied.parent.iterdir()] == ["version_0"]
    assert (copied / "metrics.csv").read_text().startswith(before)
    found = with_loss(copied, "train")
    assert [int(row["step"]) for row in found] == list(range(9))
    assert found[-1]["epoch"] == "2"
    assert torch.load(copied / "checkpoints" / "last.ckpt", weights_only=True)["t2i_zoo"]["clock"] == 9
    config = yaml.safe_load((copied / "config.yaml").read_text())
    assert config["ckpt_path"] is None  # the config begins the run anew, it does not resume
    assert config["trainer"]["max_epochs"] == 3


def test_a_resumed_run_that_logs_something_new_keeps_the_old_rows(copied, resumed_words):
    before = rows(copied)
    every = ["--trainer.check_val_every_n_epoch", "1"]  # the trained run had no validation
    assert main(["fit", *resumed_words(copied, "--trainer.max_epochs", "3", *every)]) == 0
    after = rows(copied)
    assert [{k: row[k] for k in before[0]} for row in after[: len(before)]] == before
    assert len(with_loss(copied, "val")) == 1


def test_auto_starts_and_then_resumes(words, tmp_path, capsys):
    one = words(tmp_path, "--ckpt_path", "auto", "--trainer.limit_train_batches", "1")
    assert main(["fit", *one]) == 0
    assert main(["fit", *one, "--trainer.max_epochs", "3"]) == 0
    assert [path.name for path in tmp_path.glob("version_*")] == ["version_0"]
    assert torch.load(tmp_path / "version_0/checkpoints/last.ckpt", weights_only=True)["t2i_zoo"]["clock"] == 3


@pytest.mark.parametrize("cause", ["--data.batch_size 999", "--trainer.precision 64-true"])
def test_a_start_that_fails_leaves_no_folder(cause, words, mistake, tmp_path):
    assert cause.split()[1] in mistake("fit", *words(tmp_path), *cause.split())
    assert not list(tmp_path.glob("version_*"))


def test_a_run_that_another_process_trains_is_left_alone(copied, mistake, resumed_words):
    before, held = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}, lock(copied)
    assert "another process is training in" in mistake("fit", *resumed_words(copied, "--trainer.max_epochs", "3"))
    held.release()
    assert all(path.read_bytes() == content for path, content in before.items())


def test_further_checkpoints_stand_beside_the_last(words, tmp_path):
    short = ["--trainer.max_epochs", "3", "--trainer.limit_train_batches", "1"]
    assert main(["fit", *words(tmp_path, *short, "--checkpoint.every_n_epochs", "2")]) == 0
    found = {p.name: torch.load(p, weights_only=True)["t2i_zoo"]["clock"] for p in tmp_path.rglob("*.ckpt")}
    assert found == {"last.ckpt": 3, "epoch_0001.ckpt": 2}


def test_an_epoch_shorter_than_the_log_interval_is_logged(words, tmp_path):
    assert main(["fit", *words(tmp_path, "--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "50")]) == 0
    assert [row["step"] for row in with_loss(tmp_path / "version_0", "train")] == ["2", "5"]


def test_other_batches_on_resuming_are_said_to_change_the_order(copied, capsys, resumed_words):
    others = ["--data.batch_size", "4", "--data.source.images", "48"]
    assert main(["fit", *resumed_words(copied, "--trainer.max_epochs", "3", *others)]) == 0
    said = capsys.readouterr().err
    assert "note: the run had batches of 8 images on 1 process and now has 4 images on 1 process: if" in said
    assert re.search(r"note: the run goes on with \S*synthetic-48-24-0-v1 instead of \S*synthetic-64-24-0-v1\n", said)


# validate, test, predict --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "stage"), [("validate", "val"), ("test", "test")])
def test_losses_are_reported_and_written_down(command, stage, copied, capsys, resumed_words):
    before, config = rows(copied), (copied / "config.yaml").read_bytes()
    for _ in range(2):
        assert main([command, *resumed_words(copied)]) == 0
    assert f"{stage}/generator_loss" in capsys.readouterr().out
    after = rows(copied)
    assert [{k: row[k] for k in before[0]} for row in after[: len(before)]] == before
    first, second = with_loss(copied, stage)
    assert first == second  # the same noise in every evaluation
    assert (first["epoch"], first["step"]) == ("1", "5")  # those of the checkpoint
    assert (copied / f"config_{command}.yaml").is_file()
    assert float(first[f"{stage}/discriminator_loss"]) > 0
    assert (copied / "config.yaml").read_bytes() == config  # it belongs to the training
    assert main(["fit", *resumed_words(copied, "--trainer.max_epochs", "3")]) == 0


def test_predict_draws_the_test_split(copied, capsys, resumed_words):
    assert main(["predict", *resumed_words(copied)]) == 0
    folder = copied / "predictions"
    named = json.loads((folder / "captions.json").read_text("utf-8"))
    assert sorted(named) == sorted(f.name for f in folder.glob("*.png"))
    assert str(folder) in capsys.readouterr().out
    data = build(_build_words(copied), run=False).datamodule
    data.prepare_data()
    assert len(named) == len(data.opened.rows("test")) > 1
    assert set(named.values()) <= set(data.captions_of("test"))
    for name, caption in named.items():
        with Image.open(folder / name) as picture:
            assert picture.size == (16, 16)
            assert picture.text["Description"] == caption


def _build_words(run: Path) -> list[str]:
    """The saved config without what belongs to subcommands."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key in ("ckpt_path", "weights_only"):
        config.pop(key, None)
    (run.parent / "plain.yaml").write_text(yaml.safe_dump(config))
    return ["--config", str(run.parent / "plain.yaml")]


def test_predict_keeps_no_pictures_in_memory(copied, monkeypatch, resumed_words):
    seen = []
    ends = PredictionWriter.on_predict_end

    def watch(self, trainer, pl_module):
        seen.append(trainer.predict_loop.return_predictions)
        ends(self, trainer, pl_module)

    monkeypatch.setattr(PredictionWriter, "on_predict_end", watch)
    assert main(["predict", *resumed_words(copied)]) == 0
    assert seen == [False]


def test_weights_alone_are_enough_to_predict(trained, words, tmp_path):
    given = words(tmp_path / "run", "--model.weights", str(trained / "checkpoints" / "last.ckpt"))
    assert main(["predict", *given, "--trainer.limit_predict_batches", "1"]) == 0
    assert list((tmp_path / "run" / "version_0" / "predictions").glob("*.png"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, True), ({"benchmark": False}, None), ({"deterministic": True}, None), ({"accelerator": "cpu"}, None)],
)
def test_cudnn_searches_on_gpus_unless_told_otherwise(given, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = {"accelerator": "auto", "devices": 1, "benchmark": None, "deterministic": None, **given}
    assert _for_devices(config).get("benchmark") is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"devices": 2}, "gan_ddp"),
        ({"devices": "2"}, "gan_ddp"),
        ({"devices": [0, 1]}, "gan_ddp"),
        ({"devices": 1, "num_nodes": 2}, "gan_ddp"),
        ({"devices": 2, "strategy": "ddp_find_unused_parameters_true"}, None),
        ({"devices": [0]}, None),
        ({"devices": "auto"}, None),
        ({"devices": 1}, None),
    ],
)
def test_several_devices_have_our_strategy_unless_told_otherwise(given, expected):
    config = {"accelerator": "cpu", "num_nodes": 1, "strategy": "auto", "benchmark": None, "deterministic": None}
    assert _for_devices({**config, **given}).get("strategy") == expected
