"""Shards: tar files in which each image is followed by its captions and their features.

The layout is that of WebDataset: files of one stem belong together. Ours hold ``KEY.png`` at load size, ``KEY.json``
with captions and class, and ``KEY.text.npz`` with the features of the captions; ``index.json`` is beside the shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, islice, zip_longest
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys, tar_file_expander

from t2i_zoo.data.columns import CAPTION_COLUMNS, IMAGE_SUFFIXES, STRAY, TEXT_SUFFIXES, find_columns, missing
from t2i_zoo.data.notes import by_number, counted, some
from t2i_zoo.data.reading import decode_text, lines_of
from t2i_zoo.data.rows import row_label, texts
from t2i_zoo.data.tables import Find
from t2i_zoo.errors import T2IError
from t2i_zoo.text import words_of

FORMAT = 2
INDEX = "index.json"
FEATURES = "text.npz"
_IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
_TEXTS = tuple(suffix[1:] for suffix in TEXT_SUFFIXES)
_EXAMPLES = 64

Keep = Callable[[str], bool]


@dataclass
class Sample:
    """One image of a shard, still encoded."""

    place: str  #: shard and key, for error messages
    key: str  #: its name in the shard
    file: str  #: name of the image file in the shard
    image: bytes  #: the encoded image
    captions: tuple[str, ...]  #: none of them blank
    label: str | None  #: its class as text
    text: bytes | None  #: encoded features of the captions
    lacks: str = ""  #: why it has no caption, as of ``Record``
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
    share: float = 0.0  #: of its images, drawn by a hash of their keys, that is the test split; 0 if it is not divided

    def keeps(self, key: str) -> bool:
        """Whether an image is in this part of the shard."""
        drawn = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest(), "big") / 2**48
        return not self.share or (drawn < self.share) == (self.split == "test")


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
    lacking: int = 0  #: number of images without a caption, where the others have some
    lacks: list[str] = field(default_factory=list)  #: what is wrong with the first of them
    missing: int = 0  #: number of keys without an image
    lost: list[str] = field(default_factory=list)  #: the first of them
    understood: dict[str, str] = field(default_factory=dict)  #: how layout and splits were understood
    remarks: list[str] = field(default_factory=list)  #: what else was noticed
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
            raise T2IError(f"{place} is no index of shards: write the shards again") from error

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


def lost_error(index: ShardIndex, where: object) -> T2IError:
    """The error about images that are missing in shards."""
    missing, are = f"{counted(index.missing, 'image')} of {where}", by_number(index.missing, "is", "are")
    return T2IError(
        f"{missing} {are} missing ({some(index.lost, index.missing)}): write the shards again, "
        "or pass --data.on_bad_image skip to leave them out"
    )


class Survey:
    """Collects what an index says about captions and classes, image by image."""

    def __init__(self) -> None:
        self._labels: set[str | None] = set()
        self._words: set[str] = set()
        self._counts: list[int] = []  # captions of each image
        self._lacks: list[str] = []
        self._lost: list[str] = []
        self._examples: dict[str, dict[str | None, list[str]]] = defaultdict(lambda: defaultdict(list))

    def add(self, split: str, captions: tuple[str, ...], label: str | None, lacks: str = "") -> None:
        """Take in one image."""
        self._labels.add(label)
        self._counts.append(len(captions))
        self._lacks += [lacks] if not captions and len(self._lacks) < _EXAMPLES else []
        if split == "train":
            self._words.update(word for caption in captions for word in words_of(caption))
        if captions and len(kept := self._examples[split][label]) < _EXAMPLES:
            kept.append(captions[0])

    def lose(self, place: str) -> None:
        """Take in a key without an image."""
        self._lost.append(place)

    def index(self, shards: list[Shard], where: str) -> ShardIndex:
        """The index of these shards.

        Raises:
            T2IError: if some images have classes and others have none, or no image has a caption where one is expected.
        """
        labels = sorted(label for label in self._labels if label is not None)
        if labels and None in self._labels:
            raise T2IError(f"some images of {where} have a class and others have none: give all of them one, or none")
        said = [lacks for lacks in self._lacks if lacks]
        if said and not any(self._counts):
            raise T2IError(f"none of the {len(self._counts):,} images of {where} has a caption, such as {said[0]}")
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
            missing=len(self._lost),
            lost=self._lost[:_EXAMPLES],
            lacking=self._counts.count(0) if any(self._counts) else 0,
            lacks=[lacks or "an image without a caption" for lacks in self._lacks] if any(self._counts) else [],
        )


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn whatever is wrong with a shard into one sentence."""
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or next(iter(error.args), error)  # webdataset appends to args
        raise T2IError(f"the shard {place} cannot be read ({reason}): copy or write it again") from error


