"""Whether a caption writer reads in a picture the petal colour that the picture's caption names."""

from __future__ import annotations

import re

from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.agreement import accuracy, read_caption
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite, share_error
from t2i_zoo.metrics.colour_captions import COLOURS, petal_colour
from t2i_zoo.metrics.flower_reader import ATTRIBUTES

_DRAWN = tuple(map(str, ATTRIBUTES["petal_colour"]))
_CENTRES = "|".join(map(str, ATTRIBUTES["centre_colour"]))
_CENTRE = re.compile(rf"\b(?:{_CENTRES}) (?:centre|middle)\b|\b(?:centre|middle) is (?:{_CENTRES})\b")


class Redescription(ZooMetric):
    """Share of pictures whose description by a caption writer names the petal colour that their caption names.

    The idea is MirrorGAN's (Qiao et al. 2019, arXiv 1903.05854): a picture that follows its text can be described again
    by that text. It is a loss there; here it is counted, by petal colour alone, in greedy descriptions. Captions that
    name no petal colour, or several, do not count; a description that names none, or several, is wrong. Chance is what
    the same descriptions would reach with the captions in another order. The writer errs too: its row for photographs
    is the ceiling. A GAN that was taught by the same writer has it easier.

    Captions of ``SyntheticFlowers`` are read as ``agreement`` reads them, with its eight colours, others by the rule of
    ``colour_captions``, with its seven.

    Args:
        job: what is evaluated; its network must write captions.
    """

    needs_network = needs_captions = True
    table: Tensor
    seen: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if job.looking.captioner is None:
            raise T2IError(
                f"redescription has pictures described and {job.looking.label} writes no captions: give a STREAM, as "
                "--network checkpoint:PATH"
            )
        self._writer, self._label = job.looking.captioner, job.looking.label
        captions = dict.fromkeys(job.photographs.sentences(job.draws.captions))
        self._drawn = all(read_caption(caption) for caption in captions)
        if not any(self._named(caption) for caption in captions):
            raise T2IError(
                f"found no caption among {len(captions)} that names one petal colour, such as 'this flower has pink "
                "petals', expected captions of flowers: use another protocol than redescription for other data"
            )
        self.colours = _DRAWN if self._drawn else COLOURS
        side = len(self.colours) + 1  # the last is none or several, which no caption that counts names
        self._accumulate("table", side, side)  # named by the caption x written by the network
        self._accumulate("seen", 1)

    def _named(self, caption: str) -> str | None:
        """The colour that a caption names."""
        if not self._drawn:
            return petal_colour(caption)
        named = read_caption(caption)
        return _DRAWN[named["petal_colour"]] if "petal_colour" in named else None

    def update(self, images: Tensor, captions: list[str]) -> None:
        """Add pictures (B, 3, S, S) in [-1, 1] and their captions."""
        check_finite(images, "pictures")
        self.seen += len(captions)
        counted = [(i, colour) for i, caption in enumerate(captions) if (colour := self._named(caption))]
        if not counted:
            return
        written = self._writer.describe(images[[i for i, _ in counted]])
        for (_, colour), text in zip(counted, written, strict=True):
            found = drawn_petal_colour(text) if self._drawn else petal_colour(text)
            column = len(self.colours) if found is None else self.colours.index(found)
            self.table[self.colours.index(colour), column] += 1

    def see(self, view: View) -> None:
        """Take one batch in."""
        self.update(view.images, view.captions)

    def compute(self) -> dict[str, Tensor]:
        """Of all: ``value``, ``chance``, ``count`` of captions that name a colour, ``unread`` (the descriptions that
        name none or several) and ``seen``, each a number.

        Of each colour (C,): ``each_value`` among the captions that name it, ``each_chance`` and ``each_count``.
        """
        value, chance, count = accuracy(self.table)
        each = self.table.sum(1)[:-1]
        return {
            "value": value,
            "chance": chance,
            "count": count,
            "unread": self.table[:, -1].sum(),
            "seen": self.seen[0],
            "each_value": self.table.diagonal()[:-1] / each,
            "each_chance": self.table.sum(0)[:-1] / count,
            "each_count": each,
        }

    def scores(self) -> list[Score]:
        """The share of all, and of each colour that a caption named."""
        found = self.compute()
        count, unread, seen = (int(found[key]) for key in ("count", "unread", "seen"))
        if not count:  # a few draws of many captions
            raise T2IError("found no drawn caption that names one petal colour, expected some: raise --images")
        label = f"redescribed petal colour ({self._label})"
        note = f"{count} of {seen} captions name one colour, {unread} of their descriptions none or several"
        result = [_score("redescription.all", label, found["value"], found["chance"], count, note)]
        for i, colour in enumerate(self.colours):
            if count := int(found["each_count"][i]):
                share, chance, note = found["each_value"][i], found["each_chance"][i], f"{count} captions name it"
                result.append(_score(f"redescription.{colour}", f"{label}, {colour}", share, chance, count, note))
        return result


def drawn_petal_colour(text: str) -> str | None:
    """The one petal colour of drawn flowers that a text names apart from the centre's; None for none or several.

    Unlike ``read_caption`` it also reads what a network wrote that has half learned the captions' grammar.
    """
    words = re.findall(r"[a-z]+", _CENTRE.sub(" ", text.lower()))
    found = {word for word in words if word in _DRAWN}
    return found.pop() if len(found) == 1 else None


def _score(metric: str, label: str, share: Tensor, chance: Tensor, count: int, note: str) -> Score:
    value = float(share)
    return Score(metric, label, value, share_error(value, count), "standard error", float(chance), note)
