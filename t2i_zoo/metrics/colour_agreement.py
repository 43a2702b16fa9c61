"""How often the petal colour that a caption names is the one that shows, on real photographs and on drawn pictures."""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.agreement import accuracy
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite, share_error
from t2i_zoo.metrics.colour_captions import COLOURS, petal_colour
from t2i_zoo.metrics.colour_reader import fitted_reader


class ColourAgreement(ZooMetric):
    """Share of pictures whose petals show the colour that their caption names, read by a fit to training photographs.

    Only captions that name one of the seven ``COLOURS`` for petals or flower count. The reader is right about held-out
    photographs not always but often, and that row is the ceiling; chance is what the same pictures would reach with
    their captions in another order.

    Args:
        job: what is evaluated; English captions of flowers, with training photographs to fit the reader on.
    """

    needs_captions = True
    table: Tensor
    seen: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        captions = dict.fromkeys(job.photographs.sentences(job.draws.captions))
        if not any(petal_colour(caption) for caption in captions):
            raise T2IError(
                f"found no caption among {len(captions)} that names one petal colour, such as 'this flower has pink "
                "petals', expected captions of flowers: use another protocol than agreement_colour for other data"
            )
        self._reader = fitted_reader(job.photographs)
        self._accumulate("table", len(COLOURS), len(COLOURS))  # named by the caption x shown by the picture
        self._accumulate("seen", 1)

    def update(self, images: Tensor, captions: list[str]) -> None:
        """Add pictures (B, 3, S, S) in [-1, 1] and their captions."""
        check_finite(images, "pictures")
        self.seen += len(captions)
        named = [petal_colour(caption) for caption in captions]
        if any(named):
            for colour, shown in zip(named, self._reader.read(images).tolist(), strict=True):
                if colour is not None:
                    self.table[COLOURS.index(colour), shown] += 1

    def see(self, view: View) -> None:
        """Take one batch in."""
        self.update(view.images, view.captions)

    def compute(self) -> dict[str, Tensor]:
        """Of all: ``value``, ``chance``, ``count`` of captions that name a colour, and ``seen``, each a number.

        Of each colour (7,): ``each_value`` among the captions that name it, ``each_chance`` and ``each_count``.
        """
        value, chance, count = accuracy(self.table)
        each = self.table.sum(1)
        return {
            "value": value,
            "chance": chance,
            "count": count,
            "seen": self.seen[0],
            "each_value": self.table.diagonal() / each,
            "each_chance": self.table.sum(0) / count,
            "each_count": each,
        }

    def scores(self) -> list[Score]:
        """The share of all, and of each colour that a caption named."""
        found = self.compute()
        count = int(found["count"])
        if not count:  # a few draws of many captions
            raise T2IError("found no drawn caption that names one petal colour, expected some: raise --images")
        label = "agreement of petal colour"
        note = f"{count} of {int(found['seen'])} captions name one colour"
        result = [_score("colour_agreement.all", label, found["value"], found["chance"], count, note)]
        for i, colour in enumerate(COLOURS):
            if count := int(found["each_count"][i]):
                share, chance, note = found["each_value"][i], found["each_chance"][i], f"{count} captions name it"
                result.append(_score(f"colour_agreement.{colour}", f"{label}, {colour}", share, chance, count, note))
        return result


def _score(metric: str, label: str, share: Tensor, chance: Tensor, count: int, note: str) -> Score:
    value = float(share)
    return Score(metric, label, value, share_error(value, count), "standard error", float(chance), note)
