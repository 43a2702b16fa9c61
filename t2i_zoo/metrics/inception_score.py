"""Inception Score (Salimans et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, ZooMetric
from t2i_zoo.metrics.networks import INCEPTION


class InceptionScore(ZooMetric):
    """``exp(E KL(p(y|x) | p(y)))`` of a classifier, averaged over the splits; higher is better.

    As in the published code, images are cut in order into ``splits`` stretches, and the error is the population
    standard deviation over them. Zero probabilities are harmless here; that code takes their logarithm. Only sums are
    kept. The published numbers of birds and Oxford flowers come from a network fine-tuned on their test classes.

    Args:
        job: what is evaluated.
        splits: number of splits; at most the number of images.
    """

    reads = ("logits", "index")
    needs_network = needs_logits = True
    count: Tensor
    sums: Tensor
    certainty: Tensor

    def __init__(self, job: Job, splits: int = 10) -> None:
        super().__init__(job)
        self.total = len(job.draws)
        if not 1 <= splits <= self.total:
            raise T2IError(
                f"found {splits} splits of inception_score for {self.total} images, expected at least one image in "
                "each: raise --images"
            )
        network = job.required_network
        self.splits, self.network, self.classes = splits, network.label, network.num_logits
        for name, shape in (("count", ()), ("sums", (self.classes,)), ("certainty", ())):
            self._accumulate(name, splits, *shape)

    def update(self, logits: Tensor, index: Tensor) -> None:
        """Add class scores (B, K), before the softmax, of the images at positions ``index`` (B,)."""
        log_p = torch.log_softmax(logits.to(self.sums.device, torch.float64), 1)
        p = log_p.exp()
        split = ((index.to(p.device) + 1) * self.splits - 1) // self.total  # the stretch [i N / s, (i + 1) N / s)
        member = torch.nn.functional.one_hot(split, self.splits).T.double()  # (splits, B)
        self.count += member.sum(1)
        self.sums += member @ p
        self.certainty += member @ (p * log_p).sum(1)

    def compute(self) -> list[Score]:
        """One score."""
        marginal = self.sums / self.count[:, None]
        gain = self.certainty / self.count - torch.special.xlogy(marginal, marginal).sum(1)
        values = gain.exp()
        value, error = float(values.mean()), float(values.std(correction=0))
        plain = self.network.endswith("classifier")
        label = f"{self.network} score" if plain else f"{self.network} class score"
        label = "Inception score" if self.network == INCEPTION else label
        few = self.total // self.splits
        note = f"{few} images per split for {self.classes} classes: biased downwards" if few < self.classes else ""
        kind = f"standard deviation of {self.splits} splits"
        return [Score("inception_score", label, value, error, kind, note=note)]
