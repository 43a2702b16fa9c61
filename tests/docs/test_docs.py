"""What README and docs say holds: code runs, commands and configs exist, no file names a machine's own paths."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import t2i_zoo
from t2i_zoo.__main__ import TRAINING, VERBS, main
from t2i_zoo.commands.pipeline import steps_of
from t2i_zoo.mistakes import class_arguments
from t2i_zoo.parsing import packaged_configs
from t2i_zoo.paths import shipped_generators

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "t2i_zoo" / "models").glob("*/README.md"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WRITTEN_BY_A_PAGE = {"loggers.yaml", "evaluation.yaml"}  # configs that a page tells the reader to save


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in FENCE.findall(page.read_text("utf-8")) if found == language]


def commands(page: Path) -> list[list[str]]:
    """The words behind ``t2i-zoo`` of each command in a page's shell blocks."""
    lines = [line for code in blocks(page, "sh") for line in code.splitlines()]
    lines += re.findall(r"`((?:t2i-zoo|fit|prepare|sample) --[^`\n]+)`", page.read_text("utf-8"))
    found = []
    for line in lines:
        if match := re.search(r"(?:^|[ /])(?:t2i-zoo|t2i_zoo) +(.*)$|^((?:fit|prepare|sample) .*)$", line):
            words = shlex.split(match[1] or match[2])
            if words and words[0] == "pipeline" and words[1:]:  # each of its steps is a fit
                rest = [word for word in words[2:] if word != "--dry-run"]
                found += [["fit", "--config", step.config, *step.words] for step in steps_of(words[1], rest)]
            elif words and words[0] in {**TRAINING, **VERBS}:
                found.append(words)
    return found


ALL_COMMANDS = [(page, words) for page in PAGES for words in commands(page)]


