"""Whether a captioner reads from an image the petal colour that the caption of the image names."""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.data.drawing import PETAL_COLOURS
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job
from t2i_zoo.metrics.flowers.colour_captions import COLOURS, petal_colour
from t2i_zoo.metrics.flowers.colour_shares import ColourShares
from t2i_zoo.metrics.flowers.drawn_captions import named_value, read_caption, written_petal_colour


def _drawn_colour(caption: str) -> str | None:
    return named_value(caption, "petal_colour")


class Redescription(ColourShares):
    """Share of images whose description by a captioner names the petal colour that their caption names.

    The idea is MirrorGAN's (Qiao et al. 2019, arXiv 1903.05854): an image that matches its text can be described again
    by that text. There it is a loss; here matches of the petal colour are counted, in greedy descriptions. Captions
    that name no petal colour, or several, do not count; a description that names none, or several, is wrong. The
    captioner makes mistakes too, so its score for photographs is the ceiling. A GAN that was trained with the same
    captioner has an advantage.

    Captions of ``SyntheticFlowers`` are read as by ``agreement``, with its eight colours; all others by the rule of
    ``colour_captions``, with its seven.

    Args:
        job: what is evaluated; its network must be a captioner.
    """

    metric = "redescription"
    needs_network = True

    def __init__(self, job: Job) -> None:
        network = job.required_network
        if network.captioner is None:
            raise T2IError(
                f"redescription needs descriptions of images and {network.label} writes no captions: give a STREAM, as "
                "--network checkpoint:PATH"
            )
        drawn = all(map(read_caption, job.captions))
        colours, named = (tuple(PETAL_COLOURS), _drawn_colour) if drawn else (COLOURS, petal_colour)
        super().__init__(job, f"redescribed petal colour ({network.label})", colours, named, unread=True)
        self._captioner = network.captioner
        self._described = written_petal_colour if drawn else petal_colour

    def read(self, images: Tensor) -> list[int]:
        """The number in ``colours`` that the description of each image (B, 3, S, S) in [-1, 1] names."""
        found = map(self._described, self._captioner.describe(images))
        return [len(self.colours) if colour is None else self.colours.index(colour) for colour in found]

    def note(self, count: int, seen: int, unread: int) -> str:
        """What the score of all colours says of its captions and descriptions."""
        return f"{super().note(count, seen, unread)}, {unread} of their descriptions none or several"
