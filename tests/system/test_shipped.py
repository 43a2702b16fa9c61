"""The generators that come with the package: each draws, is small, and has a card; and the wheel holds them."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.commands.export import _UNSAID, export
from t2i_zoo.models import load_model
from t2i_zoo.paths import shipped_generators

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "t2i_zoo" / "weights"
SHIPPED = shipped_generators()
PINK = "this flower has pink petals and a yellow center"


def test_the_readme_names_what_there_is():
    """The list below is of files: where one is lost, this fails, and so it does where nobody told of one."""
    named = set(re.findall(r"\]\(t2i_zoo/weights/(\w+)\.md\)", (ROOT / "README.md").read_text("utf-8")))
    assert named == set(SHIPPED)
    cards = {path.stem for path in WEIGHTS.glob("*.md")} if WEIGHTS.is_dir() else set()
    assert cards == set(SHIPPED)


def test_the_best_comes_first():
    assert list(SHIPPED)[:2] == ["flowers128", "flowers64"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_picture_right_after_the_install(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for caption, out in ((PINK, "a.png"), ("this flower is blue", "b.png"), (PINK, "again.png")):
        assert main(["sample", "--model", name, "--text", caption, "--n", "2", "--out", out]) == 0
        assert "note" not in capsys.readouterr().err  # its training captions know these words
    with Image.open("a.png") as page:
        assert page.width > 64
    assert Path("a.png").read_bytes() == Path("again.png").read_bytes() != Path("b.png").read_bytes()
    pictures = load_model(name).generate([PINK, "this flower is blue"])
    size = int(re.sub(r"\D", "", name))
    assert pictures.shape == (2, 3, size, size)
    assert pictures.std() > 0.1


@pytest.mark.parametrize("name", ["attngan_flowers64", "mirrorgan_flowers64"])
def test_attention_right_after_the_install(name, tmp_path, capsys):
    out = tmp_path / "attention.png"
    assert main(["attention", "--ckpt", name, "--text", PINK, "--out", str(out)]) == 0
    assert "2 stages, 8 of 9 words" in capsys.readouterr().out
    assert out.is_file()


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_small_and_has_a_card(name):
    path = SHIPPED[name]
    assert path.stat().st_size <= 12e6
    card = path.with_suffix(".md").read_text("utf-8")
    assert card.startswith(f"# {name}: ")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card, "the card is of another file"
    parts = dict(re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL))
    assert {"Data", "Licence", "Recipe", "Scores"} <= set(parts)
    assert all(len(text.split()) > 5 for text in parts.values())
    assert _UNSAID not in card
    assert re.search(r"agreement_colour [0-9a-f]{8} \|.*\| [0-9.]+ ", parts["Scores"])


@pytest.fixture
def shipped(trained, tmp_path, monkeypatch):
    """A package with one generator, which the tiny run drew."""
    import t2i_zoo.paths as paths

    package = tmp_path / "package"
    export(str(trained), package / "weights" / "tiny_flowers.safetensors", about="tiny drawn flowers")
    monkeypatch.setattr(paths, "__file__", str(package / "paths.py"))
    return package / "weights"


def test_by_its_name(shipped, trained, tmp_path, monkeypatch, capsys, mistake):
    monkeypatch.chdir(tmp_path)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "trained generators (t2i-zoo sample --model NAME --text ...)",
        "  tiny_flowers  tiny drawn flowers",
    ]
    assert main(["sample", "--model", "tiny_flowers", "--text", "a red flower", "--out", "a.png"]) == 0
    assert load_model("tiny_flowers").clock == 6
    said = mistake("sample", "--model", "tiny_flower", "--text", "a red flower")
    assert said == "found no generator 'tiny_flower' in the package, expected tiny_flowers: did you mean tiny_flowers?"
    words = ["--config", str(trained / "config.yaml"), "--protocol", "agreement_synthetic", "--images", "8"]
    assert main(["evaluate", "--ckpt", "tiny_flowers", *words]) == 0
    assert Path("runs/tiny_flowers/metrics.jsonl").is_file()
    assert sorted(path.name for path in shipped.iterdir()) == ["tiny_flowers.md", "tiny_flowers.safetensors"]


def test_the_wheel_holds_weights_and_cards(tmp_path):
    """Built from a copy with two more files, so that it says something before there are any."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling, which builds the wheel")
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    for name in ("t2i_zoo", "experiments"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "t2i_zoo" / "weights").mkdir(exist_ok=True)
    for name in ("probe.safetensors", "probe.md"):
        (tree / "t2i_zoo" / "weights" / name).write_text("probe")
    (built,) = wheel.WheelBuilder(str(tree)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(built).namelist())
    expected = {"t2i_zoo/weights/probe.safetensors", "t2i_zoo/weights/probe.md"}
    expected |= {f"t2i_zoo/weights/{path.stem}{end}" for path in SHIPPED.values() for end in (".safetensors", ".md")}
    for folder, pattern in (("t2i_zoo/metrics", "**/*.[jy]*"), ("t2i_zoo/models", "*/README.md")):
        expected |= {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob(pattern)}
    expected |= {f"t2i_zoo/experiments/{path.name}" for path in (ROOT / "experiments").glob("*.yaml")}
    assert expected <= names
