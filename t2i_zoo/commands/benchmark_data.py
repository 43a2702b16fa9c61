"""``t2i-zoo benchmark --what data``: images per second of one core, from the store and decoded one by one."""

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
from t2i_zoo.overview import one_size


def decode_batch(records: Sequence[Record], plan: Plan, module: CaptionDataModule) -> list[Tensor]:
    """Make a batch from files, as a data set without a store does: open, resize, crop, flip, pyramid, normalise.

    It uses Pillow, as most loaders do, and its bilinear filter throughout.

    Args:
        records: of all images of the store.
        plan: which images, and their crops.
        module: gives the sizes.

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

    Speeds are images per second of the core's own time, so that other processes on the machine do not count;
    ``clock_ratio`` is the ratio by wall-clock time.

    Args:
        module: makes the training batches.
        window: batches from the store in each round; a tenth as many are decoded from files.
        rounds: rounds that count; one more warms up.
    """
    if isinstance(module, StreamDataModule):
        raise T2IError(
            "found streamed shards, expected a source that is packed, so that its files and store can be compared: "
            "pass --data.source.stream false"
        )
    module.prepare_data()
    module.setup("fit")
    records = module.spec.records()
    if module.store is None or module.store.manifest["skipped"]:
        raise T2IError("found images that were skipped, so files and store cannot be compared: choose other data")
    planner = module.planner("train", train=True)
    order = planner.epoch_order(0)

    def from_store(number: int) -> None:
        plan = planner.plan(0, number % len(planner), order)
        module.on_after_batch_transfer(module.gather(plan))

    def from_files(number: int) -> None:
        decode_batch(records, planner.plan(0, number % len(planner), order), module)

    store, files, threads = Speeds(), Speeds(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for number in range(rounds + 1):  # the first warms up: files come into the system's cache
            store.measure(from_store, number * window, window, module.batch_size)
            files.measure(from_files, number * window, max(window // 10, 1), module.batch_size)
    finally:
        torch.set_num_threads(threads)
    figures = {
        "store_images_per_second": statistics.median(store.own[1:]),
        "files_images_per_second": statistics.median(files.own[1:]),
        "ratio": _ratio(store.own, files.own),
        "clock_ratio": _ratio(store.clock, files.clock),
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


class Speeds:
    """Images per second of each round, by the process's own time and by wall-clock time."""

    def __init__(self) -> None:
        self.own: list[float] = []
        self.clock: list[float] = []

    def measure(self, run: Callable[[int], None], first: int, batches: int, batch_size: int) -> None:
        """Time ``run`` on the batches from number ``first`` on."""
        own, clock = time.process_time(), time.perf_counter()
        for number in range(first, first + batches):
            run(number)
        self.own.append(batches * batch_size / (time.process_time() - own))
        self.clock.append(batches * batch_size / (time.perf_counter() - clock))


def _ratio(store: Sequence[float], files: Sequence[float]) -> float:
    """Median of store to files over the rounds that count."""
    return statistics.median(a / b for a, b in zip(store[1:], files[1:], strict=True))


def run(words: Sequence[str], window: int, rounds: int) -> dict[str, Any]:
    """Parse the data options of ``fit``, from the same configs, and measure."""
    parser = data_parser("benchmark --what data")
    module: CaptionDataModule = parser.instantiate_classes(parser.parse_args(one_size(words))).data
    return benchmark_data(module, window, rounds)