def read_shard(
    file: BinaryIO, place: str, find: Find | None = None, keep: Keep | None = None, first: int = 0, lost: bool = False
) -> Iterator[Sample]:
    """The images of an opened shard in order.

    Args:
        file: the shard, compressed or not.
        place: its name for error messages.
        find: tells the columns of ``KEY.json``, and with ``caption`` and ``image`` the endings of the files.
        keep: which keys are read; all by default.
        first: number of the first image.
        lost: yield keys without an image too, with no content in place of the image.

    Raises:
        T2IError: if the captions or the class of an image cannot be read.
    """
    find = find or partial(find_columns)
    groups = _groups(file, place, find, keep)
    groups = groups if lost else ((key, files) for key, files in groups if _image_of(files, find))
    for key, files in islice(groups, first, None):
        yield _sample(place, key, files, find)


def _groups(file: BinaryIO, place: str, find: Find, keep: Keep | None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Key and files by their endings of each image."""
    for files in group_by_keys(tar_file_expander([{"url": place, "stream": file}]), lcase=False):
        stem = files.pop("__key__")
        rest = {end: content for end, content in files.items() if not end.startswith("__")}
        for key, own in _split_keys(stem, rest, find):
            if keep is None or keep(key):
                yield key, own


def _split_keys(stem: str, files: dict[str, bytes], find: Find) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The images under one key of webdataset, which ends at the first dot: ``a.b.jpg`` and ``a.c.jpg`` share ``a``."""
    keys: dict[str, dict[str, bytes]] = defaultdict(dict)
    for ending, content in files.items():
        last = FEATURES if ending.endswith(FEATURES) else ending.rpartition(".")[2]
        more = ending[: -len(last)].rstrip(".")
        keys[f"{stem}.{more}" if more else stem][last] = content
    images = [key for key, own in keys.items() if _image_of(own, find)]
    # an image with captions of its own is another image; one without, such as a.mask.png, only belongs to the first
    others = [key for key in images if key != stem and {end.lower() for end in keys[key]} & {*_TEXTS, "json"}]
    if not others and _image_of(files, find):
        yield stem, files
    elif images:
        yield from ((key, keys[key]) for key in images if key == stem or key in others or not others)
    elif not STRAY.match(stem):
        yield stem, files


def _image_of(files: dict[str, bytes], find: Find) -> str | None:
    """The ending of the image among these files."""
    asked = find.keywords.get("image")
    return next((end for end in files if (end == asked if asked else end.lower() in _IMAGES)), None)


def _sample(shard: str, key: str, files: dict[str, bytes], find: Find) -> Sample:
    """The sample of the files of one key, by their endings."""
    place, parts = f"{shard}, {key}", {ending.lower(): content for ending, content in files.items()}
    image = _image_of(files, find)
    if image is None:
        return Sample(f"{place}: no image among {', '.join(files)}", key, "", b"", (), None, None)
    row: dict[str, Any] = {}
    if "json" in parts:
        try:
            row = json.loads(decode_text(parts["json"], place))
        except (ValueError, RecursionError) as error:
            raise T2IError(f"{place}: broken JSON ({error}): write the shard again") from None
        if not isinstance(row, dict):
            raise T2IError(f"{place}: found {type(row).__name__}, expected a JSON object: write the shard again")
    columns, asked = find(tuple(row)), find.keywords.get("caption")
    captions, lacks = texts([row[name] for name in columns.captions], place) if columns.captions else ([], "")
    endings = (asked.lower(),) if asked else _TEXTS
    if not captions and (text := next((parts[ending] for ending in endings if ending in parts), None)) is not None:
        captions, lacks = texts(list(lines_of(decode_text(text, place))), place)
        lacks = lacks and f"{place}: the caption is blank"
    elif not captions and not lacks and (row.keys() - {"class", "label", "split"}):
        lacks = f"{place}: {missing('captions', 'caption', row, asked, CAPTION_COLUMNS)}"
    label = row_label(columns.label and row[columns.label], place)
    if label is None and "cls" in parts:
        label = row_label(decode_text(parts["cls"], place), place)
    return Sample(place, key, f"{key}.{image}", files[image], tuple(captions), label, parts.get(FEATURES), lacks)
