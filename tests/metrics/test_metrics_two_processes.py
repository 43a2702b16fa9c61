"""Two gloo processes with unequal shares against one process: the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import metrics_worker
import pytest
import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both processes write."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(folder: Path, flowers: Any, two_ranks: Any) -> list[dict[str, Any]]:
    """What both processes wrote down; ``flowers`` packs the store that they open."""
    return two_ranks(metrics_worker.__file__, folder)


def test_every_process_has_the_numbers_of_one(ranks: list[dict[str, Any]]) -> None:
    alone = metrics_worker.numbers()
    assert len(alone) == 13
    for rank in ranks:
        whole = rank.pop("evaluation")
        torch.testing.assert_close(whole, alone["evaluation"], rtol=1e-4, atol=1e-6)
        for name, found in rank.items():
            assert all(torch.isfinite(value).all() for value in found.values()), name
            torch.testing.assert_close(found, alone[name], rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_the_callback_measures_in_both_and_writes_once(folder: Path, ranks: list[dict[str, Any]]) -> None:
    lines = [json.loads(text) for text in (folder / "version_0" / "metrics.jsonl").read_text().splitlines()]
    seen = [(line["epoch"], line["metric"]) for line in lines]
    assert len(seen) == len(set(seen))
    assert {epoch for epoch, _ in seen} == {1, 2}
    colours = [line for line in lines if line["metric"] == "agreement.petal_colour"]
    assert [line["note"] for line in colours] == ["9 captions name it"] * 2  # 5 of one process and 4 of the other
