"""Jobs over real packed flowers, with features that a test makes up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Small
from torch import Tensor

from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.data.store import open_store
from t2i_zoo.metrics.base import Job
from t2i_zoo.metrics.draws import Draws, draw_captions
from t2i_zoo.metrics.networks import Network, build_network
from t2i_zoo.metrics.photographs import Photographs


class Codes:
    """A dual encoder: images by their mean colour, captions by their first letters."""

    def image_codes(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def sentence_codes(self, captions: Any) -> Tensor:
        return torch.tensor([[float(ord(letter)) for letter in f"{caption}   "[:3]] for caption in captions])


@pytest.fixture(scope="session")
def flowers(cache_folder: Any) -> Photographs:
    """72 drawn flowers at 16 px: 56 train, 7 val, 7 test or so."""
    module = CaptionDataModule(SyntheticFlowers(images=72, size=24), image_size=16)
    return Photographs(open_store(module.spec, module.cache / "stores"), 16)


@pytest.fixture
def make_job(flowers: Photographs) -> Callable[..., Job]:
    """``make_job(30, reference)``: a job for 30 images with made-up features of photographs."""

    def make(images: int, reference: Tensor | None = None, train: Tensor | None = None, **more: Any) -> Job:
        rows = flowers.split("train")[1]
        repeats = more.pop("repeats", 1)
        draws: Draws = more.pop("draws", None) or draw_captions(flowers, rows, images, 0, repeats)
        network = more.pop("network", None) or Network("codes", "made up", dual=Codes())
        given = {"reference": reference, "train": train}
        return Job(draws, flowers, network, lambda kind: given[kind], **more)

    return make


def small_file(folder: Path) -> Path:
    """The classifier with fixed weights as TorchScript."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.jit.trace(Small(), torch.zeros(2, 3, 16, 16)).save(str(folder / "small.pt"))
    return folder / "small.pt"


@pytest.fixture(scope="session")
def small_network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small.pt``, an untrained classifier."""
    return small_file(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small(small_network_file: Path) -> Network:
    """The untrained classifier."""
    return build_network(f"file:{small_network_file}")


def cloud(count: int, dim: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99)) / dim**0.5 + torch.eye(dim)
    return torch.randn(count, dim, generator=rng) @ mix * scale + shift


@pytest.fixture(name="cloud")
def cloud_fixture() -> Callable[..., Tensor]:
    """``cloud(200, 16, seed)``: correlated features."""
    return cloud


@pytest.fixture
def feed() -> Callable[..., Any]:
    """``feed(metric, rows, ...)``: update in shuffled, ragged batches; the order must not matter."""

    def run(metric: Any, *rows: Tensor, size: int = 7) -> Any:
        order = torch.randperm(len(rows[0]), generator=torch.Generator().manual_seed(1))
        for start in range(0, len(order), size):
            index = order[start : start + size]
            metric.update(*(row[index] for row in rows), index)
        return metric

    return run
