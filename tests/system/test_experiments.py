"""Every packaged config parses, and trains under one overlay that makes it small."""

import json
from pathlib import Path

import pytest
import yaml
from layouts import write_coco, write_cub
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.data import SyntheticFlowers
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import packaged_configs

TINY = Path(__file__).parents[1] / "tiny.yaml"
CONFIGS = packaged_configs()
#: classes of the folders in ``roots``
CLASSES = {"Flowers102": 24, "SyntheticFlowers": 24, "CaptionFolder": 3, "CUB200": 4}


@pytest.fixture(scope="session")
def roots(tmp_path_factory):
    """One small folder for each kind of source, by the name of its class."""
    flowers = tmp_path_factory.mktemp("flowers") / "set"
    SyntheticFlowers(str(flowers), images=48, size=24).records()
    folder = tmp_path_factory.mktemp("folder")
    rows = []
    for i in range(24):
        Image.new("RGB", (20, 20), (10 * i, 100, 250 - 10 * i)).save(folder / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "caption": f"picture number {i}", "class": i % 3}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    found = {"Flowers102": flowers, "SyntheticFlowers": flowers, "CaptionFolder": folder}
    found["CUB200"] = write_cub(tmp_path_factory.mktemp("birds"))
    found["COCOCaptions"] = write_coco(tmp_path_factory.mktemp("coco"))
    return found


def source_of(name: str) -> str:
    return yaml.safe_load(CONFIGS[name].read_text())["data"]["source"]["class_path"]


def model_of(name: str) -> str:
    """The name in ``MODELS`` of a config's model."""
    found = yaml.safe_load(CONFIGS[name].read_text())["model"]["class_path"]
    return next(key for key, entry in MODELS.items() if entry.path.endswith(f".{found}"))


def test_there_are_configs():
    assert {"gancls_synthetic", "gancls_flowers", "ganintcls_flowers", "gancls_folder"} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_is_short_and_says_what_it_is(name):
    lines = CONFIGS[name].read_text().splitlines()
    assert len(lines) <= 45
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 20


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_parses_by_its_bare_name(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", name, "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"].startswith("t2i_zoo.")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_trains(name, roots, tmp_path, monkeypatch, tiny_widths):
    monkeypatch.chdir(tmp_path)
    options = yaml.safe_load(CONFIGS[name].read_text())["model"].get("init_args", {})
    variant = f":stage{options['stage']}" if options.get("stage", 1) > 1 else ""
    variant = ":unconditional" if options.get("text_encoder") == "none" else variant
    widths = dict(tiny_widths(model_of(name) + variant))
    if "num_classes" in widths:
        widths["num_classes"] = CLASSES[source_of(name)]
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in widths.items()}
    small = [word for key, value in values.items() for word in (f"--model.{key}", value)]
    if "image_size" in widths:
        small += ["--data.image_size", str(widths["image_size"])]
    root = str(roots[source_of(name)])
    if source_of(name) == "SyntheticFlowers":
        small += ["--data.source.images", "48", "--data.source.size", "24"]
    overlay = yaml.safe_load(TINY.read_text())
    if MODELS[model_of(name)].kind != "gan":  # its options are not those of a GAN
        del overlay["model"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(overlay))
    words = ["--config", name, "--config", "tiny.yaml", "--data.source.root", root, *small]
    short = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
    assert main(["fit", *words, *short]) == 0
    run = tmp_path / "runs" / name / "version_0"
    assert (run / "checkpoints" / "last.ckpt").is_file()
    config = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert {key: config[key] for key in widths} == widths
    if MODELS[model_of(name)].kind == "gan":
        assert (run / "samples" / "epoch_0001.png").is_file()
        assert "train/discriminator_loss" in (run / "metrics.csv").read_text().splitlines()[0]
