"""``t2i-zoo benchmark --suite gpu``: every GAN at its paper's size in several modes, in a fixed time, as one page."""

from __future__ import annotations

import io
import itertools
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from t2i_zoo.commands.bare_loop import Adam, BareLoop, now, peak_memory
from t2i_zoo.commands.plain_steps import PLAIN
from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.files import replacing
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.graphed import GraphedStep
from t2i_zoo.parsing import packaged_configs
from t2i_zoo.version import __version__

#: sizes, widths and batches are those of the packaged configs
GANS = (
    "gancls",
    "stackganpp",
    "attngan",
    "dfgan",
    "dmgan",
    "mirrorgan",
    "stackgan_stage1",
    "stackgan_stage2",
    "tacgan",
)
CONFIGS = tuple(f"{name}_flowers" for name in GANS)
#: what stands in for runs of other models, whose networks do not belong to the step
WITHOUT: dict[str, Any] = {
    **{"damsm": None, "stream": None, "damsm_weight": 0.0, "stream_weight": 0.0, "stage1": "untrained"},
    "text_encoder": {"kind": "hashing", "dim": 1024},
}
#: GAN-CLS at its paper's size
RUN = ["--config", "gancls_flowers", "--data.source", "SyntheticFlowers"]
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")


class Mode(NamedTuple):
    """How a step is computed."""

    precision: str
    channels_last: bool = False
    compiled: bool = False
    graphed: bool = False

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Half precision, without the cache of weights, as in Lightning."""
        half = self.precision == "bf16"
        return torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False)


FIRST = (Mode("bf16"), Mode("bf16", True))  #: of every model, before anything else
GRAPHED = (Mode("bf16", True, graphed=True),)
THEN = (Mode("tf32"), Mode("tf32", True), Mode("fp32"), Mode("bf16", True, True), Mode("bf16", False, True))


def report(
    folder: Path,
    minutes: float,
    measure_run: Callable[[Sequence[str], int, int], dict[str, Any]],
    configs: Sequence[str] = CONFIGS,
    changes: Mapping[str, Any] | None = None,
    run: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure until the time is over, and write ``gpu.json``, ``gpu.md`` and the trace of the slowest model.

    Args:
        folder: of the files.
        minutes: nothing is begun after them; a measurement that has begun ends.
        measure_run: trains with options of ``fit``, in windows of so many batches, and so many rounds of them.
        configs: names of packaged configs, the important ones first.
        changes: options of models, and of the data ``batch_size`` and ``image_size``, other than the configs'.
        run: options of ``fit`` for the run under Lightning; by default GAN-CLS at its paper's size.

    Returns:
        All figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end, device = time.monotonic() + 60 * minutes, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "versions": {"t2i_zoo": __version__, "torch": torch.__version__, "cuda": torch.version.cuda},
        "bf16_tflops": matmul_tflops(device),
        **{"rows": [], "plain": [], "run": {}, "left_out": [], "failed": {}},
    }

    def under_lightning() -> None:
        found["run"] = measure_run(run or RUN, *((20, 3) if run is None else (1, 1)))

    def rows(modes: Sequence[Mode]) -> list[tuple[str, Callable[[], None]]]:
        cases = [Case(config, mode, device, changes or {}) for mode in modes for config in configs]
        return [(str(case), lambda case=case: found["rows"].append(case.row(found["bf16_tflops"]))) for case in cases]  # type: ignore[misc]

    plain = [Case(config, mode, device, changes or {}) for config in configs for mode in (Mode("tf32"), FIRST[0])]
    steps = [
        *rows(FIRST),
        *((f"plain {case}", lambda case=case: found["plain"].append(case.plain())) for case in plain if case.has_plain),
        ("a run under Lightning", under_lightning),
        *rows(GRAPHED + THEN),
    ]
    for name, measure in steps:  # type: ignore[misc]
        if time.monotonic() > end:
            found["left_out"].append(name)
            continue
        try:
            measure()
        except Exception as error:  # one failure must not cost the other figures of a rented hour
            found["failed"][name] = f"{type(error).__name__}: {str(error)[:500]}"
        write(folder, found)  # so far: the process may be killed
        torch._dynamo.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    if done := [row for row in found["rows"] if not (row["compiled"] or row["graphed"])]:
        worst = min(done, key=lambda row: row["share_percent"])
        mode = Mode(worst["precision"], worst["channels_last"])
        found["slowest"] = Case(worst["config"], mode, device, changes or {}).trace(folder / "slowest.json.gz")
    write(folder, found)
    print(page(found))
    return found


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Write the figures and their page."""
    for name, text in (("gpu.json", json.dumps(found, indent=1)), ("gpu.md", page(found))):
        with replacing(folder / name) as partial:
            partial.write_text(text, "utf-8")


