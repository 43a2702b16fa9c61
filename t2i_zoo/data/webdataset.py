"""Sets in shards (WebDataset), for what is too large to be packed: streamed from a folder or from the web."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

from t2i_zoo.data.columns import find_columns, split_in
from t2i_zoo.data.download import receive
from t2i_zoo.data.notes import collecting, understood
from t2i_zoo.data.packing import writing
from t2i_zoo.data.reading import left_out, read_text, tree_fingerprint
from t2i_zoo.data.records import Embedded, Record, Source, Split
from t2i_zoo.data.rows import check_share
from t2i_zoo.data.shards import INDEX, Keep, Sample, Shard, ShardIndex, Survey, read_shard, reading
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing

_KINDS = (".tar", ".tar.gz", ".tgz")
_SURVEY = 3  # raise it with any change of what a survey finds


@dataclass
class WebDataset(Source):
    """Tar files with an image, its captions and its class side by side, as ``t2i-zoo prepare --to webdataset`` writes.

    Shards of other tools are read too, compressed or not: ``KEY.jpg`` (png, webp, ...) with ``KEY.txt`` (a caption a
    line) or ``KEY.json`` (with the columns of ``CaptionFolder``), and optionally ``KEY.cls``. The split is that in the
    name of the shard: train, val (or valid, dev) or test. If no name has one, a tenth of the images is the test split,
    drawn by a hash of their keys. Without ``index.json`` beside them they are read once to count what they hold.

    Args:
        root: folder of the shards, or its HTTP address, which needs an index.json.
        stream: read the shards in each epoch, images in the order of a shuffle buffer; false packs them like any other
            source.
        buffer: number of images in the shuffle buffer, from which batches and mismatched pairs are drawn.
        image: ending of the images, such as ``png``; None takes the first usual one.
        caption: column of the captions in ``KEY.json``, or ending of their file; None takes the first usual one.
        val_fraction: share, 0 to below 1, of the images that becomes test if no shard's name has a split.
    """

    root: str = ""
    stream: bool = True
    buffer: int = 2048
    image: str | None = None
    caption: str | None = None
    val_fraction: float = 0.1

    @property
    def remote(self) -> bool:
        """Whether the shards are on the web."""
        return self.root.startswith(("http://", "https://"))

    def place(self, name: str) -> str:
        """Path or address of a file of the set."""
        return f"{self.root.rstrip('/')}/{name}" if self.remote else str(self.path / name)

    @contextmanager
    def _local(self, name: str) -> Iterator[Path]:
        """Path of a file of the set; one on the web is downloaded to a temporary folder while it is read."""
        if not self.remote:
            yield self.path / name
            return
        with tempfile.TemporaryDirectory(prefix="t2i-zoo-") as folder:
            receive(self.place(name), Path(folder) / name)
            yield Path(folder) / name

    def index(self, cache: Path | None = None) -> ShardIndex:
        """What the shards hold, from the index beside them; else they are read, and the result is kept in the cache.

        Raises:
            T2IError: if there are no shards, or one cannot be read.
        """
        if self.remote:
            try:
                with self._local(INDEX) as path:
                    return ShardIndex.from_json(read_text(path), self.place(INDEX))
            except OSError as error:
                raise T2IError(
                    f"{self.place(INDEX)} cannot be read ({error}), and shards on the web need it: write "
                    "them with t2i-zoo prepare --to webdataset, or change --data.source.root"
                ) from error
        if not self.root or not self.path.is_dir():
            found = f"there is no folder {self.path}" if self.root else "no folder of shards is given"
            raise T2IError(f"{found}, expected one with .tar files: set --data.source.root to it")
        if (self.path / INDEX).is_file():
            index = ShardIndex.from_json(read_text(self.path / INDEX), self.place(INDEX))
            for shard in index.shards:
                if not (self.path / shard.name).is_file():
                    raise T2IError(f"there is no shard {self.place(shard.name)}, which {INDEX} lists: copy it again")
            return index
        if cache is None:
            return self._survey()
        content = tree_fingerprint(self.path, left_out(self.path, cache / "shards"))
        asked = f"{self.path.resolve()}{content}{self.image}{self.caption}{self.val_fraction}{_SURVEY}"
        key = hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()
        kept = cache / "shards" / f"{key}.json"
        if kept.is_file():
            return ShardIndex.from_json(read_text(kept), str(kept))
        index = self._survey()
        with writing(cache), replacing(kept) as beside:
            beside.write_text(index.to_json(), "utf-8")
        return index

    def _survey(self) -> ShardIndex:
        """Read all shards once."""
        check_share(self.val_fraction)
        survey, shards = Survey(), []
        names = sorted(path.name for path in self.path.iterdir() if path.name.lower().endswith(_KINDS))
        names = [name for name in names if not name.startswith(".")]  # such as ._train-0.tar of a Mac
        divided = 0.0 if any(map(split_in, names)) else self.val_fraction
        with collecting() as notes:
            understood("split", "by the names of the shards")
            if divided:
                understood("split", f"{divided:g} of the images for test, by a hash of their keys")
            for name in names:
                parts = [Shard(name, split, 0, None, divided) for split in ("train", "test")] if divided else []
                parts = parts or [Shard(name, split_in(name) or "train", 0)]
                for sample in self._read(name, lost=True):
                    if not sample.file:
                        survey.lose(sample.place)
                        continue
                    part = next(part for part in parts if part.keeps(sample.key))
                    survey.add(part.split, sample.captions, sample.label, sample.lacks)
                    part.pictures += 1
                shards += [part for part in parts if part.pictures or not divided]
        if not any(shard.pictures for shard in shards):
            found = "the shards of {} hold no image" if names else "{} has no .tar file, expected shards"
            raise T2IError(f"{found.format(self.path)}: change --data.source.root")
        index = survey.index(shards, str(self.path))
        index.understood, index.remarks = notes.facts, notes.remarks()
        return index

    def _read(self, name: str, keep: Keep | None = None, first: int = 0, lost: bool = False) -> Iterator[Sample]:
        place = self.place(name)
        find = partial(find_columns, image=self.image, caption=self.caption)
        with reading(place), self._local(name) as path, path.open("rb") as file:
            yield from read_shard(file, place, find, keep, first, lost)

    def samples(self, index: ShardIndex, shard: Shard, first: int = 0) -> Iterator[Sample]:
        """The images of one shard in order, from number ``first`` on.

        Raises:
            T2IError: if the shard cannot be read, or holds fewer than the index says.
        """
        split = index.of(shard.split)
        start, count = sum(other.pictures for other in split[: split.index(shard)]), first
        limit = shard.pictures - first
        for count, sample in enumerate(islice(self._read(shard.name, shard.keeps, first), limit), first + 1):
            sample.class_id, sample.number = index.class_id(sample.label), start + count - 1
            yield sample
        if count < shard.pictures:
            raise T2IError(
                f"the shard {self.place(shard.name)} holds {count} images and {INDEX} says {shard.pictures}: copy or "
                "write it again"
            )

    def records(self) -> list[Record]:
        """List all images, for packing; each is read from its shard when it is needed.

        Raises:
            T2IError: if the shards are on the web, or one cannot be read.
        """
        if self.remote:
            raise T2IError(f"{self.root} is on the web and cannot be packed: leave out --data.source.stream false")
        index, records = self.index(), []
        for title, how in index.understood.items():
            understood(title, how)
        for shard in index.shards:
            place = self.place(shard.name)
            with reading(place):
                plain = self._plain(shard.name)
                with tarfile.open(plain, "r:") as archive:
                    spans = {member.name: (member.offset_data, member.size) for member in archive}
            for sample in self.samples(index, shard):
                image = Embedded(sample.place, partial(_read, plain, *spans[sample.file]))
                label = sample.class_id if sample.class_id >= 0 else None
                split = cast("Split", shard.split)
                records.append(Record(image, sample.captions, label, None, split, sample.lacks))
        return records + [Record(Path(lost), (), lost=lost) for lost in index.lost]

    def _plain(self, name: str) -> str:
        """Path of a shard that is not compressed; a compressed one is unpacked until the source is let go."""
        if name.endswith(".tar"):
            return self.place(name)
        if "_unpacked" not in vars(self):
            self._unpacked = tempfile.TemporaryDirectory(prefix="t2i-zoo-")
        path = Path(self._unpacked.name) / f"{name}.tar"
        if not path.is_file():
            with gzip.open(self.place(name)) as packed, replacing(path) as beside, beside.open("wb") as file:
                shutil.copyfileobj(packed, file)
        return str(path)

    def options(self) -> dict[str, Any]:
        """Options that decide what a store holds; ``buffer`` and ``stream`` do not."""
        return {name: value for name, value in super().options().items() if name not in ("buffer", "stream")}


def _read(shard: str, first: int, length: int) -> bytes:
    """Some bytes of a shard."""
    with Path(shard).open("rb") as file:
        file.seek(first)
        return file.read(length)
