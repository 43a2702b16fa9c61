"""The wheel as its users get it: small, with sound metadata, and it draws in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from t2i_zoo.version import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builders = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling, which builds the wheel")
    folder = str(tmp_path_factory.mktemp("wheel"))
    (built,) = builders.WheelBuilder(str(ROOT)).build(directory=folder, versions=["standard"])
    return Path(built)


def test_its_metadata(wheel: Path) -> None:
    commands = pytest.importorskip("twine.commands.check", reason="needs twine")
    assert wheel.stat().st_size < 30e6
    assert not commands.check([str(wheel)], strict=True)
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = (name for name in file.namelist() if name.endswith("METADATA"))
        about = Parser().parsestr(file.read(metadata).decode())
        assert "t2i_zoo/py.typed" in file.namelist()
    assert (about["Version"], about["License-Expression"]) == (__version__, "Apache-2.0")
    assert "Typing :: Typed" in about.get_all("Classifier", [])


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
    assert {"cff-version", "title", "message", "authors"} <= set(citation)


def test_it_draws_in_a_new_environment(wheel: Path, tmp_path: Path) -> None:
    """Its requirements are those that run this test, since tests have no network."""
    pytest.importorskip("pip", reason="needs pip")
    place = tmp_path / "env"
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    (packages,) = place.glob("lib/*/site-packages")
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = [str(python), "-c", "import t2i_zoo; print(t2i_zoo.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(place)
    words = ["sample", "--model", "flowers64", "--text", "a pink flower", "--n", "2", "--out", "out.png"]
    subprocess.run([str(place / "bin" / "t2i-zoo"), *words], cwd=tmp_path, env=env, check=True)
    assert Image.open(tmp_path / "out.png").text["Description"] == "a pink flower"
