"""The captions of an opened store by their numbers: strings, neighbours, and the features that the cache holds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.data.store import Store
from t2i_zoo.text import TextCache

Words = tuple[Tensor, Tensor]


class CaptionLookup:
    """Captions and features of a store.

    Args:
        store: whose captions.
        cache: of an encoder that has encoded all of them, or None for strings alone.
        words: whether word features are looked up too.
        device: where sentence features are kept; those of words always stay on the host: of COCO they are tens of
            gigabytes.
    """

    def __init__(self, store: Store, cache: TextCache | None, words: bool, device: torch.device) -> None:
        self.store = store
        self.sentences: Tensor | None = None
        self._words: tuple[Any, Any] | None = None
        if cache is None:
            return
        cache.ensure(store.captions)
        with warnings.catch_warnings():  # it may be a read-only mapping of the cache, which nobody writes to
            warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
            self.sentences = torch.from_numpy(cache.sentences(store.captions)).to(device)
        if words:
            self._words = cache.word_rows(store.captions)

    @property
    def has_words(self) -> bool:
        """Whether word features are there."""
        return self._words is not None

    def strings(self, numbers: Tensor) -> list[str]:
        """The first caption of each picture, of (B, K) numbers; blank where the source has none."""
        captions = self.store.captions
        return [captions[i] for i in numbers[:, 0].tolist()] if captions else [""] * len(numbers)

    def neighbours(self, rows: Tensor, numbers: Tensor) -> list[tuple[str, str]]:
        """The captions before and after each first one among those of its picture, cyclically."""
        captions, offsets = self.store.captions, torch.from_numpy(self.store.offsets)
        first, amount = offsets[rows], offsets[rows + 1] - offsets[rows]
        place = numbers[:, 0] - first
        before, after = ((first + (place + step) % amount).tolist() for step in (-1, 1))
        return [(captions[i], captions[j]) for i, j in zip(before, after, strict=True)]

    def sentence(self, numbers: Tensor) -> Tensor:
        """Sentence features (B, D), each the mean over its K captions: (B, K) caption numbers."""
        assert self.sentences is not None
        return self.sentences[numbers[:, 0]] if numbers.shape[1] == 1 else self.sentences[numbers].mean(1)

    def padded_words(self, numbers: Tensor) -> Words:
        """Word features (B, T, W) of each picture's first caption, zeros behind its end, and the mask (B, T)."""
        assert self._words is not None
        flat, offsets = self._words
        first = offsets[numbers[:, 0].numpy()]
        lengths = offsets[numbers[:, 0].numpy() + 1] - first
        mask = np.arange(lengths.max()) < lengths[:, None]
        words = np.zeros((*mask.shape, flat.shape[1]), np.float32)
        words[mask] = flat[(first[:, None] + np.arange(mask.shape[1]))[mask]]
        return torch.from_numpy(words), torch.from_numpy(mask)


def pad_words(rows: Sequence[NDArray[np.float32]]) -> Words:
    """The same from one array (T, W) a caption."""
    mask = np.arange(max(len(row) for row in rows)) < np.array([len(row) for row in rows])[:, None]
    words = np.zeros((*mask.shape, rows[0].shape[1]), np.float32)
    words[mask] = np.concatenate(list(rows))
    return torch.from_numpy(words), torch.from_numpy(mask)
