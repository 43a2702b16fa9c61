"""Whether an image belongs to its caption according to a dual encoder: R-precision and the CLIP score."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite, mean_and_error
from t2i_zoo.metrics.draws import random_captions
from t2i_zoo.nn.retrieval import CANDIDATES, outranked
from t2i_zoo.seeds import stable_seed


class RPrecision(ZooMetric):
    """AttnGAN's R-precision (Xu et al. 2018, section 4; code of DM-GAN): is the true caption among the k best?

    Each image is compared by the cosine of the codes with its own caption and 99 captions of random images of other
    classes (of other images if there are no classes). Ties favour the true caption. The results are shuffled into ten
    folds; the score is the mean of their shares, with the population standard deviation. The published code leaves one
    result out of each fold; that is fixed here. A model trained with the encoder that judges it has an advantage.

    Args:
        job: what is evaluated.
        candidates: captions for each image, the true one included.
        top: the values of k to report.
        folds: number of folds; at most the number of images.
    """

    needs_network = needs_sentences = needs_captions = True
    hits: Tensor
    count: Tensor

    def __init__(
        self, job: Job, candidates: int = CANDIDATES, top: tuple[int, ...] = (1, 2, 3), folds: int = 10
    ) -> None:
        super().__init__(job)
        total = len(job.draws)
        if not 1 <= folds <= total:
            raise T2IError(f"found {folds} folds of r_precision for {total} images, expected 1 to {total}: add images")
        if candidates < 2 or not all(1 <= k < candidates for k in top) or not top:
            raise T2IError(
                f"found {candidates} candidates and k {top} of r_precision, expected each k below the candidates: "
                "correct the protocol"
            )
        self.candidates, self.top, self.folds = candidates, tuple(top), folds
        self.network, self.seed, self.draws = job.required_network.label, job.seed, job.draws
        self.offsets = job.photographs.offsets
        self.pool: NDArray[np.int64] = np.sort(job.draws.pool.numpy())
        labels = job.photographs.labels[self.pool]
        self.labels = labels if (labels >= 0).all() else self.pool  # without classes every image is its own
        if len(np.unique(self.labels)) < 2:
            raise T2IError(
                "found captions of one class, expected other classes for mismatched captions: evaluate more images or "
                "classes"
            )
        numbers = np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in self.pool])
        self.place = np.full(self.offsets[-1], -1)  # position of each caption among the encoded ones
        self.place[numbers] = np.arange(len(numbers))
        codes = job.required_network.read(job.photographs.sentences(torch.from_numpy(numbers)))
        check_finite(codes, "codes of captions")
        self.codes = F.normalize(codes, dim=1, eps=1e-8)
        order = np.random.default_rng([job.seed, 3]).permutation(total)
        self.fold_of = torch.from_numpy(order * folds // total)
        self._accumulate("hits", folds, len(self.top))
        self._accumulate("count", folds)

    def mismatches(self, index: int) -> NDArray[np.int64]:
        """Mismatched captions that the image at position ``index`` is compared with, drawn with replacement."""
        rng = np.random.default_rng(stable_seed(self.seed, "mismatches", index))
        label = self.labels[np.searchsorted(self.pool, int(self.draws.rows[index]))]
        others = self.pool[self.labels != label]
        return random_captions(self.offsets, others[rng.integers(len(others), size=self.candidates - 1)], rng)

    def update(self, codes: Tensor, index: Tensor) -> None:
        """Add codes (B, D) of the images at positions ``index`` (B,)."""
        for code, i in zip(F.normalize(codes, dim=1, eps=1e-8), index.tolist(), strict=True):
            numbers = np.concatenate([[int(self.draws.captions[i])], self.mismatches(i)])
            cosines = self.codes[torch.from_numpy(self.place[numbers])].to(code.device) @ code
            rank = int(outranked(cosines[None, 1:], cosines[None, :1])[0])
            fold = int(self.fold_of[i])
            self.count[fold] += 1
            self.hits[fold] += torch.tensor([rank < k for k in self.top], device=self.hits.device)

    def compute(self) -> list[Score]:
        """One score for each k."""
        shares = self.hits / self.count[:, None]
        label, kind = f"R-precision ({self.network})", f"standard deviation of {self.folds} folds"
        found = zip(self.top, shares.mean(0).tolist(), shares.std(0, correction=0).tolist(), strict=True)
        return [Score(f"r_precision.{k}", f"{label} k={k}", v, e, kind, k / self.candidates) for k, v, e in found]


class Similarity(ZooMetric):
    """The CLIP score (Hessel et al. 2021, without the factor 2.5): mean of ``100 max(cos, 0)``; higher is better.

    With an encoder other than a CLIP it is called caption similarity.

    Args:
        job: what is evaluated.
    """

    needs_network = needs_sentences = needs_captions = True
    totals: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.network = job.required_network
        self._accumulate("totals", 3)  # images, sum, sum of squares

    def update(self, codes: Tensor, sentences: Tensor) -> None:
        """Add codes (B, D) of images and of their captions."""
        cosine = F.cosine_similarity(codes.double(), sentences.to(codes.device).double())
        each = (100 * cosine.clamp(min=0)).to(self.totals.device)
        self.totals += torch.stack([torch.ones_like(each), each, each.square()]).sum(1)

    def see(self, view: View) -> None:
        """Take in one batch."""
        assert view.features is not None
        self.update(view.features, self.network.read(view.captions))

    def compute(self) -> list[Score]:
        """One score."""
        value, error = mean_and_error(*self.totals)
        name = "CLIP score" if "clip" in self.network.label.lower() else "caption similarity"
        label = f"{name} ({self.network.label})"
        return [Score("clip_score", label, value, error, "standard error")]
