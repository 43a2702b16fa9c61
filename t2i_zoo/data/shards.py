"""Shards: tar files in which each image is followed by its captions and their features.

The layout is that of WebDataset: files of one stem belong together. Ours hold ``KEY.png`` at load size, ``KEY.json``
with captions and class, and ``KEY.text.npz`` with the features of the captions; ``index.json`` is beside the shards.
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain, islice, zip_longest
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys, tar_file_expander

from t2i_zoo.data.reading import decode_text, lines_of
from t2i_zoo.data.rows import CAPTION_KEYS, row_captions, row_label
from t2i_zoo.errors import T2IError
from t2i_zoo.text import words_of

FORMAT = 1
INDEX = "index.json"
FEATURES = "text.npz"
_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
_TEXTS = ("txt", "text", "caption")
_EXAMPLES = 64


@dataclass
class Sample:
    """One image of a shard, still encoded."""

    place: str  #: shard and key, for error messages
    file: str  #: name of the image file in the shard
    image: bytes  #: the encoded image
    captions: tuple[str, ...]  #: at least one, or none for every image of the set
    label: str | None  #: its class as text
    text: bytes | None  #: encoded features of the captions
    number: int = -1  #: position in its split
    class_id: int = -1  #: 0-based class, -1 for none

    def features(self, words: bool = False) -> list[NDArray[Any]]:
        """Features of its K captions: sentences (K, D); on request words (sum T, W) and their offsets (K + 1,) too.

        Raises:
            T2IError: if the shard holds none, or they are damaged.
        """
        try:
            with np.load(io.BytesIO(self.text or b"")) as found:
                parts = [found[name] for name in ("sentence", *(("words", "offsets") if words else ()))]
            if len(parts[0]) != len(self.captions):
                raise ValueError(f"{len(parts[0])} features of {len(self.captions)} captions")
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise T2IError(
                f"{self.place}: the features of the captions cannot be read ({error}): write the shards again"
            ) from error
        return parts


@dataclass
class Shard:
    """A tar file of a set."""

    name: str  #: file name in the folder
    split: str
    pictures: int  #: number of images
    hash: str | None = None  #: ``sha256:...``, if known


@dataclass
class ShardIndex:
    """What is known of a set without reading its shards."""

    shards: list[Shard]  #: sorted by name
    class_names: list[str] | None = None  #: words of the classes by number; None if they are numbers, or absent
    num_classes: int = 0  #: one more than the largest class, 0 without classes
    captions: int = 0  #: number of captions
    vocabulary: list[str] = field(default_factory=list)  #: words of the training captions, sorted
    examples: list[str] = field(default_factory=list)  #: captions of held-out images, of different classes first
    text: dict[str, Any] | None = None  #: fingerprint of the encoder whose features are held, and whether of words too
    load_size: int | None = None  #: side of the images in pixels, if known
    resize: str | None = None  #: how they were brought to that size, if known
    format: int = FORMAT  #: version of this file

    def to_json(self) -> str:
        """The content of the index file."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str, place: str) -> ShardIndex:
        """Read what ``to_json`` has written.

        Raises:
            T2IError: if it is something else, or written by a newer version.
        """
        try:
            content = json.loads(text)
            if content["format"] > FORMAT:
                raise T2IError(f"{place} was written by a newer t2i-zoo (format {content['format']}): upgrade t2i-zoo")
            shards = [Shard(**shard) for shard in content.pop("shards")]
            if not all(isinstance(shard.pictures, int) and "/" not in shard.name for shard in shards):
                raise ValueError
            return cls(shards, **content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise T2IError(f"{place} is no index of shards: write the shards again, or delete it") from error

    def of(self, split: str) -> list[Shard]:
        """The shards of one split."""
        return [shard for shard in self.shards if shard.split == split]

    def pictures(self, split: str) -> int:
        """How many images a split has."""
        return sum(shard.pictures for shard in self.of(split))

    def class_id(self, label: str | None) -> int:
        """The number of a class, -1 for none."""
        if label is None:
            return -1
        return self.class_names.index(label) if self.class_names else int(label)


class Survey:
    """Collects what an index says about captions and classes, image by image."""

    def __init__(self) -> None:
        self._labels: set[str | None] = set()
        self._words: set[str] = set()
        self._counts: list[int] = []  # captions of each image
        self._examples: dict[str, dict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))

    def add(self, split: str, captions: tuple[str, ...], label: str | None) -> None:
        """Take in one image."""
        self._labels.add(label)
        self._counts.append(len(captions))
        if split == "train":
            self._words.update(word for caption in captions for word in words_of(caption))
        if captions and len(kept := self._examples[split][label]) < _EXAMPLES:
            kept.append(captions[0])

    def index(self, shards: list[Shard], where: str) -> ShardIndex:
        """The index of these shards.

        Raises:
            T2IError: if some images have classes or captions and others have none.
        """
        labels = sorted(label for label in self._labels if label is not None)
        mixed = {"class": labels and None in self._labels, "caption": any(self._counts) and not all(self._counts)}
        if what := next((name for name, found in mixed.items() if found), None):
            raise T2IError(f"some images of {where} have a {what} and others have none: give all of them one, or none")
        numbers = all(label.isdecimal() and len(label) < 7 for label in labels)
        held_out = next((self._examples[split] for split in ("test", "val", "train") if self._examples[split]), {})
        examples = [caption for caption in chain(*zip_longest(*held_out.values())) if caption is not None]
        return ShardIndex(
            shards,
            class_names=None if numbers else labels,
            num_classes=max(map(int, labels), default=-1) + 1 if numbers else len(labels),
            captions=sum(self._counts),
            vocabulary=sorted(self._words),
            examples=examples[:_EXAMPLES],
        )


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn whatever is wrong with a shard into one sentence."""
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or next(iter(error.args), error)  # webdataset appends to args
        raise T2IError(f"the shard {place} cannot be read ({reason}): copy or write it again") from error


def read_shard(file: BinaryIO, place: str, first: int = 0) -> Iterator[Sample]:
    """The images of an opened shard in order, from number ``first`` on; ``place`` is its name for error messages.

    Raises:
        T2IError: if the captions or the class of an image cannot be read.
    """
    found = group_by_keys(tar_file_expander([{"url": place, "stream": file}]), lcase=False)
    for files in islice(found, first, None):
        yield _sample(place, files.pop("__key__"), {end: files[end] for end in files if not end.startswith("__")})


def _sample(shard: str, key: str, files: dict[str, bytes]) -> Sample:
    """The sample of the files of one key, by their endings."""
    place, parts = f"{shard}, {key}", {ending.lower(): content for ending, content in files.items()}
    image = next((ending for ending in files if ending.lower() in _IMAGES), None)
    if image is None:
        raise T2IError(f"{place}: no image among {', '.join(files)}, expected one of {', '.join(_IMAGES)}")
    row = {}
    if "json" in parts:
        try:
            row = json.loads(decode_text(parts["json"], place))
        except (ValueError, RecursionError) as error:
            raise T2IError(f"{place}: broken JSON ({error}): write the shard again") from None
        if not isinstance(row, dict):
            raise T2IError(f"{place}: found {type(row).__name__}, expected a JSON object: write the shard again")
    captions: tuple[str, ...] = ()
    if any(name in row for name in CAPTION_KEYS):
        captions = tuple(row_captions(row, place))
    elif text := next((parts[ending] for ending in _TEXTS if ending in parts), None):
        captions = lines_of(decode_text(text, place))
    label = row_label(row, place)
    if label is None and "cls" in parts:
        label = row_label({"class": decode_text(parts["cls"], place)}, place)
    return Sample(place, f"{key}.{image}", files[image], captions, label, parts.get(FEATURES))
