"""Exact agreement of images of drawn flowers with their captions: an accuracy for each attribute."""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, ZooMetric, share_score
from t2i_zoo.metrics.flowers.drawn_captions import read_caption
from t2i_zoo.metrics.flowers.reader import ATTRIBUTES, read_flowers


class Agreement(ZooMetric):
    """Share of images that show what their caption names: petal colour and count, centre colour and background.

    Only attributes that a caption names count. Chance is what images with the same attributes in another order would
    reach: the sum over values of (share of captions that name it) times (share of images that show it).

    Args:
        job: what is evaluated; captions must be those of ``SyntheticFlowers``.
    """

    reads = ("images", "captions")
    needs_captions = True
    table: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if other := next((caption for caption in job.captions if not read_caption(caption)), None):
            raise T2IError(
                f"found the caption {other!r}, expected only those of SyntheticFlowers: use another protocol than "
                "agreement for other data"
            )
        widest = max(map(len, ATTRIBUTES.values()))
        self._accumulate("table", len(ATTRIBUTES), widest, widest)  # named by the caption x shown by the image

    def update(self, images: Tensor, captions: list[str]) -> None:
        """Add images (B, 3, S, S) in [-1, 1] and their captions."""
        if not captions:
            return
        shown = {name: values.tolist() for name, values in read_flowers(images).items()}
        for i, caption in enumerate(captions):
            for name, value in read_caption(caption).items():
                self.table[list(ATTRIBUTES).index(name), value, shown[name][i]] += 1

    def compute(self) -> list[Score]:
        """One score for each attribute that a caption named."""
        value, chance, count = accuracy(self.table)
        return [
            share_score(
                f"agreement.{name}",
                f"agreement of {name.replace('_', ' ')}",
                value[i],
                chance[i],
                int(count[i]),
                f"{int(count[i])} captions name it",
            )
            for i, name in enumerate(ATTRIBUTES)
            if count[i]
        ]


def accuracy(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The share that agrees, chance and the count: each (...) for tables (..., named, shown)."""
    count = table.sum((-2, -1))
    named, shown = (table.sum(dim) / count[..., None] for dim in (-1, -2))
    value = table.diagonal(dim1=-2, dim2=-1).sum(-1) / count
    return value, (named * shown).sum(-1), count
