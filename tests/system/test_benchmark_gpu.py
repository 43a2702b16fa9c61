"""t2i-zoo benchmark --suite gpu, tiny and on a CPU, and the plain steps that it compares with."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from t2i_zoo.__main__ import main
from t2i_zoo.commands import benchmark_gpu
from t2i_zoo.commands.benchmark import measure_step
from t2i_zoo.commands.benchmark_gpu import Case, Mode, report
from t2i_zoo.commands.plain_steps import PLAIN
from t2i_zoo.models.base import TextToImageGAN

SMALL: dict[str, Any] = {
    **{"generator_width": 4, "discriminator_width": 4, "projection_dim": 8, "condition_dim": 4, "residual_blocks": 1},
    **{"image_size": 32, "batch_size": 4, "text_encoder": {"kind": "hashing", "dim": 32}},
}


def test_a_page_of_every_mode(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(TextToImageGAN, "compile_backend", "aot_eager")
    monkeypatch.setattr(benchmark_gpu, "THEN", (Mode("fp32", compiled=True),))
    given = words(tmp_path / "unused")
    found = report(tmp_path / "out", 10, measure_step, ["gancls_flowers"], SMALL, given)
    assert not found["failed"]
    assert not found["left_out"]
    names = ("precision", "channels_last", "compiled", "graphed")
    modes = [tuple(row[name] for name in names) for row in found["rows"]]
    bf16 = [("bf16", False, False, False), ("bf16", True, False, False), ("bf16", True, False, True)]
    assert modes == [*bf16, ("fp32", False, True, False)]
    assert all(row["step_ms"] > 0 and row["tflops"] > 0 for row in found["rows"])
    assert [row["precision"] for row in found["plain"]] == ["tf32", "bf16"]
    assert found["run"]["data_ms"] > 0
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["bf16_tflops"] > 0
    written = (tmp_path / "out" / "gpu.md").read_text()
    assert "| gancls_flowers | bf16 | True | False | True | 4 |" in written
    assert "times the speed of the plain step" in written
    assert (tmp_path / "out" / "slowest.json.gz").stat().st_size > 1000
    assert capsys.readouterr().out.endswith(written + "\n")


def test_no_time_and_failures_are_said(tmp_path):
    found = report(tmp_path, 0, measure_step, ["stackganpp_flowers"], SMALL)
    assert found["rows"] == []
    assert "stackganpp_flowers bf16 channels_last graphed" in found["left_out"]
    odd = report(tmp_path, 10, measure_step, ["gancls_flowers"], {**SMALL, "image_size": 7}, ["--config", "nothing"])
    assert set(odd["failed"]) >= {"gancls_flowers bf16", "plain gancls_flowers bf16", "a run under Lightning"}
    assert "gancls_flowers fp32: " in (tmp_path / "gpu.md").read_text()


def test_every_model_of_the_suite_is_built_and_trained():
    for config in benchmark_gpu.CONFIGS:
        case = Case(config, Mode("fp32"), torch.device("cpu"), SMALL)
        case.loop().step()


@pytest.mark.parametrize("config", ["gancls_flowers", "stackganpp_flowers"])
def test_the_plain_step_is_the_same_training(config):
    case = Case(config, Mode("fp32"), torch.device("cpu"), SMALL)
    model, data = case.prepare()
    batch = next(iter(data.batches("train", model)))
    batch["text"] = model.encode(batch)
    plain, terms = PLAIN[case.kind](model), {}
    torch.manual_seed(1)
    *plain_d, _ = plain.step(batch)
    torch.manual_seed(1)
    for optimizer in (optimizers := model.train().configure_optimizers()[0]):
        optimizer.zero_grad()
    terms = model.step(batch, *optimizers)
    torch.testing.assert_close(sum(plain_d), terms["discriminator"]["loss"])
    judges = model.discriminators
    for one, other in zip(plain.discriminators, judges, strict=True):
        for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=5e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_the_suite_takes_no_options_of_fit(mistake, tmp_path):
    said = mistake("benchmark", "--suite", "gpu", "--out", str(tmp_path), "--config", "gancls_flowers")
    assert said == "found --config beside --suite gpu, which measures its own configs: leave it out"
    assert main(["benchmark", "--help"]) == 0
