"""Shards: tar files in which each picture is followed by its captions, and their features; read and written in order.

The layout is that of WebDataset: files of one stem belong together. Ours hold ``KEY.png`` at load size, ``KEY.json``
with captions and class, and ``KEY.text.npz`` with the features of the captions; ``index.json`` lies beside the shards.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.data.reading import decode_text, lines_of
from t2i_zoo.data.rows import CAPTION_KEYS, row_captions, row_label
from t2i_zoo.data.web import WebFile
from t2i_zoo.errors import T2IError
from t2i_zoo.text import words_of

FORMAT = 1
INDEX = "index.json"
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
TEXTS = ("txt", "text", "caption")
FEATURES = "text.npz"
_EXAMPLES = 64


class Features(NamedTuple):
    """Features of one picture's K captions: sentence (K, D), words (sum T, W), first word of each (K + 1,)."""

    sentence: NDArray[np.float32]
    words: NDArray[np.float32] | None = None
    offsets: NDArray[np.int64] | None = None


@dataclass
class Sample:
    """One picture of a shard, still encoded.

    Attributes:
        place: shard and key, for sentences.
        image: the encoded picture.
        captions: at least one, or none for every picture of the set.
        label: its class as text, or None.
        text: encoded features of the captions, or None.
        number: position in its split.
        class_id: 0-based class, -1 where there is none.
        pixels: (H, W, 3) uint8, where somebody has decoded it already.
        span: first byte and length of the encoded picture in its shard.
    """

    place: str
    image: bytes
    captions: tuple[str, ...]
    label: str | None
    text: bytes | None = None
    number: int = -1
    class_id: int = -1
    pixels: NDArray[np.uint8] | None = None
    span: tuple[int, int] = (0, 0)

    def features(self) -> Features:
        """The features of its captions.

        Raises:
            T2IError: where the shard's are damaged or missing.
        """
        try:
            with np.load(io.BytesIO(self.text or b"")) as found:
                parts = {name: found[name] for name in found.files}
            features = Features(parts["sentence"], parts.get("words"), parts.get("offsets"))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise T2IError(
                f"{self.place}: the features of the captions cannot be read: write the shards again"
            ) from error
        if len(features.sentence) != len(self.captions):
            raise T2IError(f"{self.place}: {len(features.sentence)} features of {len(self.captions)} captions")
        return features


@dataclass
class Shard:
    """A tar file: its name in the folder, split, number of pictures, and hash where it is known."""

    name: str
    split: str
    pictures: int
    hash: str | None = None


@dataclass
class ShardIndex:
    """What is known of a set without reading its shards.

    Attributes:
        shards: in the order of their names.
        class_names: words of the classes by number, or None where classes are numbers or absent.
        num_classes: one more than the largest class, 0 without classes.
        captions: how many there are.
        vocabulary: words of the training captions, sorted.
        examples: captions of held-out pictures, of different classes first.
        text: fingerprint of the encoder whose features the shards hold, and whether of words too; or None.
        load_size: side of the pictures, where it is known.
        resize: how they were brought to it, where that is known.
        format: version of this file.
    """

    shards: list[Shard]
    class_names: list[str] | None = None
    num_classes: int = 0
    captions: int = 0
    vocabulary: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    text: dict[str, Any] | None = None
    load_size: int | None = None
    resize: str | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """As the index file has it."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str, place: str) -> ShardIndex:
        """What ``to_json`` has written.

        Raises:
            T2IError: where it is something else, or of a newer version.
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
        """How many pictures a split has."""
        return sum(shard.pictures for shard in self.of(split))

    def class_id(self, label: str | None) -> int:
        """The number of a class, -1 for none."""
        if label is None:
            return -1
        return self.class_names.index(label) if self.class_names else int(label)


