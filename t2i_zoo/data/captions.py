"""Captions of an open store by their numbers: strings, neighbours and cached features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.data.store import Store
from t2i_zoo.text import TextCache
from t2i_zoo.text.cache import CachedRows

Words = tuple[Tensor, Tensor]  #: features (B, T, W) and mask (B, T)
_AT_ONCE = 16_384  # captions whose features cross to a device together


class CaptionLookup:
    """Captions and features of a store.

    Args:
        store: the store that holds the captions.
        cache: features of a text encoder, or None for strings alone.
        words: whether word features are looked up too.
        device: where sentence embeddings are kept; on a CPU they stay in the cache's files and are read batch by batch.
            Word features always stay there: for COCO they are gigabytes.
    """

    def __init__(self, store: Store, cache: TextCache | None, words: bool, device: torch.device) -> None:
        self.store = store
        self.has_words = cache is not None and words
        self._rows = cache.rows(store.captions) if cache is not None else None
        self._table: Tensor | None = None
        if self._rows is not None and device.type != "cpu":
            self._table = _table(self._rows, device)

    @property
    def has_sentences(self) -> bool:
        """Whether there are sentence embeddings."""
        return self._rows is not None

    def strings(self, numbers: Tensor) -> list[str]:
        """The first caption of each image, for (B, K) numbers; blank if the source has none."""
        captions = self.store.captions
        return [captions[i] for i in numbers[:, 0].tolist()] if captions else [""] * len(numbers)

    def neighbours(self, rows: Tensor, numbers: Tensor) -> list[tuple[str, str]]:
        """The captions before and after the first caption of each image, cyclically among those of the image."""
        captions, offsets = self.store.captions, torch.from_numpy(self.store.offsets)
        first, amount = offsets[rows], offsets[rows + 1] - offsets[rows]
        place = numbers[:, 0] - first
        before, after = ((first + (place + step) % amount).tolist() for step in (-1, 1))
        return [(captions[i], captions[j]) for i, j in zip(before, after, strict=True)]

    def sentence(self, numbers: Tensor) -> Tensor:
        """Sentence embeddings (B, D) for (B, K) caption numbers, each the mean over its K captions."""
        if (table := self._table) is not None:
            return table[numbers[:, 0]] if numbers.shape[1] == 1 else table[numbers].mean(1)
        assert self._rows is not None
        return _tensor(self._rows.sentences(numbers.flatten().numpy())).view(*numbers.shape, -1).mean(1)

    def release_pages(self) -> None:
        """Release the memory of the cache's files that were read."""
        if self._rows is not None:
            self._rows.release_pages()

    def padded_words(self, numbers: Tensor) -> Words:
        """Word features and mask of each image's first caption, padded with zeros."""
        assert self._rows is not None
        flat, offsets = self._rows.words(numbers[:, 0].numpy())
        return pad_words(np.split(flat, offsets[1:-1]))


def _table(rows: CachedRows, device: torch.device) -> Tensor:
    """All sentence embeddings on a device, without a copy of all of them on the host."""
    parts = (_tensor(rows.sentences(slice(i, i + _AT_ONCE))) for i in range(0, len(rows), _AT_ONCE))
    first = next(parts)
    table = torch.empty(len(rows), first.shape[1], device=device)
    table[: len(first)] = first
    for number, part in enumerate(parts, start=1):
        table[number * _AT_ONCE :][: len(part)] = part
    return table


def _tensor(rows: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())  # torch warns of read-only ones


def pad_words(rows: Sequence[NDArray[np.float32]]) -> Words:
    """Pad word features with zeros, from one array (T, W) for each caption."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    words = np.zeros((*mask.shape, rows[0].shape[1]), np.float32)
    words[mask] = np.concatenate(rows)
    return torch.from_numpy(words), torch.from_numpy(mask)
