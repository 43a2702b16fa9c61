"""``t2i-zoo benchmark``: what the training step costs, beside a bare loop of the same networks and losses."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch

from t2i_zoo.commands.bare_loop import BareLoop, now, peak_memory
from t2i_zoo.commands.benchmark_run import costs_beside_steps
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.paths import check_new
from t2i_zoo.version import __version__

PARTS = ("data", "text", "generator forward", "discriminator", "generator", "ema")


class SideBySide(L.Callback):
    """Times windows of Lightning's batches, and after each window as many bare ones: both see the same machine.

    Args:
        window: batches a window.
        rounds: windows of each kind; the first is a warm-up and does not count.
    """

    def __init__(self, window: int, rounds: int) -> None:
        self.window, self.rounds = window, rounds
        self.lightning: list[float] = []
        self.bare: list[float] = []
        self.parts: dict[str, list[float]] = {part: [] for part in PARTS}
        self.beside: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the model for the bare loop and start the clock."""
        precision = str(trainer.precision)
        half = torch.bfloat16 if precision.startswith("bf16") else torch.float16 if precision == "16-mixed" else None
        assert isinstance(pl_module, TextToImageGAN)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        rng, pl_module.rng = pl_module.rng, None  # a torch.Generator cannot be copied
        self.loop = BareLoop(pl_module, data, half)
        pl_module.rng = rng
        self.loop.model.rng = torch.Generator(pl_module.device).manual_seed(0)
        self.done, self.start = 0, now(pl_module.device)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        """At the end of a window, run the bare one."""
        self.done += 1
        if self.done % self.window:
            return
        device = pl_module.device
        self.lightning.append((now(device) - self.start) / self.window)
        start = now(device)
        for _ in range(self.window):
            self.loop.step()
        self.bare.append((now(device) - start) / self.window)
        for _ in range(max(self.window // 4, 1)):
            self._lap = now(device)
            self.loop.step(lambda part: self._note(part, device))
        trainer.should_stop = len(self.bare) > self.rounds
        self.start = now(device)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure what a run does beside its steps."""
        assert isinstance(pl_module, TextToImageGAN)
        self.beside = costs_beside_steps(trainer, pl_module, now)

    def _note(self, part: str, device: torch.device) -> None:
        moment = now(device)
        self.parts[part].append(moment - self._lap)
        self._lap = moment


def benchmark(
    words: Sequence[str],
    window: int = 20,
    rounds: int = 5,
    out: str | None = None,
    what: Literal["step", "data"] = "step",
    overwrite: bool = False,
    suite: Literal["gpu"] | None = None,
    minutes: float = 10.0,
) -> dict[str, Any]:
    """Measure the training step of a config beside a bare loop, or the way of the data to a batch.

    All options of ``fit`` are taken too, such as ``--config NAME`` and ``--trainer.precision bf16-mixed``.

    Args:
        words: options of ``fit``.
        window: Batches in each window of measurement.
        rounds: Windows that count; one more warms up.
        out: JSON file for the figures; of the suite, the folder of its report.
        what: The training step, or the way from the store and from files to a batch.
        overwrite: Replace an existing file.
        suite: Instead of a config, every GAN at its paper's size in several precisions, for a GPU.
        minutes: After which the suite begins no further measurement.

    Returns:
        The figures.

    Raises:
        T2IError: for a window or a number of rounds below 1, options of ``fit`` for a suite, and what ``fit`` refuses.
    """
    for name, value in (("window", window), ("rounds", rounds)):
        if value < 1:
            raise T2IError(f"found --{name} {value}, expected at least 1")
    path = Path(out).expanduser() if out else None
    if suite is not None:
        if words:
            raise T2IError(f"found {words[0]} beside --suite {suite}, which measures its own configs: leave it out")
        from t2i_zoo.commands.benchmark_gpu import report

        folder = path or Path("report")
        check_new(folder / "gpu.json", folder / "gpu.md", overwrite=overwrite)
        return report(folder, minutes, measure_step)
    check_new(*([path] if path else []), overwrite=overwrite)
    if what == "data":
        from t2i_zoo.commands.benchmark_data import run as measure_data

        figures = measure_data(words, window, rounds)
    else:
        figures = measure_step(words, window, rounds)
    if path is not None:
        with replacing(path) as partial:
            partial.write_text(json.dumps(figures, indent=1), "utf-8")
    return figures


def measure_step(words: Sequence[str], window: int, rounds: int) -> dict[str, Any]:
    """Measure the step of the config that ``words`` give to ``fit``, print a table and return its figures."""
    from t2i_zoo.cli import build

    with tempfile.TemporaryDirectory() as folder:
        quiet = {"trainer.default_root_dir": folder, "trainer.max_epochs": "-1", "trainer.limit_val_batches": "0"}
        quiet |= {"trainer.enable_progress_bar": "false", "trainer.enable_model_summary": "false"}
        quiet |= {"checkpoint.save_top_k": "0", "samples.every_n_epochs": "0"}
        cli = build([*words, *(word for name, value in quiet.items() for word in (f"--{name}", value))], run=False)
        watch = SideBySide(window, rounds)
        trainer: Any = cli.trainer
        trainer.callbacks.append(watch)
        trainer.fit(cli.model, cli.datamodule)
    device = cli.model.device
    batch = cli.datamodule.batch_size
    ours, bare = statistics.median(watch.lightning[1:]), statistics.median(watch.bare[1:])
    ratios = [a / b for a, b in zip(watch.lightning[1:], watch.bare[1:], strict=True)]
    figures: dict[str, Any] = {
        "images_per_second": batch / ours,
        "step_ms": 1e3 * ours,
        "bare_step_ms": 1e3 * bare,
        "overhead_percent": 100 * (statistics.median(ratios) - 1),
        **{f"{part.replace(' ', '_')}_ms": 1e3 * statistics.median(times) for part, times in watch.parts.items()},
        **watch.beside,
        "peak_memory_gib": peak_memory(device),
        "batch_size": batch,
        "precision": str(trainer.precision),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
        "versions": {"t2i_zoo": __version__, "torch": torch.__version__, "lightning": L.__version__},
    }
    width = max(map(len, figures))
    print(f"\n{'figure':<{width}}  value")
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.2f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    return figures