class Survey:
    """Gathers what an index says of captions and classes, picture by picture."""

    def __init__(self) -> None:
        self._labels: set[str | None] = set()
        self._words: set[str] = set()
        self._captions = 0
        self._captioned: set[bool] = set()
        self._examples: dict[str, dict[str | None, list[str]]] = {"train": {}, "val": {}, "test": {}}

    def add(self, split: str, captions: tuple[str, ...], label: str | None) -> None:
        """Take in one picture."""
        self._labels.add(label)
        self._captions += len(captions)
        self._captioned.add(bool(captions))
        if split == "train":
            self._words |= {word for caption in captions for word in words_of(caption)}
        kept = self._examples[split].setdefault(label, [])
        if captions and len(kept) < _EXAMPLES:
            kept.append(captions[0])

    def index(self, shards: list[Shard], where: str, text: dict[str, Any] | None = None) -> ShardIndex:
        """The index.

        Raises:
            T2IError: where some pictures have classes or captions and others have none.
        """
        for what, mixed in (
            ("class", None in self._labels and len(self._labels) > 1),
            ("caption", len(self._captioned) > 1),
        ):
            if mixed:
                raise T2IError(
                    f"some pictures of {where} have a {what} and others have none: give all of them one, or none"
                )
        labels = sorted(label for label in self._labels if label is not None)
        numbers = all(label.isdecimal() and len(label) < 7 for label in labels)
        names = None if numbers else labels
        count = max(map(int, labels), default=-1) + 1 if numbers else len(labels)
        held_out = next((self._examples[s] for s in ("test", "val", "train") if any(self._examples[s].values())), {})
        rounds = [captions[i] for i in range(_EXAMPLES) for captions in held_out.values() if i < len(captions)]
        return ShardIndex(shards, names, count, self._captions, sorted(self._words), rounds[:_EXAMPLES], text)


def read_shard(place: str, first: int = 0) -> Iterator[Sample]:
    """The pictures of a shard in order, the first ones left out.

    Args:
        place: path or http address of the tar file.
        first: how many are left out.

    Raises:
        T2IError: where the shard cannot be read, or a picture in it has no captions that can be.
    """
    web = place.startswith(("http://", "https://"))
    count = -1
    key: str | None = None
    parts: dict[str, bytes] = {}
    span = (0, 0)
    try:
        with WebFile(place) if web else Path(place).open("rb") as file:
            # a stream of the web is only read forward; in a file the rest of a picture that is left out is skipped
            with tarfile.open(fileobj=file, mode="r|" if web else "r:") as archive:
                for member in archive:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, kind = name.partition(".")
                    if not member.isfile() or not stem or stem.startswith("__"):
                        continue
                    if (found := f"{folder}/{stem}") != key:
                        if parts:
                            yield _sample(f"{place}, {key}", parts, span)
                        key, parts, count = found, {}, count + 1
                    if count >= first and (content := archive.extractfile(member)) is not None:
                        parts[kind.lower()] = content.read()
                        if len(parts[kind.lower()]) < member.size:
                            raise EOFError("it is cut off")
                        span = (member.offset_data, member.size) if kind.lower() in PICTURES else span
            if parts:
                yield _sample(f"{place}, {key}", parts, span)
    except (tarfile.TarError, EOFError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise T2IError(f"the shard {place} cannot be read ({reason}): copy or write it again") from error


def _sample(place: str, parts: dict[str, bytes], span: tuple[int, int]) -> Sample:
    """The parts of one picture by their endings."""
    place = place.replace(", /", ", ")
    image = next((parts[kind] for kind in PICTURES if kind in parts), None)
    if image is None:
        raise T2IError(f"{place}: no picture among {', '.join(parts)}, expected one of {', '.join(PICTURES)}")
    captions: tuple[str, ...] = ()
    label = None
    if "json" in parts:
        try:
            row = json.loads(decode_text(parts["json"], place))
        except (ValueError, RecursionError) as error:
            raise T2IError(f"{place}: broken JSON ({error}): write the shard again") from None
        if not isinstance(row, dict):
            raise T2IError(f"{place}: found {type(row).__name__}, expected a JSON object: write the shard again")
        if any(name in row for name in CAPTION_KEYS):
            captions = tuple(row_captions(row, place))
        label = row_label(row, place)
    for kind in TEXTS:
        if kind in parts and not captions:
            captions = lines_of(decode_text(parts[kind], place))
    if "cls" in parts and label is None:
        label = row_label({"class": decode_text(parts["cls"], place)}, place)
    return Sample(place, image, captions, label, parts.get(FEATURES), span=span)
