"""Two gloo processes with unequal shares against one process: the same numbers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import metrics_worker
import pytest
import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, flowers: Any) -> Path:
    """Where both processes write; ``flowers`` packs the store that they open."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    logs = [folder / f"rank_{rank}.log" for rank in range(2)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, metrics_worker.__file__, str(folder)]
            with log.open("w") as file:
                environment = {**shared, "LOCAL_RANK": str(rank)}
                processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=120) == 0, log.read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return folder


def test_every_process_has_the_numbers_of_one(folder: Path) -> None:
    ranks = [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
    alone = metrics_worker.numbers()
    assert len(alone) == 10
    for rank in ranks:
        whole = rank.pop("evaluation")
        torch.testing.assert_close(whole, alone["evaluation"], rtol=1e-4, atol=1e-6)
        for name, found in rank.items():
            assert all(torch.isfinite(value).all() for value in found.values()), name
            torch.testing.assert_close(found, alone[name], rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_the_callback_measures_in_both_and_writes_once(folder: Path) -> None:
    lines = [json.loads(text) for text in (folder / "version_0" / "metrics.jsonl").read_text().splitlines()]
    seen = [(line["epoch"], line["metric"]) for line in lines]
    assert len(seen) == len(set(seen))
    assert {epoch for epoch, _ in seen} == {1, 2}
    colours = [line for line in lines if line["metric"] == "agreement.petal_colour"]
    assert [line["note"] for line in colours] == ["9 captions name it"] * 2  # 5 of one process and 4 of the other
