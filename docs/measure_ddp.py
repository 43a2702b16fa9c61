"""What ``gan_ddp`` and Lightning's DDP send, and how long a step takes.

``torchrun --nproc_per_node 2 docs/measure_ddp.py``: the two take turns in one run, so that both see the same machine.
Bytes are what a process hands to the operating system, as Linux counts them in ``/proc/self/io``.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch

from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.models.stackganpp import StackGANPlusPlus

BATCHES, ROUNDS, FIRST = 6, 4, 2  # of each round the first batches do not count
MODEL: dict[str, Any] = {"branches": 2, "image_size": 32, "generator_width": 32, "discriminator_width": 32}
STRATEGIES = {"gan_ddp": "gan_ddp", "ddp, unused parameters": "ddp_find_unused_parameters_true"}


def written() -> int:
    """Bytes that this process has written, to sockets too."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("wchar")))


class Watch(L.Callback):
    """Seconds and bytes of each batch that counts."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.bytes: list[int] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin."""
        self._now = time.perf_counter(), written()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End."""
        if batch_idx >= FIRST:
            self.seconds.append(time.perf_counter() - self._now[0])
            self.bytes.append(written() - self._now[1])


def main() -> None:
    """Take turns, and print a table."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    world = int(os.environ["WORLD_SIZE"])
    watches = {name: Watch() for name in STRATEGIES}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "limit_val_batches": 0}
    for _ in range(ROUNDS):
        for name, strategy in STRATEGIES.items():
            L.seed_everything(0, verbose=False)
            model, data = (
                StackGANPlusPlus(**MODEL),
                CaptionDataModule(SyntheticFlowers(images=200, size=48), image_size=32, batch_size=8),
            )
            options: Any = {**quiet, "callbacks": [watches[name]], "strategy": strategy, "devices": world}
            L.Trainer(max_epochs=1, limit_train_batches=BATCHES, accelerator="cpu", **options).fit(model, data)
    if torch.distributed.get_rank():
        return
    networks = {
        name: sum(p.nbytes for p in getattr(model, name).parameters()) for name in ("generator", "discriminator")
    }
    print(f"{world} processes; MB of weights: " + ", ".join(f"{name} {n / 1e6:.1f}" for name, n in networks.items()))
    for name, watch in watches.items():
        ms, sent = 1e3 * statistics.median(watch.seconds), statistics.median(watch.bytes) / 1e6
        print(f"{name:<24} {sent:8.1f} MB sent a step by a process {ms:8.0f} ms a step")


if __name__ == "__main__":
    main()
