"""Whether images differ: within a class, and among those of one caption."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, ZooMetric, standard_error
from t2i_zoo.metrics.msssim import ms_ssim
from t2i_zoo.pictures import to_uint8
from t2i_zoo.seeds import stable_seed

_CHUNK = 64  # pairs at a time
_COLLAPSED = 0.1  # share of the distance between two photographs
_PAIRS = 200  # pairs of photographs that their distance is measured on


class ClassDiversity(ZooMetric):
    """TAC-GAN's mean MS-SSIM of the pairs within a class, averaged over classes; lower is more diverse.

    The published script has three bugs that are fixed here: it takes every fiftieth image of a class, it passes
    photographs in 0 to 1 while it declares 0 to 255, and its table keeps the last class only. At most
    ``images_per_class`` images of each class are kept, as bytes.

    Args:
        job: what is evaluated; the data must have classes.
        images_per_class: number of images of each class, the first ones; all their pairs are compared.
        reference_bugs: reproduce the bugs of the published script.
    """

    reads = ("images", "index")

    def __init__(self, job: Job, images_per_class: int = 20, reference_bugs: bool = False) -> None:
        super().__init__(job)
        labels = job.draws.labels
        if (labels < 0).any():
            raise T2IError("found images without classes, expected classes for msssim_class: choose other data")
        if images_per_class < 2:
            raise T2IError(f"found images_per_class {images_per_class}, expected at least 2: correct the protocol")
        self.labels, self.reference_bugs, self.real = labels, reference_bugs, job.real
        order = torch.argsort(labels, stable=True)
        _, counts = torch.unique(labels, return_counts=True)
        place = torch.empty_like(labels)  # of each image within its class
        place[order] = torch.cat([torch.arange(int(count)) for count in counts])
        self.keep = place < images_per_class
        if reference_bugs:
            self.keep = (place % 50 == 0) & (place < 50 * images_per_class)
        _, kept = torch.unique(labels[self.keep], return_counts=True)
        if not (kept > 1).any():
            raise T2IError("found no class with two images, expected pairs for msssim_class: raise --images")
        few = int((kept < images_per_class).sum())
        self._note = f"{few} of {len(kept)} classes have fewer than {images_per_class} images" if few else ""
        self._collect()

    def update(self, images: Tensor, index: Tensor) -> None:
        """Add images (B, 3, S, S) in [-1, 1] at positions ``index`` (B,)."""
        kept = self.keep[index.cpu()].nonzero().flatten()  # on the host: a mask on a GPU would make it wait
        self._keep(index[kept.to(index.device)], to_uint8(images[kept.to(images.device)]))

    def compute(self) -> list[Score]:
        """One score."""
        index, images = self._kept()
        labels = self.labels[index.cpu()]
        scale = 1 / 255 if self.reference_bugs and self.real else 1.0
        means = []
        for label in torch.unique(labels):
            own = images[(labels == label).nonzero().flatten().to(images.device)]
            if len(own) > 1:
                pairs = torch.combinations(torch.arange(len(own))).to(images.device)
                pixels = own.float() * scale
                values = [ms_ssim(pixels[part[:, 0]], pixels[part[:, 1]]) for part in torch.split(pairs, _CHUNK)]
                means.append(torch.cat(values).double().mean())
        each = torch.stack(means)[-1:] if self.reference_bugs else torch.stack(means)
        note = "as the published script, bugs included" if self.reference_bugs else self._note
        error, kind = standard_error(each), "standard error over classes"
        return [Score("msssim_class", "MS-SSIM within classes", float(each.mean()), error, kind, note=note)]


class CaptionDiversity(ZooMetric):
    """A collapse alarm: the distance between images of one caption, divided by the distance between photographs.

    Distances are root mean squares over pixels, averaged over all pairs; pixels are compared because that needs no
    network. 1 is as diverse as photographs; the score warns below a tenth. Needs a protocol with
    ``samples_per_caption`` above 1. All images are kept, as bytes, so such protocols generate few.

    Args:
        job: what is evaluated.
    """

    reads = ("images", "index")

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.repeats = job.draws.repeats
        if self.repeats < 2:
            raise T2IError(
                "found samples_per_caption 1, expected at least 2 for caption_diversity: raise it in the protocol"
            )
        self.between = photograph_distance(job)
        self._collect()

    def update(self, images: Tensor, index: Tensor) -> None:
        """Add images (B, 3, S, S) in [-1, 1] at positions ``index`` (B,)."""
        self._keep(index, to_uint8(images))

    def compute(self) -> list[Score]:
        """One score."""
        _, images = self._kept()
        groups = images.reshape(-1, self.repeats, images[0].numel())  # (M, K, P)
        pairs = torch.combinations(torch.arange(self.repeats)).to(images.device)
        means = []
        for group in groups:
            pixels = group.double() / 127.5
            first, second = pixels[pairs[:, 0]], pixels[pairs[:, 1]]
            means.append((first - second).square().mean(1).sqrt().mean())
        each = torch.stack(means) / self.between
        value, error = float(each.mean()), standard_error(each)
        note = "collapse: images of one caption hardly differ" if value < _COLLAPSED else ""
        label = "difference of pictures of one caption, over that of photographs"  # older boards have this row
        return [Score("caption_diversity", label, value, error, "standard error over captions", note=note)]


def photograph_distance(job: Job) -> float:
    """Mean root mean square difference of random pairs of photographs of one class; of any, if no class has two."""
    rng = np.random.default_rng(stable_seed(job.seed, "pairs"))
    rows = np.sort(job.draws.pool.numpy())
    if len(rows) < 2:
        raise T2IError("found one photograph, expected pairs for caption_diversity: choose a larger split")
    labels = job.photographs.labels[rows]
    if len(np.unique(labels)) == len(labels):
        labels = np.zeros_like(labels)
    found = []
    for first in rng.integers(len(rows), size=_PAIRS):
        others = np.flatnonzero(labels == labels[first])
        others = others[others != first]
        if len(others):
            pair = job.photographs.images(torch.from_numpy(rows[[first, rng.choice(others)]]))
            found.append(float((pair[0] - pair[1]).square().mean().sqrt()))
    return max(float(np.mean(found)), 1e-6)
