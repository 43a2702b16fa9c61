"""DAMSM in two gloo processes on the CPU: ``test_damsm_two_processes.py FOLDER`` is one of them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from t2i_zoo.models.damsm import DAMSM

# by its path, since other folders have modules of this name
_CONFTEST = runpy.run_path(str(Path(__file__).parents[1] / "conftest.py"))
build_data, build_trainer, TINY = (_CONFTEST[name] for name in ("build_data", "build_trainer", "TINY"))


def run(folder: Path, **options: Any) -> dict[str, Any]:
    """Train one epoch, then judge the held-out pictures with the weights that this began with."""
    L.seed_everything(4, verbose=False)
    model = DAMSM(**TINY["damsm"], learning_rate=0.01)
    model.know(["a", "flower", "with", "petals", "red", "blue", "the"])
    judge = build_trainer(folder, limit_val_batches=1.0, **options)
    judge.validate(model, build_data(batch_size=3), verbose=False)
    metrics = {key: float(value) for key, value in judge.callback_metrics.items()}
    trainer = build_trainer(folder, **options)
    trainer.fit(model, build_data(batch_size=6))
    return {"metrics": metrics, "parameters": dict(model.named_parameters()), "clock": model.clock}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory, two_ranks: Any) -> list[dict[str, Any]]:
    """What both processes wrote down."""
    return two_ranks(__file__, tmp_path_factory.mktemp("ranks"))


def test_ranks_end_equal_though_their_captions_differ_in_length(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["parameters"] for rank in ranks)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert all(tensor.isfinite().all() for tensor in first.values())
    assert ranks[0]["clock"] == ranks[1]["clock"] > 2


def test_retrieval_of_two_ranks_is_that_of_one_process(ranks: list[dict[str, Any]], tmp_path: Path) -> None:
    """Captions of a picture are drawn by rank, so only what does not depend on them is the same number."""
    alone = run(tmp_path)["metrics"]
    for rank in ranks:
        assert rank["metrics"] == ranks[0]["metrics"]
        assert rank["metrics"].keys() == alone.keys()
        assert rank["metrics"]["val/r_precision_chance"] == pytest.approx(alone["val/r_precision_chance"])
        assert 0 < rank["metrics"]["val/r1_text_to_image"] <= 1


if __name__ == "__main__":
    found = run(Path(sys.argv[1]), devices=2, strategy="ddp")
    torch.save(found, Path(sys.argv[1]) / f"rank_{torch.distributed.get_rank()}.pt")
