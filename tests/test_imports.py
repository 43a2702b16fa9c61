"""Who may import whom, what a model's folder holds, and what stays quick: read from the source, not from memory."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import t2i_zoo
from t2i_zoo.models import MODELS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "t2i_zoo"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
MODEL_FILES = ("__init__.py", "networks.py", "losses.py", "module.py", "README.md")
LONGEST = 350

#: of ours, what every folder but ``nn`` may use
COMMON = {"errors", "files", "batch", "paths", "version", "pictures"}
NUMBERS = {"torch", "numpy", "scipy"}


class Rule(NamedTuple):
    """Files by pattern (``{m}`` is a model's own folder), and what they may import: of ours and of others."""

    files: str
    ours: set[str]
    others: set[str]


#: the first rule whose pattern fits; files that none fits (``cli.py``, ``commands``, ...) may import everything
RULES = [
    Rule(r"(errors|files|version)\.py", set(), set()),
    Rule(r"paths\.py", {"errors"}, {"platformdirs"}),
    Rule(r"pictures\.py", {"files"}, {"torch", "PIL"}),
    Rule(r"sampling\.py", {"models.base", "text"}, {"torch"}),
    Rule(r"batch\.py", {"text.features"}, {"torch"}),
    Rule(r"nn/.*", {"nn"}, {"torch"}),
    Rule(r"vision/inception_tf\.py", {"vision", *COMMON}, {"torch", "torch_fidelity"}),
    Rule(r"vision/.*", {"vision", *COMMON}, {"torch", "torchvision", "safetensors"}),
    Rule(r"text/transformers_encoder\.py", {"text", "nn", *COMMON}, {*NUMBERS, "transformers"}),
    Rule(r"text/(rnn|char_cnn_rnn|precomputed_files)\.py", {"text", "nn", "legacy", *COMMON},
         {*NUMBERS, "safetensors"}),
    Rule(r"text/.*", {"text", "nn", "legacy", *COMMON}, {*NUMBERS, "rich"}),
    Rule(r"data/module\.py", {"data", "text", *COMMON}, {*NUMBERS, "torchvision", "lightning"}),
    Rule(r"data/birds\.py", {"data", "text", "legacy", *COMMON}, NUMBERS),
    Rule(r"data/hf\.py", {"data", *COMMON}, {*NUMBERS, "datasets"}),
    Rule(r"data/.*", {"data", "text", *COMMON}, {*NUMBERS, "torchvision", "PIL", "filelock", "rich"}),
    Rule(r"legacy/.*", {"legacy", *COMMON}, {"numpy"}),
    Rule(r"models/attentive\.py", {"models", "text", "nn", *COMMON}, {"torch"}),
    Rule(r"models/[^/]*\.py",
         {"models.base", "models.exported", "models.official", "models.state", "models.zoo", "text", "nn", *COMMON},
         {"torch", "numpy", "lightning", "safetensors"}),
    Rule(r"models/(?P<m>\w+)/(networks|losses)\.py", {"models.{m}.networks", "nn", "text", "vision", *COMMON},
         {"torch"}),
    Rule(r"models/(?P<m>\w+)/official\.py", {"models.official", "models.official_words", *COMMON}, {"torch"}),
    Rule(r"models/(?P<m>\w+)/.*",
         {"models.base", "models.attentive", "models.serving", "models.state", "models.zoo", "models.{m}", "nn", "text",
          "vision", *COMMON},
         {"torch", "lightning", "torchmetrics"}),
    Rule(r"metrics/flowers/masks\.py", {"metrics", "data.drawing", "data.images", "data.records", *COMMON}, NUMBERS),
    Rule(r"metrics/flowers/.*", {"metrics", "nn", "data.drawing", "data.synthetic", *COMMON}, NUMBERS),
    Rule(r"metrics/retrieval\.py", {"metrics", "nn", *COMMON}, NUMBERS),
    Rule(r"metrics/board\.py", {"metrics", *COMMON}, {"jinja2"}),
    Rule(r"metrics/transformers_dual\.py", {"metrics", *COMMON}, {*NUMBERS, "transformers"}),
    Rule(r"metrics/(protocol|published)\.py", {"metrics", *COMMON}, {"yaml"}),
    Rule(r"metrics/.*", {"metrics", "vision", *COMMON}, {*NUMBERS, "torchmetrics"}),
    Rule(r"callbacks/evaluation\.py", {"callbacks", "metrics", "models", *COMMON}, {*NUMBERS, "lightning"}),
    Rule(r"callbacks/.*", {"callbacks", "metrics", "models.base", "sampling", *COMMON}, {*NUMBERS, "lightning", "PIL"}),
]  # fmt: skip


def imported(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that an import statement names, ``from a import b`` as ``a.b`` where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the whole name"
            module = node.module or ""
            for alias in node.names:
                inner = ROOT / f"{module}.{alias.name}".replace(".", "/")
                yield f"{module}.{alias.name}" if inner.is_dir() or inner.with_suffix(".py").is_file() else module


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def breaches(file: str, source: str) -> list[str]:
    """The imports of one file that its rule does not allow."""
    for rule in RULES:
        if match := re.fullmatch(rule.files, file):
            ours = {place.format(**match.groupdict()) for place in rule.ours}
            found = set(imported(ast.parse(source)))
            own = {name.removeprefix("t2i_zoo.") for name in found if name.split(".")[0] == "t2i_zoo"}
            others = {name.split(".")[0] for name in found} - {"t2i_zoo"} - sys.stdlib_module_names
            return sorted({name for name in own if not within(name, ours)} | others - rule.others)
    return []


@pytest.mark.parametrize("file", FILES)
def test_imports(file: str) -> None:
    found = breaches(file, (PACKAGE / file).read_text("utf-8"))
    assert not found, f"t2i_zoo/{file} imports {', '.join(found)}: see the table in docs or in {__file__}"


@pytest.mark.parametrize(
    ("file", "line", "breach"),
    [
        ("nn/init.py", "from t2i_zoo.errors import T2IError", "errors"),
        ("nn/init.py", "import lightning.pytorch as pl", "lightning"),
        ("text/cache.py", "def f():\n    import transformers", "transformers"),
        ("text/cache.py", "from t2i_zoo.data import Record", "data"),
        ("data/plan.py", "import lightning", "lightning"),
        ("data/module.py", "from t2i_zoo.models.base import TextToImageGAN", "models.base"),
        ("models/gancls/networks.py", "import lightning", "lightning"),
        ("models/gancls/losses.py", "from t2i_zoo.data.records import Record", "data.records"),
        ("models/tacgan/module.py", "from t2i_zoo.models.gancls.networks import Generator", "models.gancls.networks"),
        ("models/tacgan/module.py", "from t2i_zoo.models import gancls", "models.gancls"),
        ("models/base.py", "from t2i_zoo.models.gancls import GANCLS", "models.gancls"),
        ("metrics/fid.py", "from t2i_zoo.models.base import TextToImageGAN", "models.base"),
        ("callbacks/samples.py", "from t2i_zoo.data import CaptionDataModule", "data"),
        ("callbacks/samples.py", "from t2i_zoo.models import gancls", "models.gancls"),
    ],
)
def test_the_rules_find_a_breach(file: str, line: str, breach: str) -> None:
    assert breaches(file, line) == [breach]


def test_transformers_is_imported_lazily() -> None:
    tree = ast.parse((PACKAGE / "text" / "transformers_encoder.py").read_text("utf-8"))
    at_once = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert "transformers" in {name.split(".")[0] for name in imported(tree)}
    assert "transformers" not in {name.split(".")[0] for node in at_once for name in imported(node)}


def test_every_model_has_its_folder_and_every_folder_its_line() -> None:
    folders = {path.parent.name for path in (PACKAGE / "models").glob("*/*.py")}
    assert set(MODELS) == folders
    for name, entry in MODELS.items():
        assert entry.path.startswith(f"t2i_zoo.models.{name}.")
        assert entry.about


@pytest.mark.parametrize("name", MODELS)
def test_a_model_folder_holds_the_same_files(name: str) -> None:
    present = {path.name for path in (PACKAGE / "models" / name).iterdir()}
    missing = [file for file in MODEL_FILES if file not in present]
    assert not missing, f"t2i_zoo/models/{name} lacks {', '.join(missing)}"


def test_no_file_is_long() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for folder in (PACKAGE, ROOT / "tests")
        for path in folder.rglob("*.py")
    }
    assert {file: length for file, length in lengths.items() if length > LONGEST} == {}


def test_the_public_face_is_whole() -> None:
    assert [name for name in t2i_zoo.__all__ if getattr(t2i_zoo, name, None) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'GANCSL'"):
        _ = t2i_zoo.GANCSL


@pytest.mark.parametrize("code", ["import t2i_zoo", 'from t2i_zoo.__main__ import main; assert main(["list"]) == 0'])
def test_quick_commands_do_not_wait_for_torch(code: str) -> None:
    slow = 'import sys; print("loaded:", sorted({"torch", "lightning", "transformers"} & set(sys.modules)))'
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\n{slow}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "loaded: []"
