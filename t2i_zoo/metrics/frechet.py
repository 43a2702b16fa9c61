"""Fréchet distance between two clouds of features (Heusel et al. 2017, eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, ZooMetric
from t2i_zoo.metrics.networks import INCEPTION


class FrechetDistance(ZooMetric):
    """``|m - m_r|^2 + tr(C + C_r - 2 (C C_r)^(1/2))`` of the features' means and covariances; lower is better.

    Only sums are kept, ``groups`` x D x D numbers in float64 (a third of a gigabyte for D = 2048 and ten groups).
    The error is a jackknife standard error that leaves out one group of images at a time and takes the photographs as
    fixed. The distance is biased upwards, the more so the fewer images; below D images a covariance does not even have
    full rank, and the score says so.

    Args:
        job: what is evaluated.
        groups: groups of the jackknife; 0 omits the error, which makes every batch and the end cheaper.
    """

    needs_network = True
    count: Tensor
    sums: Tensor
    products: Tensor

    def __init__(self, job: Job, groups: int = 10) -> None:
        super().__init__(job)
        if groups < 0 or groups == 1:
            raise T2IError(f"found {groups} groups of frechet_distance, expected 0 or at least 2: correct the protocol")
        reference = job.features("reference")
        if len(reference) < 2:
            raise T2IError("found one reference image, expected at least 2: choose a larger split")
        self.groups, self.jackknife = max(groups, 1), groups > 0
        self.reference_count, self.dim = reference.shape
        self.shift, self.reference_cov = moments(reference)
        self.network = job.required_network.label
        for name, shape in (("count", ()), ("sums", (self.dim,)), ("products", (self.dim, self.dim))):
            self._accumulate(name, self.groups, *shape)

    def update(self, features: Tensor, index: Tensor) -> None:
        """Add features (B, D) of the images at positions ``index`` (B,)."""
        # relative to the mean of the photographs: large products would drown the differences
        x = features.to(self.sums.device, torch.float64) - self.shift.to(self.sums.device)
        group = index.cpu() % self.groups
        count = torch.bincount(group, minlength=self.groups)
        self.count += count.to(self.count)
        x = x[torch.argsort(group, stable=True).to(x.device)]
        for total, product, own in zip(self.sums, self.products, torch.split(x, count.tolist()), strict=True):
            total += own.sum(0)
            product.addmm_(own.T, own)

    def compute(self) -> list[Score]:
        """One score."""
        count, sums, products = self.count.cpu(), self.sums.cpu(), self.products.cpu()
        total = count.sum()
        if total < 2:
            raise T2IError("found one image, expected at least 2 for a Frechet distance: raise --images")
        root = symmetric_root(self.reference_cov)
        value = self._distance(total, sums.sum(0), products.sum(0), root)
        left, error = total - count, None
        if self.jackknife and (count > 0).all() and (left > 1).all():
            without = [
                self._distance(left[g], sums.sum(0) - sums[g], products.sum(0) - products[g], root)
                for g in range(self.groups)
            ]
            values = torch.stack(without)
            error = float(((self.groups - 1) / self.groups * (values - values.mean()).square().sum()).sqrt())
        label = "FID" if self.network == INCEPTION else f"{self.network} Frechet distance"
        few = min(int(total), self.reference_count)
        note = f"{few} images for {self.dim} features: biased upwards" if few <= self.dim else ""
        return [Score("frechet_distance", label, float(value), error, "standard error (jackknife)", note=note)]

    def _distance(self, count: Tensor, total: Tensor, product: Tensor, root: Tensor) -> Tensor:
        mean = total / count
        cov = (product - count * torch.outer(mean, mean)) / (count - 1)
        return mean.square().sum() + trace_term(cov, self.reference_cov, root)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D), float64, of features (N, D)."""
    mean = features.double().mean(0)
    product = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in torch.split(features, 4096):
        centred = part.double() - mean
        product += centred.T @ centred
    return mean, product / (len(features) - 1)


def symmetric_root(matrix: Tensor) -> Tensor:
    """Symmetric square root of a positive semi-definite matrix; negative eigenvalues from rounding count as zero."""
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def trace_term(cov: Tensor, reference: Tensor, root: Tensor) -> Tensor:
    """``tr(C + R - 2 (C R)^(1/2))``, where ``root`` is the square root of R.

    C R has the same eigenvalues as the symmetric R^(1/2) C R^(1/2), so nothing becomes complex, and covariances of
    lower rank need no epsilon, unlike with the usual matrix square root.
    """
    values = torch.linalg.eigvalsh(root @ cov @ root)
    term: Tensor = cov.trace() + reference.trace() - 2 * values.clamp(min=0).sqrt().sum()
    return term


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """The distance between two sets of features, (N, D) and (M, D)."""
    (mean, cov), (mean_r, cov_r) = moments(features), moments(reference)
    return float((mean - mean_r).square().sum() + trace_term(cov, cov_r, symmetric_root(cov_r)))
