"""How often images show the petal colour that their caption names, for real and generated flowers."""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.metrics.base import Job
from t2i_zoo.metrics.flowers.colour_captions import COLOURS, petal_colour
from t2i_zoo.metrics.flowers.colour_reader import fitted_reader
from t2i_zoo.metrics.flowers.colour_shares import ColourShares


class ColourAgreement(ColourShares):
    """Share of images whose petals show the colour that their caption names, read by a fit to training photographs.

    Only captions that name one of the seven ``COLOURS`` for petals or flower count. The reader makes mistakes on
    held-out photographs too, so their score is the ceiling.

    Args:
        job: what is evaluated; English captions of flowers, with training photographs to fit the reader to.
    """

    metric = "colour_agreement"

    def __init__(self, job: Job) -> None:
        super().__init__(job, "agreement of petal colour", COLOURS, petal_colour)
        self._reader = fitted_reader(job.photographs)

    def read(self, images: Tensor) -> list[int]:
        """The number in ``COLOURS`` that each image (B, 3, S, S) in [-1, 1] shows."""
        found: list[int] = self._reader.read(images).tolist()
        return found
