"""One evaluation: generate the protocol's images, show them to all its metrics, collect the scores."""

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
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite
from t2i_zoo.metrics.draws import Draws, check_images, draw_captions
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import METRICS, Protocol
from t2i_zoo.metrics.references import photograph_features, ranks
from t2i_zoo.pictures import truncate_noise
from t2i_zoo.seeds import stable_seed

#: returns images (B, 3, S, S) in [-1, 1] for their positions (B,) among the draws
Sampler = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Report:
    """Result of an evaluation.

    Attributes:
        scores: scores of all metrics.
        images: number of generated images.
        reference_images: number of photographs they were compared with.
        split: split of the photographs.
        seconds: duration.
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
    """Evaluate a model, or photographs themselves, by a protocol; every process of a distributed run must call it.

    Up to rounding, the result does not depend on ``batch_size`` or the number of processes, except for generators that
    use batch statistics.

    Args:
        protocol: the protocol with its overrides.
        photographs: the real images.
        model: a model with ``generate``, ``noise`` and ``conditional``, as every GAN of the zoo has them; None compares
            a random half of the split with the other half.
        network: network of the protocol, if it has one.
        device: device of the network and the sums.
        batch_size: images generated at once in each process.
        progress: called with the numbers of finished and of all images of this process.

    Raises:
        T2IError: if model, network or data lack what the protocol asks for, before anything is generated.
    """
    start, device = time.perf_counter(), torch.device(device)
    draws, metrics, references, split = prepare(protocol, photographs, model, network, device, batch_size)
    place = torch.device("cpu") if device.type == "mps" else device  # mps has no float64
    metrics = [metric.to(place) for metric in metrics]
    sampler = _real_sampler(photographs, draws) if model is None else model_sampler(model, photographs, draws, protocol)
    rank, world = ranks()
    own = torch.arange(rank, len(draws), world)
    done = 0
    with repeatable():
        for index in torch.split(own, batch_size):
            images = _standardise(sampler(index).to(device), photographs.size, protocol.bits)
            view = _look(images, index, photographs.sentences(draws.captions[index]), network).to(place)
            for metric in metrics:
                metric.see(view)
            done += len(index)
            progress(done, len(own))
        scores = [score for metric in metrics for score in metric.compute()]
    return Report(scores, len(draws), references, split, time.perf_counter() - start)


def prepare(
    protocol: Protocol,
    photographs: Photographs,
    model: Any,
    network: Network | None,
    device: torch.device,
    batch_size: int = 64,
) -> tuple[Draws, list[ZooMetric], int, str]:
    """Everything that comes before the first image; raises if the protocol cannot be carried out.

    Features of the photographs are cached, so this is quick the second time.

    Returns:
        The draws, the metrics, the number of photographs they compare with, and the split of these.
    """
    split, rows = photographs.split(protocol.reference)
    check(protocol, photographs, model, network)
    metrics, reference = dict(protocol.metrics), rows
    if model is None:
        metrics.pop("caption_diversity", None)
        draws, reference = _halves(protocol, photographs, split, rows)
    else:
        draws = draw_captions(photographs, rows, protocol.images, protocol.seed, protocol.samples_per_caption)
    if len(draws) < (world := ranks()[1]):
        raise T2IError(f"found {len(draws)} images for {world} processes, expected at least one each: raise --images")
    if network is not None:
        network.to(device)

    def features(kind: str) -> Tensor:
        assert network is not None
        chosen = reference if kind == "reference" else photographs.split("train")[1]
        return photograph_features(photographs, chosen, network, device, batch_size)

    job = Job(draws, photographs, network, features, protocol.seed, model is None)
    return draws, [METRICS[name](job, **options) for name, options in metrics.items()], len(reference), split


def _halves(protocol: Protocol, photographs: Photographs, split: str, rows: Tensor) -> tuple[Draws, Tensor]:
    """A random half of the photographs as draws, and the rows of the other half."""
    if len(rows) < 4:
        raise T2IError(f"found {len(rows)} {split} images, expected at least 4 to halve: choose another reference")
    order = torch.from_numpy(np.random.default_rng([protocol.seed, 2]).permutation(len(rows)))
    drawn, reference = rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]
    return draw_captions(photographs, drawn, min(protocol.images, len(drawn)), protocol.seed, pool=rows), reference


def check(protocol: Protocol, photographs: Photographs, model: Any, network: Network | None) -> None:
    """Raise if model, network or data lack what the protocol asks for; generates nothing."""
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
                f"{name} reads captions and {network.label} reads only images: give a dual encoder, as --network "
                "transformers:NAME or checkpoint:PATH"
            )
        if metric.needs_captions and not photographs.captions:
            raise T2IError(f"{name} compares images with captions and the data have none: choose other data")
        if metric.needs_captions and model is not None and not model.conditional:
            raise T2IError(
                f"{name} compares images with captions and this model generates without text: leave {name} out"
            )
    if model is None and set(protocol.metrics) == {"caption_diversity"}:
        raise T2IError("found caption_diversity for real images, where it is 1 by definition: leave it out")
    changed = protocol.truncation is not None or protocol.noise_scale != 1
    if changed and not getattr(model, "noise_is_normal", True):
        raise T2IError(
            f"found truncated or scaled noise in the protocol {protocol.name} and a {type(model).__name__}, whose "
            "noise is not normal: leave truncation and noise_scale out of the protocol"
        )
    if model is not None and model.conditional and not photographs.captions:
        raise T2IError("found a model that reads captions and data without any: choose data with captions")
    photographs.split(protocol.reference)
    if model is not None:
        check_images(protocol.images, protocol.samples_per_caption)


def _standardise(images: Tensor, size: int, bits: int) -> Tensor:
    """Images in [-1, 1] of the protocol's size and precision, known to be finite."""
    images = images.float()
    check_finite(images, "images")
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    images = images.clamp(-1, 1)
    return images.add(1).mul(127.5).round().div(127.5).sub(1) if bits == 8 else images


