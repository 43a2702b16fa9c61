"""Who may import whom, what a model's folder holds, and what stays quick: read from the source, not from memory."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import t2i_zoo
from t2i_zoo.models import MODELS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "t2i_zoo"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
MODEL_FILES = ("__init__.py", "networks.py", "losses.py", "module.py", "README.md")
LONGEST = 350
PAGE = ROOT / "docs" / "architecture.md"

#: of ours, what every folder but ``nn`` may use
COMMON = {"errors", "files", "lazy", "seeds", "batch", "paths", "version", "pictures", "ranges"}
NUMBERS = {"torch", "numpy", "scipy"}
#: the files beside the models' folders; "=" is this very file, here ``models/__init__.py``
NEIGHBOURS = {"=models", *(f"models.{file[7:-3]}" for file in FILES if re.fullmatch(r"models/[^/_]+\.py", file))}


class Rule(NamedTuple):
    """Files by pattern (``{m}`` is a model's own folder), and what they may import: of ours and of others."""

    files: str
    ours: set[str]
    others: set[str]


#: the first rule whose pattern fits; files that none fits (``cli.py``, ``commands``, ...) may import everything
RULES = [
    Rule(r"(errors|lazy|seeds|version)\.py", set(), set()),
    Rule(r"files\.py", {"errors"}, set()),
    Rule(r"(ranges|signatures)\.py", {"errors"}, {"docstring_parser"}),
    Rule(r"paths\.py", {"errors", "files", "hub"}, {"platformdirs"}),
    Rule(r"hub\.py", {"errors", "files", "version"}, {"huggingface_hub"}),
    Rule(r"fonts\.py", {"errors"}, {"PIL"}),
    Rule(r"pictures\.py", {"files", "fonts"}, {"torch", "PIL"}),
    Rule(r"sampling\.py", {"models.drawing", "text"}, {"torch"}),
    Rule(r"batch\.py", {"text.features"}, {"torch"}),
    Rule(r"nn/.*", {"nn"}, {"torch"}),
    Rule(r"vision/inception_tf\.py", {"vision", *COMMON}, {"torch", "torch_fidelity"}),
    Rule(r"vision/.*", {"vision", *COMMON}, {"torch", "torchvision", "safetensors"}),
    Rule(r"text/transformers_encoder\.py", {"text", "nn", *COMMON}, {*NUMBERS, "transformers"}),
    Rule(r"text/(rnn|char_cnn_rnn|precomputed_files)\.py", {"text", "nn", "legacy", *COMMON},
         {*NUMBERS, "safetensors"}),
    Rule(r"text/.*", {"text", "nn", "legacy", *COMMON}, {*NUMBERS, "rich"}),
    Rule(r"data/(base|module)\.py", {"data", "text", *COMMON}, {*NUMBERS, "torchvision", "lightning"}),
    Rule(r"data/birds\.py", {"data", "text", "legacy", *COMMON}, NUMBERS),
    Rule(r"data/hf\.py", {"data", *COMMON}, {*NUMBERS, "datasets"}),
    Rule(r"data/tables\.py", {"data", *COMMON}, {"numpy", "pyarrow"}),
    Rule(r"data/download\.py", {"data", *COMMON}, {"filelock", "pooch", "requests", "rich"}),
    Rule(r"data/(shards|shard_writer)\.py", {"data", "text", *COMMON}, {"numpy", "PIL", "filelock", "webdataset"}),
    Rule(r"data/.*", {"data", "text", *COMMON}, {*NUMBERS, "torchvision", "PIL", "filelock", "rich"}),
    Rule(r"legacy/.*", {"legacy", *COMMON}, {"numpy"}),
    Rule(r"models/exported\.py", {*NEIGHBOURS, "text", "signatures", *COMMON}, {"torch", "safetensors"}),
    Rule(r"models/graphs\.py", {"models.drawing", "text", *COMMON}, {"torch", "onnx", "onnxscript", "onnxruntime"}),
    Rule(r"models/drawing\.py", {"nn", "text", *COMMON}, {"torch"}),
    Rule(r"models/(?P<m>\w+)/drawing\.py", {"models.drawing", "models.{m}.networks", "nn", "text", *COMMON}, {"torch"}),
    Rule(r"models/projection\.py", {*NEIGHBOURS, "nn", "vision", *COMMON}, {"torch"}),
    Rule(r"models/[^/]*\.py", {*NEIGHBOURS, "text", "nn", *COMMON}, {"torch", "numpy", "lightning", "safetensors"}),
    Rule(r"models/(?P<m>\w+)/(networks|losses)\.py", {"models.{m}.networks", "nn", "text", "vision", *COMMON},
         {"torch"}),
    Rule(r"models/(?P<m>\w+)/official\.py", {"models.official", "models.official_pyramid", *COMMON}, {"torch"}),
    Rule(r"models/(?P<m>\w+)/.*",
         {*NEIGHBOURS, "models.{m}", "nn", "text", "vision", *COMMON},
         {"torch", "lightning", "torchmetrics"}),
    Rule(r"metrics/flowers/masks\.py", {"metrics", "data.drawing", "data.images", "data.records", *COMMON}, NUMBERS),
    Rule(r"metrics/flowers/.*", {"metrics", "nn", "data.drawing", "data.synthetic", *COMMON}, NUMBERS),
    Rule(r"metrics/retrieval\.py", {"metrics", "nn", *COMMON}, NUMBERS),
    Rule(r"metrics/board\.py", {"metrics", *COMMON}, {"jinja2"}),
    Rule(r"metrics/transformers_dual\.py", {"metrics", *COMMON}, {*NUMBERS, "transformers"}),
    Rule(r"metrics/(protocol|published)\.py", {"metrics", *COMMON}, {"yaml"}),
    Rule(r"metrics/.*", {"metrics", "vision", *COMMON}, {*NUMBERS, "torchmetrics"}),
    Rule(r"callbacks/evaluation\.py", {"callbacks", "metrics", "models", *COMMON}, {*NUMBERS, "lightning"}),
    Rule(r"loggers\.py", {"errors", "pictures", "version"}, {"torch", "lightning", "requests", "wandb", "yaml"}),
    Rule(r"callbacks/.*", {"callbacks", "loggers", "metrics", "models.base", "run_files", "sampling", *COMMON},
         {*NUMBERS, "lightning", "PIL"}),
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


def edges() -> dict[str, set[str]]:
    """Which files of the package each file imports, in functions and under ``TYPE_CHECKING`` too.

    ``import a.b.c`` counts for the file of ``a.b.c`` and not for the ``__init__`` files of ``a`` and ``a.b``, which
    Python runs first: those give their names by strings, on first use.
    """
    found: dict[str, set[str]] = {}
    for file in FILES:
        paths = [name.replace(".", "/") for name in imported(ast.parse((PACKAGE / file).read_text("utf-8")))]
        targets = {f"{path}{end}".removeprefix("t2i_zoo/") for path in paths for end in (".py", "/__init__.py")}
        found[file] = targets.intersection(FILES)
    return found


def test_no_two_files_import_each_other() -> None:
    """However long the way round is, and however lazily the last file imports the first."""
    try:
        TopologicalSorter(edges()).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def within(name: str, places: set[str]) -> bool:
    return any(name == place.lstrip("=") or name.startswith(f"{place}.") for place in places)


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


def table() -> str:
    """The rules as the table of the architecture page."""
    rows = ["| files | of ours | of others |", "|---|---|---|"]
    for rule in [*RULES, Rule("the others", {"everything"}, {"everything"})]:
        files = rule.files.replace(r"(?P<m>\w+)", "<m>").replace("[^/]", "").replace("\\", "").replace(".*", "*")
        files = re.sub(r"\(([^)]*)\)", lambda found: f"{{{found[1].replace('|', ',')}}}", files)
        ours, others = set(rule.ours), set(rule.others)
        for group, name in ((COMMON, "the common ones"), (NEIGHBOURS, "the neighbours")):
            ours = {*(ours - group), name} if group <= ours else ours
        cells = (sorted(place.replace("{m}", "<m>").replace(".", "/") for place in ours), sorted(others))
        rows.append(" | ".join((f"| `{files}`", *(", ".join(cell) for cell in cells))) + " |")
    return "\n".join(rows).replace("`the others`", "the others")


def test_the_architecture_page_has_the_rules() -> None:
    assert table() in PAGE.read_text("utf-8"), "the rules have changed: run python tests/test_imports.py"


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


def test_loading_a_model_imports_no_other(tmp_path: Path, tiny_options: dict[str, Any], build_trainer: Any) -> None:
    widths = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
    model, path = t2i_zoo.GANCLS(**tiny_options, **widths), tmp_path / "run.ckpt"
    trainer = build_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    code = f"import sys, t2i_zoo\nfrom t2i_zoo.models import name_of\nprint(name_of(t2i_zoo.load_model({str(path)!r})))"
    others = 'print([name for name in sys.modules if name.startswith("t2i_zoo.models.") and name.endswith(".module")])'
    process = subprocess.run([sys.executable, "-c", f"{code}\n{others}"], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-2:] == ["gancls", "['t2i_zoo.models.gancls.module']"]


@pytest.mark.parametrize("code", ["import t2i_zoo", 'from t2i_zoo.__main__ import main; assert main(["list"]) == 0'])
def test_quick_commands_do_not_wait_for_torch(code: str) -> None:
    slow = 'import sys; print("loaded:", sorted({"torch", "lightning", "transformers"} & set(sys.modules)))'
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\n{slow}"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "loaded: []"


def test_an_exported_generator_draws_without_lightning(tmp_path: Path) -> None:
    words = ["sample", "--model", "flowers64", "--text", "a pink flower", "--n", "1", "--out", str(tmp_path / "a.png")]
    code = f"""
import sys
from t2i_zoo.__main__ import main
assert main({words}) == 0
slow = {{"lightning", "torchmetrics", "torchvision", "scipy", "transformers", "datasets", "wandb", "torch._dynamo"}}
print("loaded:", sorted(slow & set(sys.modules)))
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "loaded: []"


if __name__ == "__main__":  # write the table into the page
    text = re.sub(r"\| files \| of ours(.*\n)+?(?=\n)", lambda _: f"{table()}\n", PAGE.read_text("utf-8"))
    PAGE.write_text(text, "utf-8")
