"""``t2i-zoo benchmark --what data``: pictures a second of one core, from the store and decoded one by one."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i_zoo.commands.prepare import data_parser
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.data.plan import Plan
from t2i_zoo.data.records import Embedded, Record
from t2i_zoo.data.stream import StreamDataModule
from t2i_zoo.errors import T2IError


def decode_batch(records: Sequence[Record], plan: Plan, module: CaptionDataModule) -> list[Tensor]:
    """What a data set without a store does for a batch: open, resize, crop, mirror, make the pyramid, normalise.

    With Pillow, as most loaders do it, and its bilinear filter throughout.

    Args:
        records: of all pictures of the store.
        plan: which pictures, and where they are cut.
        module: sizes.

    Returns:
        The pyramid, (B, 3, s, s) in [-1, 1] each.
    """
    from PIL import Image

    load, size, bilinear = module.spec.load_size, module.image_size, Image.Resampling.BILINEAR
    rows: list[list[Tensor]] = [[] for _ in module.sizes]
    for row, top, left, flip in zip(plan.rows.tolist(), *(part.tolist() for part in plan.crops), strict=True):
        place = records[row].image
        image = Image.open(io.BytesIO(place.read()) if isinstance(place, Embedded) else place).convert("RGB")
        if module.spec.resize == "short_side":
            scale = load / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), bilinear)
        else:
            image = image.resize((load, load), bilinear)
        image = image.crop((left, top, left + size, top + size))
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for images, side in zip(rows, module.sizes, strict=True):
            small = image if side == size else image.resize((side, side), bilinear)
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).float().div_(127.5).sub_(1.0))
    return [torch.stack(images) for images in rows]


def benchmark_data(module: CaptionDataModule, window: int = 20, rounds: int = 5) -> dict[str, Any]:
    """Measure both ways in turn on one core, print a table and return its figures.

    Rates are pictures a second of the core's own time, so that others on the machine do not count; ``clock_ratio`` is
    the ratio by the clock on the wall.

    Args:
        module: whose training batches are made.
        window: batches of the store at a time; a tenth as many are decoded.
        rounds: windows that count.
    """
    if isinstance(module, StreamDataModule):
        raise T2IError(
            "found streamed shards, expected a source that is packed, so that its files and store can be compared: "
            "pass --data.source.stream false"
        )
    module.prepare_data()
    module.setup("fit")
    records = module.source.records()
    if module.store is None or module.store.manifest["skipped"]:
        raise T2IError("found pictures that were skipped, so files and store cannot be compared: choose other data")
    planner, threads = module.planner("train", train=True), torch.get_num_threads()
    order = planner.epoch_order(0)

    def from_store(number: int) -> None:
        plan = planner.plan(0, number % len(planner), order)
        module.on_after_batch_transfer(module.on_before_batch_transfer(plan))

    def from_files(number: int) -> None:
        decode_batch(records, planner.plan(0, number % len(planner), order), module)

    ways: dict[str, tuple[Callable[[int], None], int]] = {
        "store": (from_store, window),
        "files": (from_files, max(window // 10, 1)),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    by_clock: dict[str, list[float]] = {name: [] for name in ways}
    try:
        torch.set_num_threads(1)
        for turn in range(rounds + 1):  # the first warms up: files come into the system's cache
            for name, (run, batches) in ways.items():
                start, begun = time.process_time(), time.perf_counter()
                for number in range(batches):
                    run(turn * window + number)
                rates[name].append(batches * module.batch_size / (time.process_time() - start))
                by_clock[name].append(batches * module.batch_size / (time.perf_counter() - begun))
    finally:
        torch.set_num_threads(threads)
    store, files = (statistics.median(found[1:]) for found in rates.values())
    figures = {
        "store_images_per_second": store,
        "files_images_per_second": files,
        "ratio": _ratio(rates),
        "clock_ratio": _ratio(by_clock),
        "sizes": module.sizes,
        "load_size": module.spec.load_size,
        "batch_size": module.batch_size,
        "pictures": len(records),
        "versions": {"torch": torch.__version__},
    }
    width = max(map(len, figures))
    print(f"\n{'figure, one core':<{width}}  value")
    for key, value in figures.items():
        print(f"{key:<{width}}  {value:,.1f}" if isinstance(value, float) else f"{key:<{width}}  {value}")
    return figures


def _ratio(rates: dict[str, list[float]]) -> float:
    """Median over the rounds that count of store to files."""
    return statistics.median(a / b for a, b in zip(rates["store"][1:], rates["files"][1:], strict=True))


def run(words: Sequence[str], window: int, rounds: int) -> dict[str, Any]:
    """Parse the data options of ``fit``, from the same configs, and measure."""
    parser = data_parser("benchmark --what data")
    module: CaptionDataModule = parser.instantiate_classes(parser.parse_args(words)).data
    return benchmark_data(module, window, rounds)