def _look(images: Tensor, index: Tensor, captions: list[str], network: Network | None) -> View:
    """Images with the network's features and logits, known to be finite."""
    if network is None:
        return View(index, images, captions)
    features, logits = network.look(images)
    check_finite(features, "features")
    if logits is not None:
        check_finite(logits, "class scores")
    return View(index, images, captions, features, logits)


def model_sampler(model: Any, photographs: Photographs, draws: Draws, protocol: Protocol) -> Sampler:
    """A sampler that generates each image with noise that depends only on the seed and the image's position."""

    def draw(index: Tensor) -> Tensor:
        captions = photographs.sentences(draws.captions[index]) if model.conditional else [""] * len(index)
        noise = seeded_noise(model, index.tolist(), protocol.seed, protocol.truncation) * protocol.noise_scale
        images: Tensor = model.generate(captions, noise=noise, ema=protocol.ema)
        return images

    return draw


def seeded_noise(model: Any, numbers: list[int], seed: int, truncation: float | None = None) -> Tensor:
    """Noise (B, Z) of images by their positions, the same for every device; made on the CPU, so that it moves once."""
    rng = torch.Generator()
    seeds = [stable_seed(seed, "noise", number) for number in numbers]
    noise = torch.cat([model.noise(1, rng.manual_seed(own), move=False) for own in seeds])
    return noise if truncation is None else truncate_noise(noise, truncation)


def _real_sampler(photographs: Photographs, draws: Draws) -> Sampler:
    return lambda index: photographs.images(draws.rows[index])


@contextmanager
def repeatable() -> Iterator[None]:
    """Use only algorithms that give the same digits twice on a GPU."""
    backend: Any = torch.backends.cudnn
    former = backend.deterministic, backend.benchmark
    backend.deterministic, backend.benchmark = True, False
    try:
        yield
    finally:
        backend.deterministic, backend.benchmark = former
