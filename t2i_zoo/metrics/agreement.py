"""Exact agreement of drawn flowers with their captions: each attribute an accuracy, with chance beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from t2i_zoo.data.drawing import CENTRE_COLOURS, PETAL_COLOURS, PETAL_SHAPES
from t2i_zoo.data.synthetic import COUNT_WORDS, PHRASINGS, PLACES
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite, share_error
from t2i_zoo.metrics.flower_reader import ATTRIBUTES, read_flowers

_NAMED: dict[str, dict[str, str | int]] = {  # the words of captions for each attribute's values
    "petal_colour": {colour: colour for colour in PETAL_COLOURS},
    "petal_count": {word: count for count, word in COUNT_WORDS.items()},
    "centre_colour": {colour: colour for colour in CENTRE_COLOURS},
    "background": {phrase: background for background, phrase in PLACES.items()},
}
_FIELDS = {"colour": "petal_colour", "count": "petal_count", "centre": "centre_colour", "place": "background"}


def _pattern(phrasing: str) -> re.Pattern[str]:
    """What a phrasing's captions look like, a group for each attribute that it names."""
    groups = {field: f"(?P<{name}>{'|'.join(_NAMED[name])})" for field, name in _FIELDS.items()}
    return re.compile(phrasing.replace("a {", "an? {").format(**groups, shape=f"(?:{'|'.join(PETAL_SHAPES)})"))


_PATTERNS = [_pattern(phrasing) for phrasing in PHRASINGS]


class Agreement(ZooMetric):
    """Share of pictures that show what their caption names, for petal colour and count, centre colour and background.

    Only attributes that a caption names count. Chance is what pictures with the same attributes in another order would
    reach: the sum over values of (share of captions that name it) times (share of pictures that show it).

    Args:
        job: what is evaluated; captions must be those of ``SyntheticFlowers``.
    """

    needs_captions = True
    table: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        captions = dict.fromkeys(job.photographs.sentences(job.draws.captions))
        if other := next((caption for caption in captions if not read_caption(caption)), None):
            raise T2IError(
                f"found the caption {other!r}, expected those of SyntheticFlowers alone: use another protocol than "
                "agreement for other data"
            )
        widest = max(map(len, ATTRIBUTES.values()))
        self._accumulate("table", len(ATTRIBUTES), widest, widest)  # named by the caption x shown by the picture

    def update(self, images: Tensor, captions: list[str]) -> None:
        """Add pictures (B, 3, S, S) in [-1, 1] and their captions."""
        check_finite(images, "pictures")
        if not captions:
            return
        shown = {name: values.tolist() for name, values in read_flowers(images).items()}
        for i, caption in enumerate(captions):
            for name, value in read_caption(caption).items():
                self.table[list(ATTRIBUTES).index(name), value, shown[name][i]] += 1

    def see(self, view: View) -> None:
        """Take one batch in."""
        self.update(view.images, view.captions)

    def compute(self) -> dict[str, Tensor]:
        """``value``, ``chance`` and ``count`` of captions, (4,) as in ``ATTRIBUTES``; NaN if none names it."""
        value, chance, count = accuracy(self.table)
        return {"value": value, "chance": chance, "count": count}

    def scores(self) -> list[Score]:
        """One number for each attribute that a caption named."""
        found = self.compute()
        result = []
        for i, name in enumerate(ATTRIBUTES):
            value, chance, count = (float(found[key][i]) for key in ("value", "chance", "count"))
            if count:
                error, note = share_error(value, int(count)), f"{int(count)} captions name it"
                label = f"agreement of {name.replace('_', ' ')}"
                result.append(Score(f"agreement.{name}", label, value, error, "standard error", chance, note))
        return result


def accuracy(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Share that agrees, the share that would by chance, and the count: each (...) for tables (..., named, shown)."""
    count = table.sum((-2, -1))
    named, shown = (table.sum(dim) / count[..., None] for dim in (-1, -2))
    return table.diagonal(dim1=-2, dim2=-1).sum(-1) / count, (named * shown).sum(-1), count


def read_caption(caption: str) -> Mapping[str, int]:
    """What a caption of the synthetic flowers names: attribute to index in ``ATTRIBUTES``; empty for other captions."""
    for pattern in _PATTERNS:
        if match := pattern.fullmatch(caption):
            named = match.groupdict().items()
            return {name: ATTRIBUTES[name].index(_NAMED[name][word]) for name, word in named}
    return {}