def name_of(value: Any) -> str | None:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else None


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of each verb, read once."""
    return {}


def help_of(verb: str, helps: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    if verb not in helps:
        capsys.readouterr()
        with contextlib.suppress(SystemExit):  # of argparse
            main([verb, "--help", *(["all"] if verb in TRAINING else [])])
        helps[verb] = capsys.readouterr().out
    return helps[verb] + (help_of("fit", helps, capsys) if verb == "benchmark" else "")


def test_the_commands_are_found() -> None:
    verbs = {words[0] for page, words in ALL_COMMANDS if page.name == "README.md"}
    assert {"fit", "sample", "prepare", "benchmark"} <= verbs


@pytest.mark.parametrize(("page", "words"), ALL_COMMANDS, ids=name_of)
def test_every_option_exists(
    page: Path, words: list[str], helps: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    listed = set(re.findall(r"--[\w.-]+", help_of(words[0], helps, capsys)))
    for flag in (word.split("=")[0] for word in words if word.startswith("--")):
        if flag in ("--print_config", "--help") or "my_gan.ProjectionGAN" in words:
            continue
        base, _, argument = flag.lstrip("-").rpartition(".")
        chosen = base in ("model", "data.source") and argument in class_arguments(base)
        assert chosen or flag in listed, f"{page.name} says {flag}, which t2i-zoo {words[0]} has not"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_config_exists(page: Path) -> None:
    text, packaged = page.read_text("utf-8"), packaged_configs()
    named = {words[i + 1] for words in commands(page) for i, word in enumerate(words[:-1]) if word == "--config"}
    for name in named - WRITTEN_BY_A_PAGE:
        if not name.startswith("runs/"):
            assert name in packaged or (ROOT / name).is_file(), f"{page.name} names the config {name}"
    for name in re.findall(r"(?<![\w/])(?:gan|tac|stack|attn|mirror)\w*_(?:flowers|synthetic|folder)\b", text):
        assert name in packaged, f"{page.name} names the config {name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles_and_its_imports_work(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.parse(code).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("t2i_zoo"):
                exec(compile(ast.Module([node], []), str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    text = re.sub(FENCE, "", page.read_text("utf-8"))
    for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_loggers_of_the_first_run_parse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loggers.yaml").write_text(blocks(ROOT / "docs" / "first_run.md", "yaml")[0])
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "gancls_synthetic", "--config", str(tmp_path / "loggers.yaml"), "--print_config"])
    assert stop.value.code == 0
    loggers = yaml.safe_load(capsys.readouterr().out)["trainer"]["logger"]
    assert [entry["class_path"].rpartition(".")[2] for entry in loggers] == ["TensorBoardLogger", "WandbLogger"]
    assert loggers[1]["init_args"]["offline"] is True


def test_the_evaluation_of_the_metrics_page_parses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [code for code in blocks(ROOT / "docs" / "metrics.md", "yaml") if "callbacks" in code]
    (tmp_path / "evaluation.yaml").write_text(code)
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "gancls_synthetic", "--config", str(tmp_path / "evaluation.yaml"), "--print_config"])
    assert stop.value.code == 0
    (callback,) = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    assert callback["init_args"]["protocol"] == "agreement_synthetic"


def test_a_whole_encoder_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = next(w for page, w in ALL_COMMANDS if page.name == "README.md" and "--model.text_encoder" in w)
    with pytest.raises(SystemExit):
        main([*words, "--print_config"])
    spec = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["text_encoder"]
    assert spec == {"kind": "transformers", "model": "sentence-transformers/all-MiniLM-L6-v2"}


def test_the_readme_holds_its_two_commands() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert sum("-m pytest" in line for line in lines) == 1  # .ci/run runs this very line
    main_job = [line for line in lines if line.startswith("python3 -m venv") and "t2i-zoo fit" in line]
    assert len(main_job) == 1
    assert main_job[0].endswith("--config experiments/gancls_synthetic.yaml")


def test_the_zoo_is_listed() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for name in [*t2i_zoo.list_models(), *packaged_configs()]:
        assert f"`{name}`" in readme, f"README.md does not list {name}"


def test_the_plain_loop_of_the_data_page() -> None:
    """Its block, on fewer flowers."""
    (code,) = blocks(ROOT / "docs" / "data.md", "python")
    assert "SyntheticFlowers()" in code
    code = code.replace("SyntheticFlowers()", "SyntheticFlowers(images=80, size=24)")
    names: dict[str, Any] = {}
    exec(compile(code, "data.md", "exec"), names)
    assert names["batch"]["images"][-1].shape == (64, 3, 64, 64)
    assert torch.isfinite(names["loss"])


def test_add_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's blocks, in order, in one namespace."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "add_a_model"}
    for number, code in enumerate(blocks(ROOT / "docs" / "add_a_model.md", "python")):
        exec(compile(code, f"add_a_model.md, block {number}", "exec"), names)
    model, trainer = names["model"], names["trainer"]
    assert model.clock == 2 * len(names["data"].train_dataloader()) > 10
    assert trainer.global_step == 2 * model.clock
    assert {"train/discriminator_wrong", "train/generator_loss"} <= set(names["losses"])
    assert set(model.hparams) >= set(inspect.signature(type(model).__init__).parameters) - {"self", "options"}
    assert (tmp_path / "projection_gan.png").stat().st_size > 1000
    assert names["same"].shape == (4, 3, 32, 32)
    assert torch.equal(names["same"], names["rows"][0])
    assert not torch.equal(names["rows"][0], names["rows"][1])
    assert names["again"].unknown_words("a turquoise flower") == ["turquoise"]


def test_every_page_ends_with_a_next_step() -> None:
    """Each page of the trees of contents, notebooks too."""
    docs = ROOT / "docs"
    trees = re.findall(
        r"^```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)^```$", (docs / "index.md").read_text("utf-8"), re.M | re.S
    )
    names = [name for tree in trees for name in tree.split()]
    assert len(names) == len(set(names)) > 30, "a page is there twice"
    for name in names:
        page = docs / f"{name}.md"
        if page.exists():
            text = page.read_text("utf-8")
        else:
            last = json.loads((docs / f"{name}.ipynb").read_text("utf-8"))["cells"][-1]
            text = "".join(last["source"])
        step = text.rstrip().splitlines()[-1]
        assert re.match(r"Next: .*\]\(", step), f"{name} ends with {step[:80]!r}"
        for link in re.findall(r"\]\(([^)#:]+)", step):
            assert (page.parent / link).exists(), f"{name} ends with a link to {link}"


def test_the_gallery_shows_every_gan() -> None:
    text = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    for name in t2i_zoo.list_models("gan"):
        assert f"models/{name}.md" in text
    for name in shipped_generators():
        assert f"`{name}`" in text or f"--model {name}" in text


def text_files() -> list[Path]:
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode or not found.stdout:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in found.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in (".png", ".jpg")]


def test_no_file_names_paths_of_one_machine() -> None:
    folders = "|".join(("work", "tmp", "root", "home", "Users"))
    pattern = re.compile(rf"(?<![\w.)\]}}>/*-])/(?:{folders})/\w")
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert lines == []
