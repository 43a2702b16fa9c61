"""What ``prepare`` understood of a data set: in words, and as a page of images with their captions."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.data.images import ImageError
from t2i_zoo.data.packing import StoreSpec, load
from t2i_zoo.data.records import Embedded, Record
from t2i_zoo.data.shards import ShardIndex
from t2i_zoo.data.store import Store
from t2i_zoo.data.usable import SPLITS
from t2i_zoo.data.webdataset import WebDataset
from t2i_zoo.pictures import caption_grid, save_beside

_SHOWN, _COLUMNS = 16, 4  # images of a preview
_CAPTIONS, _LETTERS = 3, 160  # of each image
_SKIPPED = 20  # lines about single images

Shown = tuple[NDArray[np.uint8], str]  #: an image (H, W, 3) and what is printed below it


def explained(facts: Mapping[str, str], counts: Sequence[float], captions: Iterable[str]) -> Iterator[str]:
    """Lines about layout, splits, captions and their scripts.

    Args:
        facts: of the source, by title.
        counts: captions of each image, or their mean alone.
        captions: all captions, or some of them.
    """
    yield from (f"{title}: {how}" for title, how in facts.items())
    if not any(counts):
        yield "captions: none, for models without text alone"
        return
    low, high = min(counts), max(counts)
    each = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    yield f"captions: {each} for each image, in {' and '.join(scripts(captions)) or 'no'} letters"


def scripts(captions: Iterable[str]) -> list[str]:
    """The scripts of the letters in captions, the most frequent first, such as ``["Latin", "Cyrillic"]``."""
    letters: Counter[str] = Counter()
    for caption in captions:
        letters.update(caption)
    found: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            found[unicodedata.name(letter, "unknown").split()[0].capitalize()] += count
    return [name for name, _ in found.most_common()]


def left_out(skipped: Sequence[str]) -> Iterator[str]:
    """A line for each of the first images that were left out."""
    yield from (f"skipped: {sentence}" for sentence in skipped[:_SKIPPED])
    if len(skipped) > _SKIPPED:
        yield f"skipped: {len(skipped) - _SKIPPED:,} more"


def preview_of_store(store: Store) -> Path:
    """Draw images of all splits and classes as ``preview.png`` in the store's folder."""
    order = np.lexsort((store.labels, store.splits))
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).astype(int))]
    shown = [
        (store.image(row), _below(SPLITS[store.splits[row]], int(store.labels[row]), store.captions_of(row)))
        for row in rows.tolist()
    ]
    return _draw(shown, store.folder / "preview.png")


def preview_of_shards(source: WebDataset, index: ShardIndex, spec: StoreSpec, path: Path) -> Path | None:
    """Draw the first images of each split; None if the shards are on the web or no image can be read."""
    shown: list[Shown] = []
    splits = [split for split in SPLITS if index.pictures(split)]
    for split in () if source.remote else splits:
        shard = next(shard for shard in index.of(split) if shard.pictures)
        for sample in islice(source.samples(index, shard), _SHOWN // len(splits)):
            record = Record(Embedded(sample.place, lambda content=sample.image: content), sample.captions)  # type: ignore[misc]
            try:
                shown.append((load(spec, record), _below(split, sample.class_id, sample.captions)))
            except ImageError:
                continue
    return _draw(shown, path) if shown else None


def _below(split: str, label: int, captions: Sequence[str]) -> str:
    """The split, class and captions of an image."""
    texts = [text if len(text) <= _LETTERS else f"{text[:_LETTERS]}..." for text in captions[:_CAPTIONS]]
    more = f" (and {len(captions) - _CAPTIONS} more)" if len(captions) > _CAPTIONS else ""
    return f"[{split}{f', class {label}' if label >= 0 else ''}] {' | '.join(texts)}{more}"


def _draw(shown: Sequence[Shown], path: Path) -> Path:
    rows = [shown[i : i + _COLUMNS] for i in range(0, len(shown), _COLUMNS)]
    pixels = [torch.stack([_square(image) for image, _ in row]) for row in rows]
    return save_beside(caption_grid(pixels, [""] * len(rows), notes=[[note for _, note in row] for row in rows]), path)


def _square(image: NDArray[np.uint8]) -> Tensor:
    """The middle of an image as (3, S, S) in [-1, 1]."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return torch.from_numpy(image[top : top + side, left : left + side].copy()).permute(2, 0, 1) / 127.5 - 1
