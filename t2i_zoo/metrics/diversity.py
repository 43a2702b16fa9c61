"""Whether pictures differ: within a class, and among those of one caption."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite, parts, spread, stable_seed
from t2i_zoo.metrics.msssim import ms_ssim

_CHUNK = 64  # pairs at a time
_COLLAPSED = 0.1  # of the distance of two photographs
_PAIRS = 200  # of photographs that the distance is measured on


class ClassDiversity(ZooMetric):
    """TAC-GAN's mean MS-SSIM of the pairs within a class, the mean over classes; lower is more diverse.

    The published script has three bugs, mended here: it takes each fiftieth picture of a class, it hands photographs
    over as 0 to 1 while it says 0 to 255, and its table keeps the last class alone. Kept are at most
    ``images_per_class`` pictures of each class, as bytes.

    Args:
        job: what is evaluated; the data must have classes.
        images_per_class: the first so many pictures of each class; all their pairs are compared.
        reference_bugs: do as the published script does.
    """

    images: list[Tensor]
    index: list[Tensor]

    def __init__(self, job: Job, images_per_class: int = 20, reference_bugs: bool = False) -> None:
        super().__init__(job)
        labels = job.draws.labels
        if (labels < 0).any():
            raise T2IError("found pictures without classes, expected classes for msssim_class: choose other data")
        if images_per_class < 2:
            raise T2IError(f"found images_per_class {images_per_class}, expected at least 2: correct the protocol")
        self.labels, self.reference_bugs, self.real = labels, reference_bugs, job.real
        order = torch.argsort(labels, stable=True)
        _, counts = torch.unique(labels, return_counts=True)
        place = torch.empty_like(labels)  # of each picture within its class
        place[order] = torch.cat([torch.arange(int(count)) for count in counts])
        self.keep = place < images_per_class
        if reference_bugs:
            self.keep = (place % 50 == 0) & (place < 50 * images_per_class)
        _, kept = torch.unique(labels[self.keep], return_counts=True)
        self.classes = int((kept > 1).sum())
        if not self.classes:
            raise T2IError("found no class with two pictures, expected pairs for msssim_class: raise --images")
        few = int((kept < images_per_class).sum())
        self._note = f"{few} of {len(kept)} classes have fewer than {images_per_class} pictures" if few else ""
        self._collect("index", "images")

    def update(self, images: Tensor, index: Tensor) -> None:
        """Add pictures (B, 3, S, S) in [-1, 1] numbered ``index`` (B,)."""
        keep = self.keep[index.cpu()].to(images.device)
        self.images.append(images[keep].add(1).mul(127.5).round().clamp(0, 255).byte())
        self.index.append(index.to(images.device)[keep])

    def see(self, view: View) -> None:
        """Take one batch in."""
        self.update(view.images, view.index)

    def compute(self) -> dict[str, Tensor]:
        """``classes`` (C,) mean of the pairs of each class that has two pictures, in the order of their labels."""
        index, images = self._ordered("index", "images")
        labels = self.labels[index.cpu()]
        scale = 1 / 255 if self.reference_bugs and self.real else 1.0
        means = []
        for label in torch.unique(labels):
            own = images[(labels == label).to(images.device)]
            if len(own) > 1:
                pairs = torch.combinations(torch.arange(len(own))).to(images.device)
                pixels = own.float() * scale
                values = [ms_ssim(pixels[part[:, 0]], pixels[part[:, 1]]) for part in parts(pairs, _CHUNK)]
                means.append(torch.cat(values).double().mean())
        return {"classes": torch.stack(means)[-1:] if self.reference_bugs else torch.stack(means)}

    def scores(self) -> list[Score]:
        """One number."""
        each = self.compute()["classes"].reshape(-1)
        note = "as the published script, bugs included" if self.reference_bugs else self._note
        kind = "standard error over classes"
        return [Score("msssim_class", "MS-SSIM within classes", float(each.mean()), spread(each), kind, note=note)]


class CaptionDiversity(ZooMetric):
    """A collapse alarm: how far pictures of one caption are apart, over how far photographs are.

    Distances are root mean squares over pixels, means over all pairs; pixels are compared because they need no
    network. 1 is as diverse as photographs; the score warns below a tenth. Needs protocols with
    ``samples_per_caption`` above 1. All pictures are kept, as bytes, so such protocols draw few.

    Args:
        job: what is evaluated.
    """

    images: list[Tensor]
    index: list[Tensor]

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.repeats = job.draws.repeats
        if self.repeats < 2:
            raise T2IError(
                "found samples_per_caption 1, expected at least 2 for caption_diversity: raise it in the protocol"
            )
        self.between = photograph_distance(job)
        self._collect("index", "images")

    def update(self, images: Tensor, index: Tensor) -> None:
        """Add pictures (B, 3, S, S) in [-1, 1] numbered ``index`` (B,)."""
        check_finite(images, "pictures")
        self.images.append(images.add(1).mul(127.5).round().clamp(0, 255).byte())
        self.index.append(index.to(images.device))

    def see(self, view: View) -> None:
        """Take one batch in."""
        self.update(view.images, view.index)

    def compute(self) -> dict[str, Tensor]:
        """``captions`` (M,) mean distance of the pairs of each caption, in units of [-1, 1]."""
        _, images = self._ordered("index", "images")
        groups = images.reshape(-1, self.repeats, images[0].numel())  # (M, K, P)
        pairs = torch.combinations(torch.arange(self.repeats)).to(images.device)
        means = []
        for group in groups:
            pixels = group.double() / 127.5
            first, second = pixels[pairs[:, 0]], pixels[pairs[:, 1]]
            means.append((first - second).square().mean(1).sqrt().mean())
        return {"captions": torch.stack(means)}

    def scores(self) -> list[Score]:
        """One number."""
        each = self.compute()["captions"].reshape(-1) / self.between
        value = float(each.mean())
        note = "collapse: pictures of one caption hardly differ" if value < _COLLAPSED else ""
        label = "difference of pictures of one caption, over that of photographs"
        return [Score("caption_diversity", label, value, spread(each), "standard error over captions", note=note)]


def photograph_distance(job: Job) -> float:
    """Mean root mean square between random pairs of photographs: of one class, or of any where no class has two."""
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
