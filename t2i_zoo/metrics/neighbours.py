"""What the nearest neighbours in a feature space say: fidelity, variety, and pictures learned by heart."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite, share_error, spread

_CHUNK = 2048  # rows of a block of distances: 2048 x 30,000 float64 are half a gigabyte


class PRDC(ZooMetric):
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020); higher is better.

    Around each photograph lies a ball that reaches to its k-th nearest other photograph, and likewise around each drawn
    picture. Precision is the share of drawn pictures inside a ball of a photograph, recall the share of photographs
    inside a ball of a drawn one; density counts how many balls, over k; coverage is the share of photographs with
    a drawn picture in their ball. Features of all pictures are kept (N x D float32).

    Args:
        job: what is evaluated.
        k: neighbours; 5 is Naeem's, 3 is Kynkäänniemi's.
    """

    needs_network = True
    features: list[Tensor]
    index: list[Tensor]

    def __init__(self, job: Job, k: int = 5) -> None:
        super().__init__(job)
        self.k, self.network, self.reference = k, job.looking.label, job.features("reference")
        for what, count in (("--images", len(job.draws)), ("reference pictures", len(self.reference))):
            if not 1 <= k < count:
                raise T2IError(f"found {what} {count}, expected more than the {k} neighbours of prdc: give more")
        self._collect("index", "features")

    def update(self, features: Tensor, index: Tensor) -> None:
        """Add features (B, D) of the pictures numbered ``index`` (B,)."""
        check_finite(features, "features")
        self.features.append(features.float())
        self.index.append(index.to(features.device))

    def see(self, view: View) -> None:
        """Take one batch in."""
        assert view.features is not None
        self.update(view.features, view.index)

    def compute(self) -> dict[str, Tensor]:
        """``precision`` and ``density`` (N,) of each drawn picture, ``recall`` and ``coverage`` (M,) of photographs."""
        _, fakes = self._ordered("index", "features")
        reals = self.reference.to(fakes.device)
        slack = 1e-9 * reals.double().square().sum(1).mean()  # of rounding, where pictures are the same
        ball_real, ball_fake = (kth_neighbour(x, self.k) + slack for x in (reals, fakes))
        inside: list[Tensor] = []
        recall = torch.zeros(len(reals), dtype=torch.bool, device=reals.device)
        coverage = recall.clone()
        for part, block in distances(fakes, reals):
            hits = block <= ball_real
            inside.append(hits.sum(1))
            coverage |= hits.any(0)
            recall |= (block <= ball_fake[part, None]).any(0)
        balls = torch.cat(inside).double()
        found = {"precision": (balls > 0).double(), "recall": recall.double()}
        return found | {"density": balls / self.k, "coverage": coverage.double()}

    def scores(self) -> list[Score]:
        """Four numbers."""
        kind = "standard error, the other set fixed"
        return [
            Score(f"prdc.{name}", f"{self.network} {name}", float(each.mean()), spread(each.reshape(-1)), kind)
            for name, each in self.compute().items()
        ]


class NearestTraining(ZooMetric):
    """A memorisation check: the share of drawn pictures nearer to a training picture than 99 % of held-out ones are.

    Pictures that are as new as held-out photographs reach 1 %; a model that copies comes near 100 %. Where training and
    held-out pictures are of different classes, held-out ones lie farther away and the check is the stricter. Mirrored
    training pictures are not looked at. The features of the training pictures are kept (M x D float32).

    Args:
        job: what is evaluated.
        percentile: of the held-out distances that is the threshold, in percent.
    """

    needs_network = True
    distance: list[Tensor]
    index: list[Tensor]

    def __init__(self, job: Job, percentile: float = 1.0) -> None:
        super().__init__(job)
        if not 0 < percentile < 100:
            raise T2IError(f"found the percentile {percentile} of nearest_training, expected 0 to 100: correct it")
        self.percentile, self.network = percentile, job.looking.label
        self.learned = job.features("train")
        held_out = nearest(job.features("reference"), self.learned)
        if not held_out.median() > 1e-5 * self.learned.double().square().sum(1).mean().sqrt():  # above rounding
            raise T2IError(
                "found training pictures among the reference pictures, which nearest_training takes as new: choose the "
                "reference test"
            )
        self.threshold, self.median = held_out.quantile(percentile / 100), held_out.median()
        self._collect("index", "distance")

    def update(self, features: Tensor, index: Tensor) -> None:
        """Add features (B, D) of the pictures numbered ``index`` (B,)."""
        check_finite(features, "features")
        self.learned = self.learned.to(features.device)
        self.distance.append(nearest(features, self.learned))
        self.index.append(index.to(features.device))

    def see(self, view: View) -> None:
        """Take one batch in."""
        assert view.features is not None
        self.update(view.features, view.index)

    def compute(self) -> dict[str, Tensor]:
        """``share`` below the threshold, and ``ratio`` of the median distance to that of held-out photographs."""
        _, distance = self._ordered("index", "distance")
        near = (distance.cpu() < self.threshold.cpu()).double().mean()
        return {
            "share": near,
            "ratio": distance.cpu().median() / self.median.cpu(),
            "count": torch.tensor(len(distance)),
        }

    def scores(self) -> list[Score]:
        """The share with its chance, and the ratio of medians."""
        found = {name: float(value) for name, value in self.compute().items()}
        error = share_error(found["share"], int(found["count"]))
        label = f"{self.network} nearness to training pictures"
        return [
            Score("nearest_training.share", label, found["share"], error, "standard error", self.percentile / 100),
            Score("nearest_training.ratio", f"{label}, median over that of photographs", found["ratio"], chance=1.0),
        ]


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of (N, D) and (M, D) in float64, some rows of x at a time, with their place."""
    y = y.double()
    for start in range(0, len(x), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(x)))
        some = x[part].double()
        block = some.square().sum(1)[:, None] + y.square().sum(1) - 2 * some @ y.T
        yield part, block.clamp(min=0)


def kth_neighbour(x: Tensor, k: int) -> Tensor:
    """(N,) squared distance of each row to its k-th nearest other row."""
    result = []
    for part, block in distances(x, x):
        rows = torch.arange(part.start, part.stop, device=x.device)
        block[rows - part.start, rows] = torch.inf  # itself is no neighbour
        result.append(block.kthvalue(k, 1).values)
    return torch.cat(result)


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """(N,) distance of each row of x to the nearest row of y, float64."""
    if not len(x):
        return torch.zeros(0, dtype=torch.float64, device=x.device)
    return torch.cat([block.amin(1).sqrt() for _, block in distances(x, y)])
