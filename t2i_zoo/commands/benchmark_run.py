"""What a run does beside its steps, one by one: checkpoints, metrics, the progress bar, grids and drawing."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.progress import Progress

from t2i_zoo.callbacks import ResumePoint, SampleGrid
from t2i_zoo.models.base import TextToImageGAN

REPEATS = 3


def costs_beside_steps(trainer: L.Trainer, model: TextToImageGAN, now: Callable[[torch.device], float]) -> Any:
    """Milliseconds of each, median of three; to be called before training ends, while the model is on its device.

    Args:
        trainer: whose callbacks and logger are measured.
        model: the model in training.
        now: the time once a device has done what was asked of it.

    Returns:
        ``checkpoint_pause_ms`` (training waits), ``checkpoint_ms`` (until the file is whole), ``checkpoint_mb``,
        ``log_ms`` (a row of metrics), ``bar_ms`` (the progress bar drawn once, without its metrics), ``grid_ms`` and
        ``drawn_per_second``, images of the averaged generator in the data's batch size.
    """
    device, found = model.device, dict[str, float]()
    callbacks: Any = trainer.callbacks  # type: ignore[attr-defined]
    data: Any = trainer.datamodule  # type: ignore[attr-defined]

    def measure(name: str, call: Callable[[], Any]) -> None:
        times = []
        for _ in range(REPEATS):
            start = now(device)
            call()
            times.append(now(device) - start)
        found[name] = 1e3 * statistics.median(times)

    keeper = next((each for each in callbacks if isinstance(each, ResumePoint)), None)
    if keeper is not None and keeper.path is not None:
        writer: Any = trainer.strategy.checkpoint_io

        def save() -> None:
            keeper.save(trainer, wait=False)
            pauses.append(now(device) - began[0])
            writer.teardown()  # waits for the file
            began[0] = now(device)

        pauses, began = list[float](), [now(device)]
        measure("checkpoint_ms", save)
        found["checkpoint_pause_ms"] = 1e3 * statistics.median(pauses)
        found["checkpoint_mb"] = Path(keeper.path).stat().st_size / 1e6
    row = {name: float(value) for name, value in trainer.logged_metrics.items()} or {"train/loss": 0.0}
    if trainer.loggers:
        measure("log_ms", lambda: trainer.loggers[0].log_metrics(row, trainer.global_step))
    bar = Progress(console=Console(file=io.StringIO(), force_terminal=True, width=120), auto_refresh=False)
    bar.add_task("Epoch 0", total=100)
    with bar:
        measure("bar_ms", bar.refresh)
    grid = next((each for each in callbacks if isinstance(each, SampleGrid)), None)
    if grid is not None:
        measure("grid_ms", lambda: grid.draw(trainer, model))
    captions = data.example_captions(1) * data.batch_size
    text = model.encode(captions)
    measure("draw_ms", lambda: model.generate(text))
    found["drawn_per_second"] = 1e3 * len(captions) / found.pop("draw_ms")
    return found
