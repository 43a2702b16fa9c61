"""What the measures of petal colour share: a table of the colours that captions name and that images show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, ZooMetric, share_score
from t2i_zoo.metrics.flowers.agreement import accuracy


class ColourShares(ZooMetric):
    """Share of images whose petals show the colour that their caption names; a subclass says how images are read.

    Captions that name no petal colour, or several, do not count. Chance is what the same images would reach with their
    captions in another order.

    Args:
        job: what is evaluated.
        label: name of the score in tables.
        colours: the C colours.
        named: returns the one of ``colours`` that a caption names, or None.
        unread: whether ``read`` may find none of the colours, as number C.
    """

    reads = ("images", "captions")
    needs_captions = True
    metric: ClassVar[str]  #: key of the metric
    table: Tensor
    seen: Tensor

    def __init__(
        self, job: Job, label: str, colours: Sequence[str], named: Callable[[str], str | None], unread: bool = False
    ) -> None:
        super().__init__(job)
        if not any(map(named, captions := job.captions)):
            raise T2IError(
                f"found no caption among {len(captions)} that names one petal colour, such as 'this flower has pink "
                f"petals', expected captions of flowers: use a protocol without {self.metric} for other data"
            )
        self.label, self.colours, self._named = label, list(colours), named
        side = len(self.colours) + unread
        self._accumulate("table", side, side)  # named by the caption x shown by the image
        self._accumulate("seen", 1)

    def read(self, images: Tensor) -> list[int]:
        """The number in ``colours`` that each image (B, 3, S, S) in [-1, 1] shows."""
        raise NotImplementedError

    def update(self, images: Tensor, captions: list[str]) -> None:
        """Add images (B, 3, S, S) in [-1, 1] and their captions."""
        self.seen += len(captions)
        counted = [(i, colour) for i, caption in enumerate(captions) if (colour := self._named(caption))]
        if not counted:
            return
        for (_, colour), shown in zip(counted, self.read(images[[i for i, _ in counted]]), strict=True):
            self.table[self.colours.index(colour), shown] += 1

    def note(self, count: int, seen: int, unread: int) -> str:
        """What the score of all colours says of its captions."""
        return f"{count} of {seen} captions name one colour"

    def compute(self) -> list[Score]:
        """The share of all captions that name a colour, and of those of each colour that a caption named."""
        value, chance, total = accuracy(self.table)
        if not (count := int(total)):  # a few draws of many captions
            raise T2IError("found no drawn caption that names one petal colour, expected some: raise --images")
        note = self.note(count, int(self.seen[0]), int(self.table[:, len(self.colours) :].sum()))
        result = [share_score(f"{self.metric}.all", self.label, value, chance, count, note)]
        named, shown = self.table.sum(1), self.table.sum(0)
        for i, colour in enumerate(self.colours):
            if own := int(named[i]):
                name, label, note = f"{self.metric}.{colour}", f"{self.label}, {colour}", f"{own} captions name it"
                share, chance = self.table[i, i] / named[i], shown[i] / total
                result.append(share_score(name, label, share, chance, own, note))
        return result
