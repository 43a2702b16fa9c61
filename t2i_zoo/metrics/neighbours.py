"""What nearest neighbours in a feature space reveal: fidelity, variety and memorised images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, ZooMetric, share_score, standard_error

_CHUNK = 2048  # rows of a block of distances: 2048 x 30,000 float64 take half a gigabyte


class PRDC(ZooMetric):
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020); higher is better.

    Each photograph has a ball around it that reaches to its k-th nearest other photograph; generated images have balls
    likewise. Precision is the share of generated images inside a ball of a photograph, recall the share of photographs
    inside a ball of a generated image; density counts the balls that an image is in, divided by k; coverage is the
    share of photographs with a generated image in their ball. Features of all images are kept (N x D float32).

    Args:
        job: what is evaluated.
        k: number of neighbours; 5 is Naeem's, 3 is Kynkäänniemi's.
    """

    needs_network = True

    def __init__(self, job: Job, k: int = 5) -> None:
        super().__init__(job)
        self.k, self.network, self.reference = k, job.required_network.label, job.features("reference")
        for what, count in (("--images", len(job.draws)), ("reference images", len(self.reference))):
            if not 1 <= k < count:
                raise T2IError(f"found {what} {count}, expected more than the {k} neighbours of prdc: give more")
        self._collect()

    def update(self, features: Tensor, index: Tensor) -> None:
        """Add features (B, D) of the images at positions ``index`` (B,)."""
        self._keep(index, features.float())

    def compute(self) -> list[Score]:
        """Four scores."""
        _, fakes = self._kept()
        reals = self.reference.to(fakes.device)
        slack = 1e-9 * reals.double().square().sum(1).mean()  # for rounding between identical images
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
        found = {"precision": balls > 0, "recall": recall, "density": balls / self.k, "coverage": coverage}
        kind = "standard error, the other set fixed"
        return [
            Score(f"prdc.{name}", f"{self.network} {name}", float(each.double().mean()), standard_error(each), kind)
            for name, each in found.items()
        ]


class NearestTraining(ZooMetric):
    """A memorisation check: the share of generated images nearer to a training image than 99 % of held-out ones are.

    Images as new as held-out photographs reach 1 %; a model that copies comes close to 100 %. If training and held-out
    images are of different classes, held-out ones are farther away and the check is stricter. Mirrored training images
    are not considered. Features of the training images are kept (M x D float32).

    Args:
        job: what is evaluated.
        percentile: percentile of the held-out distances that is the threshold, in percent.
    """

    needs_network = True

    def __init__(self, job: Job, percentile: float = 1.0) -> None:
        super().__init__(job)
        if not 0 < percentile < 100:
            raise T2IError(f"found the percentile {percentile} of nearest_training, expected 0 to 100: correct it")
        self.percentile, self.network = percentile, job.required_network.label
        self.train_features = job.features("train")
        held_out = nearest(job.features("reference"), self.train_features)
        rounding = 1e-5 * self.train_features.double().square().sum(1).mean().sqrt()
        if not held_out.median() > rounding:
            raise T2IError(
                "found training images among the reference images, which nearest_training expects to be new: choose "
                "the reference test"
            )
        self.threshold, self.median = held_out.quantile(percentile / 100), held_out.median()
        self._collect()

    def update(self, features: Tensor, index: Tensor) -> None:
        """Add features (B, D) of the images at positions ``index`` (B,)."""
        self.train_features = self.train_features.to(features.device)
        self._keep(index, nearest(features, self.train_features))

    def compute(self) -> list[Score]:
        """The share below the threshold, and the ratio of the median distance to that of held-out images."""
        distance = self._kept()[1].cpu()
        share = (distance < self.threshold.cpu()).double().mean()
        label = f"{self.network} nearness to training pictures"
        ratio, ratio_label = float(distance.median() / self.median.cpu()), f"{label}, median over that of photographs"
        return [
            share_score("nearest_training.share", label, share, self.percentile / 100, len(distance)),
            Score("nearest_training.ratio", ratio_label, ratio, chance=1.0),
        ]


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances between (N, D) and (M, D) in float64: blocks of rows of x, with their positions."""
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
        block[rows - part.start, rows] = torch.inf  # a row is not its own neighbour
        result.append(block.kthvalue(k, 1).values)
    return torch.cat(result)


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """(N,) distance of each row of x to the nearest row of y, float64."""
    if not len(x):
        return torch.zeros(0, dtype=torch.float64, device=x.device)
    return torch.cat([block.amin(1).sqrt() for _, block in distances(x, y)])
