"""The classifier in two gloo processes on the CPU: ``test_classifier_two_processes.py FOLDER`` is one of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.models.classifier import Classifier

# by its path, since other folders have modules of this name
_CONFTEST = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))
build_trainer, TINY = _CONFTEST["build_trainer"], _CONFTEST["TINY"]


def run(folder: Path, **options: Any) -> dict[str, Any]:
    """Judge the 15 held-out pictures with initial weights, then train one epoch."""
    L.seed_everything(4, verbose=False)
    model = Classifier(**TINY["classifier"], num_classes=24)
    source = SyntheticFlowers(images=150, size=24, split="random")
    judge = build_trainer(folder, limit_val_batches=1.0, **options)
    judge.validate(model, CaptionDataModule(source, image_size=16, batch_size=3), verbose=False)
    metrics = {key: float(value) for key, value in judge.callback_metrics.items()}
    held_out = model.held_out
    build_trainer(folder, **options).fit(model, CaptionDataModule(source, image_size=16, batch_size=12))
    return {
        "metrics": metrics,
        "held_out": held_out,
        "parameters": dict(model.named_parameters()),
        "clock": model.clock,
        "noise": model.rng.get_state(),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, two_ranks: Any) -> list[dict[str, Any]]:
    """What both processes wrote down."""
    return two_ranks(__file__, tmp_path_factory.mktemp("ranks"))


def test_ranks_end_equal_from_other_pictures(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    assert [n for n, p in first["parameters"].items() if not torch.equal(p, second["parameters"][n])] == []
    assert first["clock"] == second["clock"] > 2
    assert not torch.equal(first["noise"], second["noise"])


def test_the_accuracy_of_two_ranks_is_that_of_one_process(ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    """15 pictures are 8 and 8: the one that comes twice counts once."""
    alone = run(tmp_path)
    assert alone["held_out"]["pictures"] == 15
    for rank in ranks:
        assert rank["metrics"] == pytest.approx(alone["metrics"], rel=1e-5)
        assert rank["held_out"] == pytest.approx(alone["held_out"], rel=1e-5)


if __name__ == "__main__":
    found = run(Path(sys.argv[1]), devices=2, strategy="ddp")
    torch.save(found, Path(sys.argv[1]) / f"rank_{torch.distributed.get_rank()}.pt")
