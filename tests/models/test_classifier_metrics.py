"""A classifier's run as the network of a metric: from fit to the table of evaluate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from t2i_zoo.__main__ import main
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics import build_network
from t2i_zoo.models import load_model

CONFIG = """
metrics: {inception_score: {splits: 1}, frechet_distance: {groups: 2}}
network: ask
reference: train
images: 40
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_widths: Any) -> Path:
    """Two batches of the packaged config, made small."""
    monkeypatch.chdir(tmp_path)
    options = {k: json.dumps(v).strip(chr(34)) for k, v in tiny_widths("classifier").items()}
    widths = [word for key, value in options.items() for word in (f"--model.{key}", value)]
    small = ["--data.source.images", "96", "--data.source.size", "24", "--data.image_size", "16"]
    short = ["--data.batch_size", "16", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "--config", "classifier_synthetic", *widths, *small, *short, *quiet]) == 0
    return tmp_path / "runs" / "classifier_synthetic" / "version_0"


def test_a_run_measures_pictures_by_its_own_name(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in (run / "checkpoints").iterdir()}
    model = load_model(run)
    assert 0 <= model.held_out["accuracy"] <= 1
    network = build_network(f"classifier:{run}", load_checkpoint=load_model)
    pictures = torch.rand(3, 3, 20, 20) * 2 - 1
    features, logits = network.look(pictures)
    seen = model.see(pictures)
    assert torch.equal(features, seen.features)
    assert logits is not None
    assert torch.equal(logits, seen.logits)
    assert (network.label, network.num_logits) == ("SyntheticFlowers classifier", 24)
    assert network.fingerprint == model.fingerprint
    assert not any(parameter.requires_grad for parameter in network.vision.parameters())
    with torch.no_grad():
        model.network.head.bias += 1
    assert network.fingerprint != model.fingerprint

    (tmp_path / "own.yaml").write_text(CONFIG)
    words = ["--ckpt", "real", "--config", str(run / "config.yaml"), "--protocol", str(tmp_path / "own.yaml")]
    assert main(["evaluate", *words, "--network", f"classifier:{run}", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "SyntheticFlowers classifier" in said
    assert "Inception" not in said
    assert "FID" not in said
    lines = [json.loads(line) for line in (tmp_path / "runs" / "real" / "metrics.jsonl").read_text().splitlines()]
    assert {line["network_fingerprint"] for line in lines} == {network.fingerprint}
    score = next(line["value"] for line in lines if line["metric"] == "inception_score")
    assert 1 <= score <= 24


def test_another_model_is_no_classifier() -> None:
    with pytest.raises(T2IError, match="found a Linear in run, expected a Classifier"):
        build_network("classifier:run", load_checkpoint=lambda path: torch.nn.Linear(1, 1))
    with pytest.raises(T2IError, match="classifier:PATH or inception_v3_dfgan: correct --network"):
        build_network("classifier:")
