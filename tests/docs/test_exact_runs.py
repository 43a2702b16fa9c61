"""The page of exact runs: every config of birds and flowers has its row, and every command gives what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from t2i_zoo.__main__ import main
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import packaged_configs

PAGE = (Path(__file__).parents[2] / "docs" / "exact_runs.md").read_text("utf-8")
#: config, what deviates, the authors' run, what is left
ROWS = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in re.findall(r"^\| `.*\|$", PAGE, re.MULTILINE)]
COMMANDS = {row[0].strip("` "): shlex.split(row[2].strip("`")) for row in ROWS if row[2].startswith("`fit ")}


def test_every_config_has_its_row() -> None:
    named = [row[0].strip("` ") for row in ROWS]
    wanted = [name for name in packaged_configs() if re.search(r"_(birds|flowers)(_dcgan)?$", name)]
    (own,) = re.findall(r"^(.*) follow no paper", PAGE, re.MULTILINE)
    assert sorted([*named, *re.findall(r"`(\w+)`", own)]) == sorted(wanted)
    assert all(len(row) == 4 for row in ROWS)
    assert set(named) - set(COMMANDS) == {"ganintcls_flowers"}  # "as above"


def parsed(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*words, "--print_config"])
    assert stop.value.code == 0
    found: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return found


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Values by their flags; a mapping such as a text encoder is one value."""
    found = {}
    for key, value in config.items():
        name = f"{prefix}{key}".replace("model.init_args.", "model.").replace("data.source.init_args.", "data.source.")
        whole = not isinstance(value, dict) or key == "text_encoder"
        found |= {name: value} if whole else flat(value, f"{name.replace('model.init_args', 'model')}.")
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_gives_the_authors_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = COMMANDS[name]
    config = words[words.index("--config") + 1]
    assert config == name or (name, config) == ("gancls_flowers", "ganintcls_flowers")
    before, after = (flat(parsed(each, capsys)) for each in (words[:3], words))
    flags = {words[i].removeprefix("--"): yaml.safe_load(words[i + 1]) for i in range(3, len(words), 2)}
    assert {key: after[key] for key in flags} == flags
    assert {key for key in after if after[key] != before.get(key)} <= set(flags)
    assert all(before.get(key) != value for key, value in flags.items()), "a flag that changes nothing"
    model = next(
        key for key, entry in MODELS.items() if entry.path.endswith(f".{after['model.class_path'].split('.')[-1]}")
    )
    if MODELS[model].kind == "gan":
        assert after["model.ema_decay"] == 0 or after["model.ema_warmup"] is False
        reader = after["model.text_encoder"]
        assert after["model.damsm"] or reader["kind"] in ("precomputed", "skip_thought")


def test_tacgan_is_the_command_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    found = flat(parsed(["fit", "--config", "tacgan_flowers"], capsys))
    wanted = {
        "model.projection_dim": 100, "data.batch_size": 128, "trainer.max_epochs": 400, "model.image_size": 128,
        "model.noise_dim": 100, "model.learning_rate": 2e-4, "model.beta1": 0.5, "model.generator_width": 64,
        "model.discriminator_width": 64, "model.num_classes": 102, "model.discriminator_widths": "head",
    }  # fmt: skip
    assert {key: found[key] for key in wanted} == wanted
