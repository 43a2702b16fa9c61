"""What every metric is: state that adds up or can be gathered, built for one job, with scores that say their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
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
    """One number with all that its reader must know.

    Attributes:
        metric: key of the metric, such as ``frechet_distance``; with a dot and the part where it has several.
        label: what tables call it. The names FID, KID and Inception score belong to ``inception_v3_tf`` alone.
        value: the number.
        error: of the kind that ``error_kind`` names; None where there is none.
        error_kind: such as "standard error".
        chance: what would be reached by chance, where that means something.
        note: a bias or a limit, in words; "" where there is none.
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
    """One batch of pictures as all metrics see it; B pictures.

    Attributes:
        index: (B,) int64 place of each picture among all that are drawn; what depends on order depends on it.
        images: (B, 3, S, S) in [-1, 1].
        captions: B sentences that the pictures were drawn from.
        features: (B, D) of the protocol's network, or None where it has none.
        logits: (B, K) of the network, or None.
    """

    index: Tensor
    images: Tensor
    captions: list[str]
    features: Tensor | None = None
    logits: Tensor | None = None

    def to(self, device: torch.device) -> View:
        """The same with everything but the index on another device."""
        features, logits = (None if x is None else x.to(device) for x in (self.features, self.logits))
        return View(self.index, self.images.to(device), self.captions, features, logits)


@dataclass
class Job:
    """What metrics know before the first picture is drawn.

    Attributes:
        draws: which captions the pictures are drawn from, in which order.
        photographs: the real pictures and captions.
        network: what looks at pictures, or None.
        features: gives the features (N, D) of the photographs ``"reference"`` or ``"train"``, float32 on the CPU.
        seed: of everything that a metric draws.
        real: whether the pictures under evaluation are photographs themselves.
    """

    draws: Draws
    photographs: Photographs
    network: Network | None
    features: Callable[[str], Tensor]
    seed: int = 0
    real: bool = False

    @property
    def looking(self) -> Network:
        """The network, where the metric cannot do without."""
        assert self.network is not None
        return self.network


class ZooMetric(Metric):
    """Base of the metrics: a subclass adds states, ``update``, ``compute``, ``see`` and ``scores``.

    Sums are kept in float64 and states that are lists carry the index of each picture, so that several processes with
    unequal shares compute what one computes. Each process updates at least once.
    """

    full_state_update = False
    needs_network: ClassVar[bool] = False  #: whether it reads features of a network
    needs_logits: ClassVar[bool] = False  #: whether it reads scores of a network's classes
    needs_sentences: ClassVar[bool] = False  #: whether the network must read captions too
    needs_captions: ClassVar[bool] = False  #: whether pictures must follow captions

    def __init__(self, job: Job, **options: Any) -> None:
        super().__init__()

    def see(self, view: View) -> None:
        """Take one batch in."""
        raise NotImplementedError

    def scores(self) -> list[Score]:
        """The numbers, after the last batch; asks all processes."""
        raise NotImplementedError

    def _accumulate(self, name: str, *shape: int) -> None:
        """A state of zeros in float64 that adds up over batches and processes."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), "sum")

    def _collect(self, *names: str) -> None:
        """Lists of rows that are gathered from all processes."""
        for name in names:
            self.add_state(name, [], "cat")

    def _ordered(self, *names: str) -> list[Tensor]:
        """The gathered rows in the order of their index, which the first of the names holds."""
        parts: list[Tensor] = [dim_zero_cat(getattr(self, name)) for name in names]
        order = torch.argsort(parts[0])
        return [part[order] for part in parts]


def check_finite(values: Tensor, what: str) -> None:
    """Raise where features are not finite: one such row would silently make a score of all others."""
    if not torch.isfinite(values).all():
        raise T2IError(f"found {what} that are NaN or infinite, expected finite ones: evaluate an earlier checkpoint")


def parts(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Some rows at a time."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def spread(values: Tensor) -> float | None:
    """Standard error of a mean of (N,) values; None for fewer than two."""
    return float(values.double().std() / len(values) ** 0.5) if len(values) > 1 else None


def share_error(share: float, count: int) -> float | None:
    """Standard error of a share of ``count`` pictures; None for fewer than two."""
    return float((share * (1 - share) / (count - 1)) ** 0.5) if count > 1 else None


def stable_seed(*parts: Any) -> int:
    """A 63-bit seed that differs with every part."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1
