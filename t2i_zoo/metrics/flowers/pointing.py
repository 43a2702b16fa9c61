"""The pointing game on drawn flowers: whether a colour word attends to the part of the flower that it describes."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite, mean_and_error
from t2i_zoo.metrics.flowers.drawn_captions import named_value
from t2i_zoo.metrics.flowers.masks import FlowerMasks
from t2i_zoo.metrics.pointing import WordEncoder, share_of_maximum
from t2i_zoo.nn.damsm import word_attention

#: the parts of a flower: the attribute that is their colour, and their value in masks
PARTS = {"petals": ("petal_colour", 1), "centre": ("centre_colour", 2)}


class Pointing(ZooMetric):
    """Share of images where the attention of a part's colour word has its maximum on the mask of that part.

    The game is that of Zhang et al. (2016, arXiv 1608.00507), without their margin around the part. Attention is that
    of DAMSM's loss (``t2i_zoo.nn.damsm.word_attention``), resized to the image with a bilinear filter; if several
    positions share the maximum, the share of them on the part counts. Two baselines that ignore the words are reported
    beside it. Chance is the mean area of the part, which a random position hits. The best fixed position is the one
    that is on the part in most of these images, and is a little flattered by that choice.

    Args:
        job: what is evaluated: photographs of ``SyntheticFlowers``, with a DAMSM as the network.
    """

    needs_network = needs_sentences = needs_captions = True
    sums: Tensor
    cover: Tensor
    unread: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if not job.real:
            raise T2IError(
                "pointing compares attention with the masks of drawn flowers, and generated images have none: give "
                "--ckpt real with a config such as --config damsm_synthetic"
            )
        encoder, self._label = job.required_network.dual, job.required_network.label
        if not isinstance(encoder, WordEncoder) or not hasattr(encoder.known, "number"):
            raise T2IError(
                f"pointing needs the attention of single words and {self._label} has no vectors of words and regions: "
                "give a DAMSM, as --network checkpoint:PATH"
            )
        self._encoder: WordEncoder = encoder
        self._photographs: Tensor = job.draws.rows
        self._masks: FlowerMasks = FlowerMasks(job.photographs)
        if all(self._place(caption, "petals") is None for caption in job.captions):
            raise T2IError(
                f"found no petal colour among the words that this {self._label} knows, expected those of drawn "
                "flowers: give a run of a config such as damsm_synthetic to --network checkpoint:PATH"
            )
        self._accumulate("sums", len(PARTS), 4)  # images, hits, squared hits, areas
        self._accumulate("cover", len(PARTS), self._masks.size, self._masks.size)  # images in which a pixel is the part
        self._accumulate("unread", len(PARTS))  # captions whose colour word the network does not read

    def _place(self, caption: str, part: str) -> int | None:
        """Position, among the words that the network reads, of the one for a part's colour; None if there is none."""
        colour = named_value(caption, PARTS[part][0])
        if colour is None or self._encoder.known.number(colour) is None:
            return None
        words = re.findall(r"\w+", caption)
        # a caption may also name a green background
        at = next(i for i, w in enumerate(words) if w == colour and words[i + 1 : i + 2] != ["background"])
        place = sum(self._encoder.known.number(word) is not None for word in words[:at])
        return place if place < self._encoder.hparams["max_words"] else None

    @torch.no_grad()
    def update(self, images: Tensor, captions: list[str], masks: Tensor) -> None:
        """Add images (B, 3, S, S) in [-1, 1], their captions, and masks (B, S, S) as ``FlowerMasks`` reads them."""
        if not captions:
            return
        text = self._encoder.read(captions)
        regions = self._encoder.features(images.to(text.words.device))[0]
        maps = word_attention(regions, text.words, text.mask, self._encoder.hparams["gamma1"])[1]  # (B, T, H, W)
        check_finite(maps, "attention")
        for i, caption in enumerate(captions):
            for p, (part, (attribute, value)) in enumerate(PARTS.items()):
                place = self._place(caption, part)
                if place is None:
                    self.unread[p] += named_value(caption, attribute) is not None
                    continue
                mask = (masks[i] == value).to(self.cover)
                hit = share_of_maximum(maps[i, place], mask.to(maps)).to(self.sums)
                self.sums[p] += torch.stack([torch.ones_like(hit), hit, hit.square(), mask.mean()])
                self.cover[p] += mask

    def see(self, view: View) -> None:
        """Take in one batch."""
        self.update(view.images, view.captions, self._masks.read(self._photographs[view.index]))

    def compute(self) -> list[Score]:
        """For each part that a caption named: the share of hits, and that of the best fixed position."""
        result = []
        for part, (count, *hits, areas), cover, unread in zip(PARTS, self.sums, self.cover, self.unread, strict=True):
            if not count:
                continue
            value, error = mean_and_error(count, *hits)
            area, fixed = float(areas / count), float(cover.max() / count)
            label, note = f"pointing at the {part} ({self._label})", f"{int(count)} captions name their colour"
            note += f", and {int(unread)} in words that are not read" if unread else ""
            result.append(Score(f"pointing.{part}", label, value, error, "standard error", area, note))
            label, note = f"best fixed place on the {part}", "ignores the words; chosen on these images"
            result.append(Score(f"pointing.{part}_fixed", label, fixed, None, "", area, note))
        return result
