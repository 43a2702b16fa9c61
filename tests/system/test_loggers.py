"""fit --logger: Weights & Biases without key or network, and TensorBoard, with config, samples and scores."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.cli import check


def losses_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("train/generator_loss")]


@pytest.fixture
def no_key(tmp_path, monkeypatch):
    """A machine without key, netrc and network, where wandb's own switch is not set."""
    for key in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(key, raising=False)
    for key in ("NETRC", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(key, str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    pytest.importorskip("wandb").teardown()  # it reads its environment once in a process


def test_wandb_by_one_flag(words, tmp_path, no_key, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")
    given = words(tmp_path / "run", "--logger", "wandb", "--trainer.limit_train_batches", "1")
    scores = ["--trainer.callbacks", "t2i_zoo.callbacks.evaluation.Evaluation"]
    scores += ["--trainer.callbacks.protocol", "agreement_synthetic", "--trainer.callbacks.images", "8"]
    assert main(["fit", *given, *scores]) == 0
    run = tmp_path / "run" / "version_0"
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: found no key")]
    sync = f"wandb sync {run}/wandb/offline-run-*"
    assert said == [f"note: found no key (wandb login), so wandb logs offline: {sync} uploads it later"]
    (record,) = run.glob("wandb/offline-run-*")
    (picture,) = (record / "files/media/images").glob("samples_*.png")
    with Image.open(picture) as page, Image.open(run / "samples" / "epoch_0001.png") as ours:
        assert page.size == ours.size
    (table,) = [json.loads(file.read_text()) for file in (record / "files/media/table").glob("samples_by_caption*")]
    assert table["columns"] == ["batches", "caption", "images"]
    assert all(row[0] == 1 and " " in row[1] for row in table["data"])
    wandb.teardown()  # which writes the rest, as the end of the process would
    written = next(record.glob("*.wandb")).read_bytes()
    for part in (b"eval/agreement_synthetic/", b"train/generator_loss", b"SyntheticFlowers", b"-samples_by_caption"):
        assert part in written, part

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    resumed = ["--ckpt_path", "last", "--trainer.max_epochs", "2"]
    assert main(["fit", *given, *resumed]) == 0
    assert "note: found no connection to http://127.0.0.1:9, so wandb logs offline" in capsys.readouterr().out
    keys = {path.name.rpartition("-")[2] for path in run.glob("wandb/offline-run-*")}
    assert keys == {record.name.rpartition("-")[2]}  # the same run of wandb


@pytest.mark.parametrize(("choice", "folders"), [("tensorboard", {"tensorboard"}), ("csv", set()), ("none", set())])
def test_other_loggers_by_one_flag(choice, folders, words, tmp_path, mistake):
    given = words(tmp_path / "run", "--logger", choice)
    assert main(["fit", *given]) == 0
    run = tmp_path / "run" / "version_0"
    assert "train/generator_loss" in (run / "metrics.csv").read_text()
    found = {path.name for path in run.iterdir() if path.is_dir()}
    assert found == {"checkpoints", "samples", *folders}
    if choice == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        assert "samples" in events.Tags()["images"]
        assert any(name.startswith("config") for name in events.Tags()["tensors"])
        assert "tensorboard" in mistake("fit", *words(tmp_path / "other"), "--logger", "mlflow")


def test_the_sweep_asks_for_runs_that_exist():
    """Each value of the sweep, put into its command as ``wandb agent`` does."""
    sweep = yaml.safe_load((Path(__file__).parents[2] / "experiments/sweeps/gancls_synthetic.yaml").read_text())
    program, *words = sweep["command"]
    assert (program, words.pop()) == ("t2i-zoo", "${args}")
    for name, spread in sweep["parameters"].items():
        for value in spread.get("values") or (spread["min"], spread["max"]):
            check([*words, f"--{name}={value}"])


def test_tensorboard_gets_losses_and_pictures(words, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", str(tmp_path / "board")]
    assert main(["fit", *words(tmp_path / "run", *board)]) == 0
    run = tmp_path / "run" / "version_0"
    assert (run / "config.yaml").is_file()
    file = next((tmp_path / "board").rglob("events.*"))
    events = EventAccumulator(str(file.parent))
    events.Reload()
    losses = events.Scalars("train/generator_loss")
    assert [event.value for event in losses] == pytest.approx(
        [float(row["train/generator_loss"]) for row in losses_of(run)], rel=1e-5
    )
    (picture,) = events.Images("samples")
    with Image.open(run / "samples" / "epoch_0001.png") as page:
        assert (picture.width, picture.height, picture.step) == (*page.size, 3)
        assert picture.encoded_image_string[:4] == b"\x89PNG"


def test_wandb_offline_as_the_first_logger(words, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for key in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(key, str(tmp_path / "wandb_home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "wandb_home").mkdir()
    place = {"save_dir": str(tmp_path / "w"), "offline": True, "project": "tiny"}
    other = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(tmp_path / "board")}}
    overlay = {"trainer": {"logger": [{"class_path": "WandbLogger", "init_args": place}, other]}}
    (tmp_path / "w").mkdir()
    (tmp_path / "loggers.yaml").write_text(yaml.safe_dump(overlay))
    given = words(tmp_path / "run", "--config", str(tmp_path / "loggers.yaml"), "--trainer.limit_train_batches", "1")
    for version in (0, 1):  # trap 15: the second run used to abort on the first one's config.yaml
        assert main(["fit", *given]) == 0
        wandb.finish()  # as the end of the process would
        run = tmp_path / "run" / f"version_{version}"
        assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"][0]["class_path"].endswith(
            "WandbLogger"
        )
        assert (run / "checkpoints" / "last.ckpt").is_file()
        assert losses_of(run)
    assert [f.name for f in tmp_path.rglob("config.yaml") if f.parent.parent != tmp_path / "run"] == []
    offline = sorted((tmp_path / "wandb_home").rglob("offline-run-*")) or sorted(
        (tmp_path / "w").rglob("offline-run-*")
    )
    folders = [f for f in offline if f.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        assert list(folder.glob("*.wandb"))
        (picture,) = (folder / "files" / "media" / "images").glob("samples_*.png")
        with Image.open(picture) as page, Image.open(run / "samples" / "epoch_0001.png") as ours:
            assert page.size == ours.size
