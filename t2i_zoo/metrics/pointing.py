"""The pointing game: whether a word's attention has its maximum on the part of a drawn flower that it is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.agreement import read_caption
from t2i_zoo.metrics.base import Job, Score, View, ZooMetric, check_finite
from t2i_zoo.metrics.flower_masks import FlowerMasks
from t2i_zoo.metrics.flower_reader import ATTRIBUTES
from t2i_zoo.nn.damsm import word_attention

#: the parts of a flower: which colour of a caption is theirs, and their value in masks
PARTS = {"petals": ("petal_colour", 1), "centre": ("centre_colour", 2)}
_TIE = 1e-6  # of the maximum: places that differ by less than rounding share it


@runtime_checkable
class WordEncoder(Protocol):
    """What pointing needs, in eval mode: vectors of words and of regions in one space, as DAMSM has them.

    Attributes:
        known: the words that it knows; ``known.number(word)`` is None for others, which it leaves out.
        hparams: with ``max_words``, the most words of a caption, and ``gamma1``, the sharpness of attention.
    """

    known: Any
    hparams: Any

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Regions (B, D, H, W) and codes of pictures (B, 3, S, S) in [-1, 1]."""

    def read(self, captions: Sequence[str]) -> Any:
        """``words`` (B, T, D) and ``mask`` (B, T) of captions."""


class Pointing(ZooMetric):
    """Share of pictures where the attention of a part's colour word has its maximum on that part's mask.

    The game is Zhang et al.'s (2016, arXiv 1608.00507), without their margin around the part. Attention
    is that of DAMSM's loss (``t2i_zoo.nn.damsm.word_attention``), brought to the picture's size with a bilinear filter;
    where several places share the maximum, the share of them that lies on the part counts. Beside it stand two that
    look at no word: chance, the part's mean area, is what a random place hits, and the best fixed place is the one that
    lies on the part in the most of these pictures, which flatters it a little.

    Args:
        job: what is evaluated: photographs of ``SyntheticFlowers``, with a DAMSM for the network.
    """

    needs_network = needs_sentences = needs_captions = True
    sums: Tensor
    cover: Tensor
    unread: Tensor

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        if not job.real:
            raise T2IError(
                "pointing holds attention against the masks of drawn flowers, and pictures of a GAN have none: give "
                "--ckpt real with --config damsm_synthetic or the like"
            )
        encoder = job.looking.dual
        if not isinstance(encoder, WordEncoder) or not hasattr(encoder.known, "number"):
            raise T2IError(
                f"pointing asks what single words look at and {job.looking.label} has no vectors of words and regions: "
                "give a DAMSM, as --network checkpoint:PATH"
            )
        self._encoder: WordEncoder = encoder
        self._label: str = job.looking.label
        self._rows: Tensor = job.draws.rows
        self._masks: FlowerMasks = FlowerMasks(job.photographs)
        captions = dict.fromkeys(job.photographs.sentences(job.draws.captions))
        if not any(self._place(caption, "petals") is not None for caption in captions):
            raise T2IError(
                f"found no petal colour among the words that this {self._label} knows, expected those of drawn "
                "flowers: give a run of damsm_synthetic or the like to --network checkpoint:PATH"
            )
        self._accumulate("sums", len(PARTS), 4)  # pictures, hits, their squares, areas
        self._accumulate("cover", len(PARTS), self._masks.size, self._masks.size)  # pictures where a place is the part
        self._accumulate("unread", len(PARTS))  # captions whose colour word the network does not read

    def _place(self, caption: str, part: str) -> int | None:
        """Which of the words that the network reads names a part's colour; None where none does."""
        if (colour := _colour(caption, part)) is None:
            return None
        words = re.findall(r"\w+", caption)
        # a caption may also name a green background
        at = next(i for i, w in enumerate(words) if w == colour and words[i + 1 : i + 2] != ["background"])
        if self._encoder.known.number(colour) is None:
            return None
        place = sum(self._encoder.known.number(word) is not None for word in words[:at])
        return place if place < self._encoder.hparams["max_words"] else None

    @torch.no_grad()
    def update(self, images: Tensor, captions: list[str], masks: Tensor) -> None:
        """Add pictures (B, 3, S, S) in [-1, 1], their captions, and masks (B, S, S) as ``FlowerMasks`` reads them."""
        check_finite(images, "pictures")
        if not captions:
            return
        text = self._encoder.read(captions)
        regions = self._encoder.features(images.to(text.words.device))[0]
        maps = word_attention(regions, text.words, text.mask, self._encoder.hparams["gamma1"])[1]  # (B, T, H, W)
        check_finite(maps, "attention")
        for i, caption in enumerate(captions):
            for p, (part, (_, value)) in enumerate(PARTS.items()):
                place = self._place(caption, part)
                if place is None:
                    self.unread[p] += _colour(caption, part) is not None
                    continue
                mask = (masks[i] == value).to(self.cover)
                hit = share_of_maximum(maps[i, place], mask.to(maps)).to(self.sums)
                self.sums[p] += torch.stack([torch.ones_like(hit), hit, hit.square(), mask.mean()])
                self.cover[p] += mask

    def see(self, view: View) -> None:
        """Take one batch in."""
        self.update(view.images, view.captions, self._masks.read(self._rows[view.index]))

    def compute(self) -> dict[str, Tensor]:
        """``value``, ``error`` (standard), ``area``, ``fixed`` (the best fixed place), ``count`` and ``unread``, each
        (2,) as in ``PARTS``; NaN where no caption names a part's colour, and for the error of fewer than two."""
        count, hits, squares, areas = self.sums.unbind(1)
        variance = ((squares - hits.square() / count) / (count - 1)).clamp(min=0)
        return {
            "value": hits / count,
            "error": (variance / count).sqrt(),
            "area": areas / count,
            "fixed": self.cover.flatten(1).amax(1) / count,
            "count": count,
            "unread": self.unread,
        }

    def scores(self) -> list[Score]:
        """For each part that a caption named: the share of hits, and that of the best fixed place."""
        found = self.compute()
        result = []
        for p, part in enumerate(PARTS):
            value, error, area, fixed = (float(found[key][p]) for key in ("value", "error", "area", "fixed"))
            count, unread = int(found["count"][p]), int(found["unread"][p])
            if not count:
                continue
            label, note = f"pointing at the {part} ({self._label})", f"{count} captions name their colour"
            note += f", and {unread} in words that are not read" if unread else ""
            kind = "standard error"
            result.append(Score(f"pointing.{part}", label, value, error if count > 1 else None, kind, area, note))
            label, note = f"best fixed place on the {part}", "looks at no word; chosen on these pictures"
            result.append(Score(f"pointing.{part}_fixed", label, fixed, None, "", area, note))
        return result


def share_of_maximum(attention: Tensor, mask: Tensor) -> Tensor:
    """How much of the place where attention (H, W) is largest lies on a mask (S, S) of 0 and 1: mostly 0 or 1.

    Attention is enlarged as ``t2i-zoo attention`` draws it. Places that share the maximum count alike, so that even
    attention scores the mask's area.
    """
    enlarged = F.interpolate(attention[None, None], tuple(mask.shape), mode="bilinear", align_corners=False)[0, 0]
    largest = (enlarged >= enlarged.max() * (1 - _TIE)).to(mask)
    return (largest * mask).sum() / largest.sum()


def _colour(caption: str, part: str) -> str | None:
    """The colour that a caption of drawn flowers names for a part."""
    attribute = PARTS[part][0]
    named = read_caption(caption)
    return str(ATTRIBUTES[attribute][named[attribute]]) if attribute in named else None
