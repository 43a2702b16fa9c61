"""The base of all metrics: what they know, what they are shown, and the scores that they return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.draws import Draws
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.photographs import Photographs


class Score(NamedTuple):
    """One number with everything its reader must know.

    Attributes:
        metric: key of the metric, such as ``frechet_distance``, with a dot and the part for metrics of several numbers.
        label: name in tables. FID, KID and Inception score are reserved for ``inception_v3_tf``.
        value: the number.
        error: uncertainty of the kind that ``error_kind`` names; None if it is unknown.
        error_kind: such as "standard error".
        chance: value that guessing would reach; None if that has no meaning.
        note: a bias or limit in words, or "".
    """

    metric: str
    label: str
    value: float
    error: float | None = None
    error_kind: str = ""
    chance: float | None = None
    note: str = ""


@dataclass(frozen=True)
class View:
    """One batch of B images as all metrics see it.

    Attributes:
        index: (B,) int64 position of each image among all draws; whatever depends on order depends on it.
        images: (B, 3, S, S) in [-1, 1].
        captions: the B captions that the images were generated from.
        features: (B, D) of the protocol's network, or None.
        logits: (B, K) of the network, or None.
    """

    index: Tensor
    images: Tensor
    captions: list[str]
    features: Tensor | None = None
    logits: Tensor | None = None

    def to(self, device: torch.device) -> View:
        """Move everything but the index to another device."""
        features, logits = (None if x is None else x.to(device) for x in (self.features, self.logits))
        return View(self.index, self.images.to(device), self.captions, features, logits)


@dataclass
class Job:
    """What metrics know before the first image is generated.

    Attributes:
        draws: which captions the images are generated from, and in which order.
        photographs: the real images and their captions.
        network: the protocol's network, or None.
        features: returns features (N, D) of the ``"reference"`` or ``"train"`` photographs, float32 on the CPU.
        seed: seed of everything that a metric draws.
        real: whether photographs themselves are evaluated.
    """

    draws: Draws
    photographs: Photographs
    network: Network | None
    features: Callable[[str], Tensor]
    seed: int = 0
    real: bool = False

    @property
    def required_network(self) -> Network:
        """The network, for metrics that cannot do without one."""
        assert self.network is not None
        return self.network

    @property
    def captions(self) -> list[str]:
        """The captions of all draws, each once."""
        return list(dict.fromkeys(self.photographs.sentences(self.draws.captions)))


class ZooMetric(Metric):
    """Base class of the metrics: a subclass adds states, ``update``, and ``compute``, which returns the scores.

    Sums are kept in float64, and rows are kept with the index of their image, so that several processes with unequal
    shares compute what one computes. Each process updates at least once. Images, features and logits are known to be
    finite: ``evaluate`` checks them once for all metrics.
    """

    full_state_update = False
    reads: ClassVar[tuple[str, ...]] = ("features", "index")  #: fields of ``View`` that ``update`` takes
    needs_network: ClassVar[bool] = False  #: whether it reads features of a network
    needs_logits: ClassVar[bool] = False  #: whether it reads class scores of a network
    needs_sentences: ClassVar[bool] = False  #: whether the network must encode captions too
    needs_captions: ClassVar[bool] = False  #: whether images must follow captions
    index: list[Tensor]
    rows: list[Tensor]

    def __init__(self, job: Job, **options: Any) -> None:
        super().__init__()

    def see(self, view: View) -> None:
        """Take in one batch."""
        self.update(*(getattr(view, name) for name in self.reads))

    def _accumulate(self, name: str, *shape: int) -> None:
        """Add a float64 state of zeros that is summed over batches and processes."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), "sum")

    def _collect(self) -> None:
        """Add the state that ``_keep`` extends, gathered from all processes."""
        self.add_state("index", [], "cat")
        self.add_state("rows", [], "cat")

    def _keep(self, index: Tensor, rows: Tensor) -> None:
        self.index.append(index.to(rows.device))
        self.rows.append(rows)

    def _kept(self) -> tuple[Tensor, Tensor]:
        """All indices, sorted, and their rows."""
        index, rows = (dim_zero_cat(part) for part in (self.index, self.rows))
        order = torch.argsort(index)
        return index[order], rows[order]


def check_finite(values: Tensor, what: str) -> None:
    """Raise for values that are not finite: a single such row would silently spoil the score of all others."""
    if not torch.isfinite(values).all():
        raise T2IError(f"found {what} that are NaN or infinite, expected finite ones: evaluate an earlier checkpoint")


def standard_error(values: Tensor) -> float | None:
    """Standard error of the mean of (N,) values; None for fewer than two."""
    return float(values.double().std() / len(values) ** 0.5) if len(values) > 1 else None


def mean_and_error(count: Tensor, total: Tensor, squares: Tensor) -> tuple[float, float | None]:
    """Mean and standard error of ``count`` values, from their sum and sum of squares; None for fewer than two."""
    variance = ((squares - total.square() / count) / (count - 1)).clamp(min=0)
    return float(total / count), float((variance / count).sqrt()) if count > 1 else None


def share_score(metric: str, label: str, share: Tensor, chance: Tensor | float, count: int, note: str = "") -> Score:
    """The score of a share of ``count`` images, with its standard error unless there is only one."""
    value = float(share)
    error = (value * (1 - value) / (count - 1)) ** 0.5 if count > 1 else None
    return Score(metric, label, value, error, "standard error", float(chance), note)
