"""One evaluation: draw the protocol's pictures, show them to all its metrics, collect the scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, parts, stable_seed
from t2i_zoo.metrics.draws import Draws, draw_captions
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import METRICS, Protocol
from t2i_zoo.metrics.references import photograph_features, ranks

#: gives pictures (B, 3, S, S) in [-1, 1] for their numbers (B,) among the draws
Sampler = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        scores: of all metrics.
        images: pictures drawn.
        reference_images: photographs they were held against.
        split: of the photographs.
        seconds: that it took.
    """

    scores: list[Score]
    images: int
    reference_images: int
    split: str
    seconds: float


def evaluate(
    protocol: Protocol,
    photographs: Photographs,
    model: Any = None,
    network: Network | None = None,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Evaluate a model, or photographs themselves, by a protocol; in every process of a distributed run alike.

    The result does not depend on ``batch_size`` or on the number of processes, but for rounding, and for networks that
    take statistics of the batch when they draw.

    Args:
        protocol: with its overrides.
        photographs: the real pictures.
        model: with ``generate``, ``noise`` and ``conditional``, as every GAN of the zoo has them; None evaluates one
            random half of the split against the other.
        network: of the protocol, where it has one.
        device: of the network and the sums.
        batch_size: pictures drawn at once in each process.
        progress: told how many pictures of this process are done.

    Raises:
        T2IError: where the protocol asks for what model, network or data cannot give, before anything is drawn.
    """
    start, device = time.perf_counter(), torch.device(device)
    draws, built, references, split = prepare(protocol, photographs, model, network, device, batch_size)
    place = torch.device("cpu") if device.type == "mps" else device  # mps has no float64
    built = [metric.to(place) for metric in built]
    sampler = _real_sampler(photographs, draws) if model is None else model_sampler(model, photographs, draws, protocol)
    rank, world = ranks()
    own = torch.arange(rank, len(draws), world)
    with repeatable():
        for number, index in enumerate(parts(own, batch_size)):
            view = _look(sampler(index), index, photographs, draws, protocol, network, device)
            view = view.to(place)
            for metric in built:
                metric.see(view)
            progress(min((number + 1) * batch_size, len(own)), len(own))
        scores = [score for metric in built for score in metric.scores()]
    return Report(scores, len(draws), references, split, time.perf_counter() - start)


def prepare(
    protocol: Protocol,
    photographs: Photographs,
    model: Any,
    network: Network | None,
    device: torch.device,
    batch_size: int = 64,
) -> tuple[Draws, list[ZooMetric], int, str]:
    """All that comes before the first picture; raises for what the protocol cannot have.

    What the network sees in the photographs is kept in the cache folder, so that this is quick the second time.

    Returns:
        What is to be drawn, the metrics, how many photographs they compare with, and the split of these.
    """
    split, rows = photographs.split(protocol.reference)
    check(protocol, photographs, model, network)
    metrics, reference, repeats, images = dict(protocol.metrics), rows, protocol.samples_per_caption, protocol.images
    if model is None:
        if metrics.pop("caption_diversity", None) is not None and not metrics:
            raise T2IError("found caption_diversity for real pictures, where it is 1 by definition: leave it out")
        if len(rows) < 4:
            raise T2IError(
                f"found {len(rows)} {split} pictures, expected at least 4 to halve: choose another reference"
            )
        order = torch.from_numpy(np.random.default_rng([protocol.seed, 2]).permutation(len(rows)))
        reference, rows_drawn = rows[order[len(rows) // 2 :]], rows[order[: len(rows) // 2]]
        repeats, images = 1, min(images, len(rows_drawn))
        draws = draw_captions(photographs, rows_drawn, images, protocol.seed, pool=rows)
    else:
        draws = draw_captions(photographs, rows, images, protocol.seed, repeats)
    if images < (world := ranks()[1]):
        raise T2IError(f"found {images} pictures for {world} processes, expected at least one each: raise --images")
    if network is not None:
        network.to(device)

    def features(kind: str) -> Tensor:
        assert network is not None
        chosen = reference if kind == "reference" else photographs.split("train")[1]
        return photograph_features(photographs, chosen, network, device, batch_size)

    job = Job(draws, photographs, network, features, protocol.seed, model is None)
    built = [METRICS[name](job, **options) for name, options in metrics.items()]
    return draws, built, len(reference), split


def check(protocol: Protocol, photographs: Photographs, model: Any, network: Network | None) -> None:
    """Raise where a metric asks for what model, network or data cannot give; draws nothing."""
    for name in protocol.metrics:
        metric = METRICS[name]
        if metric.needs_network and network is None:
            raise T2IError(f"found no network for {name}: name one with --network")
        if metric.needs_logits and network is not None and not network.num_logits:
            raise T2IError(
                f"{name} reads class scores and {network.label} gives none: choose a classifier by --network"
            )
        if metric.needs_sentences and network is not None and network.dual is None:
            raise T2IError(
                f"{name} reads captions and {network.label} looks at pictures alone: give a dual encoder, as --network "
                "transformers:NAME or checkpoint:PATH"
            )
        if metric.needs_captions and not photographs.captions:
            raise T2IError(f"{name} compares pictures with captions and the data have none: choose other data")
        if metric.needs_captions and model is not None and not model.conditional:
            raise T2IError(
                f"{name} compares pictures with captions and this model draws without text: leave {name} out"
            )
    if protocol.truncation is not None and not getattr(model, "noise_is_normal", True):
        raise T2IError(
            f"found truncation {protocol.truncation} and a {type(model).__name__}, whose noise is not normal: leave "
            "truncation out of the protocol"
        )
    if model is not None and model.conditional and not photographs.captions:
        raise T2IError("found a model that reads captions and data without any: choose data with captions")


def _look(
    images: Tensor,
    index: Tensor,
    photographs: Photographs,
    draws: Draws,
    protocol: Protocol,
    network: Network | None,
    device: torch.device,
) -> View:
    """Pictures as the protocol wants them, and what the network sees in them."""
    images = images.to(device).float()
    if not torch.isfinite(images).all():
        raise T2IError("found pictures that are NaN or infinite, expected finite ones: evaluate an earlier checkpoint")
    if images.shape[-1] != photographs.size:
        images = F.interpolate(images, (photographs.size,) * 2, mode="bilinear", antialias=True)
    images = images.clamp(-1, 1)
    if protocol.bits == 8:
        images = images.add(1).mul(127.5).round().div(127.5).sub(1)
    features, logits = network.look(images) if network is not None else (None, None)
    return View(index, images, photographs.sentences(draws.captions[index]), features, logits)


def model_sampler(model: Any, photographs: Photographs, draws: Draws, protocol: Protocol) -> Sampler:
    """Draws pictures of a model, each with a noise that depends on the seed and its number alone."""

    def draw(index: Tensor) -> Tensor:
        captions = photographs.sentences(draws.captions[index]) if model.conditional else [""] * len(index)
        noise = seeded_noise(model, index.tolist(), protocol.seed, protocol.truncation)
        images: Tensor = model.generate(captions, noise=noise, ema=protocol.ema)
        return images

    return draw


def seeded_noise(model: Any, numbers: list[int], seed: int, truncation: float | None = None) -> Tensor:
    """Noise (B, Z) of pictures by their numbers, the same on every device."""
    drawn = [model.noise(1, torch.Generator().manual_seed(stable_seed(seed, "noise", i))) for i in numbers]
    noise = torch.cat(drawn)
    if truncation is None:
        return noise
    # from one normal draw to a draw of the normal distribution cut at the bound, by their distribution functions
    low = torch.special.ndtr(torch.tensor(-truncation, dtype=torch.float64))
    share = low + torch.special.ndtr(noise.double().cpu()) * (1 - 2 * low)
    cut: Tensor = torch.special.ndtri(share)
    return cut.to(noise)


def _real_sampler(photographs: Photographs, draws: Draws) -> Sampler:
    return lambda index: photographs.images(draws.rows[index])


@contextmanager
def repeatable() -> Iterator[None]:
    """Only algorithms that give the same digits twice on a GPU."""
    backend: Any = torch.backends.cudnn
    former = backend.deterministic, backend.benchmark
    backend.deterministic, backend.benchmark = True, False
    try:
        yield
    finally:
        backend.deterministic, backend.benchmark = former