def matmul_tflops(device: torch.device) -> float:
    """Most bf16 operations in 1e12 a second that a product of large matrices reaches on this device."""
    side, times = 8192 if device.type == "cuda" else 256, []
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(13):
        start = now(device)
        for _ in range(4):
            a @ b
        times.append((now(device) - start) / 4)
    return 2 * side**3 / min(times[3:]) / 1e12


class Case:
    """One model in one mode.

    Args:
        config: name of a packaged config.
        mode: how the step is computed.
        device: where.
        changes: see ``report``.
    """

    flops: dict[str, float] = {}  #: of a step of each config, which no mode changes

    def __init__(self, config: str, mode: Mode, device: torch.device, changes: Mapping[str, Any]) -> None:
        self.config, self.mode, self.device, self.changes = config, mode, device, changes
        self.content = yaml.safe_load(packaged_configs()[config].read_text("utf-8"))
        self.kind = self.content["model"]["class_path"]
        self.has_plain = self.kind in PLAIN

    def __str__(self) -> str:
        parts = [self.config, self.mode.precision]
        parts += [name for name in ("channels_last", "compiled", "graphed") if getattr(self.mode, name)]
        return " ".join(parts)

    def prepare(self) -> tuple[TextToImageGAN, CaptionDataModule]:
        """The model on the device, and drawn flowers of its size."""
        import t2i_zoo
        from t2i_zoo.runs import default_options

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.mode.precision != "fp32"
        torch.manual_seed(0)
        cls, about = getattr(t2i_zoo, self.kind), self.content["data"]
        known = default_options(cls)
        given = self.content["model"].get("init_args", {})
        instead = {name: value for name, value in WITHOUT.items() if name != "stage1" or name in given}
        options = {**given, **instead, **self.changes}
        options |= {"channels_last": self.mode.channels_last, "compile": "networks" if self.mode.compiled else "none"}
        model = cls(**{name: value for name, value in options.items() if name in known}).to(self.device)
        model.prepare_aids()
        model.rng = None  # a copy is trained, and a generator cannot be copied
        side, batch = model.hparams["image_size"], self.changes.get("batch_size", about.get("batch_size", 64))
        source = SyntheticFlowers(images=max(2 * batch, 48), size=side, split="random")
        return model, CaptionDataModule(source, image_size=side, batch_size=batch)

    def loop(self) -> BareLoop:
        """The bare loop; its batches wait on the device."""
        model, data = self.prepare()
        loop = BareLoop(model, data, torch.bfloat16 if self.mode.precision == "bf16" else None)
        loop.model.rng = torch.Generator(self.device).manual_seed(0)
        return loop

    def row(self, peak: float) -> dict[str, Any]:
        """The figures of our step."""
        loop = self.loop()
        start = now(self.device)
        for _ in range(3):
            batch = loop.batch()
        data_ms = 1e3 * (now(self.device) - start) / 3
        loop.batch = lambda: {**batch}  # type: ignore[method-assign, return-value]
        if self.config not in self.flops and not self.mode.compiled:
            with FlopCounterMode(display=False) as counter:
                loop.step()
            self.flops[self.config] = float(counter.get_total_flops())
        step: Callable[[], Any] = loop.step
        if self.mode.graphed:
            adams = [adam.optimizer for adam in loop.adams]
            wrap = partial(Adam, loop.model)
            step = partial(GraphedStep(loop.model, adams, batch, autocast=loop.half, wrap=wrap), batch)
        # of a graph the batches before the capture, and the first replay
        figures = self.timed(step, len(batch["captions"]), 4 if self.mode.graphed else 1)
        flops = self.flops.get(self.config, 0.0) / figures["step_ms"] / 1e9
        with torch.profiler.profile() as profile:
            step()
            now(self.device)
        counts = Counter(event.name for event in profile.events() or ())
        launches = sum(counts[name] for name in LAUNCHES)
        start = now(self.device)
        torch.save([loop.model.state_dict(), *(adam.optimizer.state_dict() for adam in loop.adams)], io.BytesIO())
        figures |= {"tflops": flops, "share_percent": 100 * flops / peak, "data_ms": data_ms}
        return figures | {"launches": launches or None, "snapshot_ms": 1e3 * (now(self.device) - start)}

    def plain(self) -> dict[str, Any]:
        """The figures of the plain step."""
        model, data = self.prepare()
        batch = next(iter(data.batches("train", model)))
        batch["text"] = model.encode(batch)
        plain = PLAIN[self.kind](model)

        def step() -> None:
            with self.mode.autocast(self.device):
                plain.step(batch)

        return self.timed(step, len(batch["captions"]))

    def timed(self, step: Callable[[], Any], batch: int, first_steps: int = 1) -> dict[str, Any]:
        """Median milliseconds of a step, those until the host is free, and the peak of memory."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        start = now(self.device)
        for _ in range(first_steps):
            step()
        first = now(self.device) - start
        step()
        whole, host, begun = list[float](), list[float](), now(self.device)
        while len(whole) < 3 or (len(whole) < 40 and time.perf_counter() - begun < 1):
            start = now(self.device)
            for _ in range(4 if self.device.type == "cuda" else 1):
                step()
            host.append(time.perf_counter() - start)
            whole.append(now(self.device) - start)
        count = 4 if self.device.type == "cuda" else 1
        step_ms, host_ms = (1e3 * statistics.median(times) / count for times in (whole, host))
        return {
            **{"config": self.config, **self.mode._asdict(), "batch": batch, "step_ms": step_ms, "host_ms": host_ms},
            **{"images_per_second": 1e3 * batch / step_ms, "first_step_s": first},
            "peak_memory_gib": peak_memory(self.device),
        }

    def trace(self, path: Path) -> dict[str, Any]:
        """Write a trace of one step; its most expensive operations by time on the device."""
        loop = self.loop()
        for _ in range(2):
            loop.step()
        with torch.profiler.profile() as profile:
            loop.step()
            now(self.device)
        profile.export_chrome_trace(str(path))
        key = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        return {
            "case": str(self),
            "table": profile.key_averages().table(sort_by=key, row_limit=15, max_name_column_width=60),
        }


def page(found: Mapping[str, Any]) -> str:
    """The figures in Markdown."""
    names = ["config", "precision", "channels_last", "compiled", "graphed", "batch", "step_ms", "host_ms"]
    names += ["images_per_second", "peak_memory_gib", "first_step_s"]
    ours = [*names, "tflops", "share_percent", "launches", "data_ms", "snapshot_ms"]
    lines = [f"# {found['device']}", "", f"bf16 product of matrices: {found['bf16_tflops']:.1f} TFLOP/s; "]
    lines[-1] += ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    for title, key, columns in (("Our step", "rows", ours), ("The plain step", "plain", names)):
        lines += ["", f"## {title}", "", _row(columns), _row(["---"] * len(columns))]
        lines += [_row([_shown(row[name]) for name in columns]) for row in found[key]]
    for slow, fast in itertools.product(found["plain"], found["rows"]):
        if (slow["config"], slow["precision"]) == (fast["config"], fast["precision"]):
            mode = ", ".join(name for name in ("channels_last", "compiled", "graphed") if fast[name]) or "as it is"
            ratio = slow["step_ms"] / fast["step_ms"]
            lines += [
                "",
                f"{slow['config']} in {slow['precision']}, {mode}: {ratio:.2f} times the speed of the plain step.",
            ]
    lines += ["", "## A run under Lightning", ""]
    lines += [f"- {name}: {_shown(value)}" for name, value in found["run"].items()]
    lines += ["", "## Not measured", ""]
    lines += [f"- {name}: no time" for name in found["left_out"]]
    lines += [f"- {name}: {reason}" for name, reason in found["failed"].items()]
    if slowest := found.get("slowest"):
        lines += ["", f"## The least share of the peak: {slowest['case']}", "", "```", slowest["table"], "```"]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
