"""The page for users of the authors' codes: every option that it names exists, in the config that its table is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from t2i_zoo.__main__ import VERBS
from t2i_zoo.commands.pipeline import steps_of
from t2i_zoo.metrics.protocol import list_protocols
from t2i_zoo.mistakes import class_arguments
from t2i_zoo.overview import check_flags
from t2i_zoo.parsing import packaged_configs

PAGE = (Path(__file__).parents[2] / "docs" / "migration.md").read_text("utf-8")
TABLES = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |^Next)", PAGE, re.MULTILINE | re.DOTALL))


def model_of(config: str) -> str:
    kind: str = yaml.safe_load(packaged_configs()[config].read_text("utf-8"))["model"]["class_path"]
    return kind


@pytest.mark.parametrize("code", TABLES)
def test_every_option_exists(code: str) -> None:
    config = re.findall(r"[Tt]he config is `(\w+)`", TABLES[code])[0]
    named = set(re.findall(r"\b[a-z]+_(?:birds|flowers)(?:_dcgan)?\b", TABLES[code])) - {"train_flowers"}
    assert named <= set(packaged_configs())
    rows = [row.strip("| ").split(" | ") for row in re.findall(r"^\| .*\|$", TABLES[code], re.MULTILINE)[1:]]
    assert len(rows) > 15
    assert all(len(row) == 2 for row in rows), "a row without its two cells"
    for _, here in rows:
        if protocol := re.search(r"--protocol (\w+)", here):
            assert protocol[1] in list_protocols()
        for verb in re.findall(r"t2i-zoo (\w+)", here):
            assert verb in {*VERBS, "fit", "predict"}
        for flag in re.findall(
            r"--(?!ckpt\b|text\b|text-file\b|truncation\b|protocol\b|network\b|config\b)[\w.]+", here
        ):
            if flag.startswith("--damsm."):
                assert any("damsm" in step.config for step in steps_of(config, [flag, "1"]))
                name, kind = flag.removeprefix("--damsm.model."), "DAMSM"
            else:
                name, kind = flag.removeprefix("--model."), model_of("damsm_birds" if "`damsm_" in here else config)
                check_flags(["--model", kind, flag, "1"])
            if ".model." in flag or flag.startswith("--model."):
                assert name in class_arguments("model", f"t2i_zoo.{kind}"), f"{kind} has no option {flag}"


def test_all_four_codes_have_a_table() -> None:
    assert list(TABLES) == ["reedscot/icml2016", "hanzhanggit/StackGAN-v2", "taoxugit/AttnGAN", "tobran/DF-GAN"]
