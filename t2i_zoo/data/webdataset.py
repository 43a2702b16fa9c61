"""Sets in shards (WebDataset), for what is too large to be packed: streamed from a folder or from the web."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from t2i_zoo.data.reading import left_out, read_text, tree_fingerprint
from t2i_zoo.data.records import Embedded, Record, Source, Split
from t2i_zoo.data.shards import INDEX, Sample, Shard, ShardIndex, Survey, read_shard
from t2i_zoo.data.web import fetched_text
from t2i_zoo.errors import T2IError

_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "dev": "val", "test": "test"}  # by how a name begins


@dataclass
class WebDataset(Source):
    """Tar files with a picture, its captions and its class side by side, as ``t2i-zoo prepare --to webdataset`` writes.

    Any other shards of the library webdataset are read too: ``KEY.jpg`` (png, webp, ...) with ``KEY.txt`` (a caption a
    line) or ``KEY.json`` (``caption`` or ``captions``, and ``class``), and optionally ``KEY.cls``. Their split is how
    the name of the shard begins: train, val (or dev) or test, else train. Without ``index.json`` beside them they are
    read once to count what they hold.

    Args:
        root: folder of the shards, or its http address, which needs an index.json.
        stream: read the shards in each epoch, pictures in the order of a shuffle buffer; false packs them like any
            other source.
        buffer: pictures in the shuffle buffer, of which batches and mismatched pairs are drawn.
    """

    root: str = ""
    stream: bool = True
    buffer: int = 2048

    @property
    def remote(self) -> bool:
        """Whether the shards lie on the web."""
        return self.root.startswith(("http://", "https://"))

    def place(self, name: str) -> str:
        """Path or address of a file of the set."""
        return f"{self.root.rstrip('/')}/{name}" if self.remote else str(self.path / name)

    def index(self, cache: Path | None = None) -> ShardIndex:
        """What the shards hold, from the index beside them; else they are read, and it is kept in the cache folder.

        Raises:
            T2IError: where there are no shards, or one cannot be read.
        """
        if self.remote:
            return ShardIndex.from_json(fetched_text(self.place(INDEX)), self.place(INDEX))
        if not self.root or not self.path.is_dir():
            found = f"there is no folder {self.path}" if self.root else "no folder of shards is given"
            raise T2IError(f"{found}, expected one with .tar files: set --data.source.root to it")
        if (self.path / INDEX).is_file():
            index = ShardIndex.from_json(read_text(self.path / INDEX), self.place(INDEX))
            for shard in index.shards:
                if not Path(self.place(shard.name)).is_file():
                    raise T2IError(f"there is no shard {self.place(shard.name)}, which {INDEX} lists: copy it again")
            return index
        names = sorted(path.name for path in self.path.glob("*.tar"))
        if not names:
            raise T2IError(f"{self.path} has no .tar file, expected shards: change --data.source.root")
        if cache is None:
            return self._survey(names)
        content = tree_fingerprint(self.path, left_out(self.path, cache / "shards"))
        key = hashlib.blake2b(f"{self.path.resolve()}{content}".encode(), digest_size=8).hexdigest()
        kept = cache / "shards" / f"{key}.json"
        if kept.is_file():
            return ShardIndex.from_json(read_text(kept), str(kept))
        index = self._survey(names)
        from t2i_zoo.data.packing import writing

        with writing(cache):
            kept.parent.mkdir(parents=True, exist_ok=True)
            beside = kept.with_suffix(f".unfinished-{uuid.uuid4().hex[:8]}")  # several runs may begin at once
            beside.write_text(index.to_json(), "utf-8")
            beside.replace(kept)
        return index

    def _survey(self, names: list[str]) -> ShardIndex:
        """Read all shards once."""
        survey, shards = Survey(), []
        for name in names:
            split = next((split for begin, split in _SPLITS.items() if name.startswith(begin)), "train")
            shards.append(Shard(name, split, 0))
            for sample in read_shard(self.place(name)):
                survey.add(split, sample.captions, sample.label)
                shards[-1].pictures += 1
        if not any(shard.pictures for shard in shards):
            raise T2IError(f"the shards of {self.path} hold no picture: change --data.source.root")
        return survey.index(shards, str(self.path))

    def samples(self, index: ShardIndex, shard: Shard, first: int = 0) -> Iterator[Sample]:
        """The pictures of one shard, in order, from the ``first`` on.

        Raises:
            T2IError: where it holds fewer than the index says.
        """
        earlier = index.of(shard.split)
        number = sum(other.pictures for other in earlier[: earlier.index(shard)]) + first
        end = number - first + shard.pictures
        for sample in read_shard(self.place(shard.name), first):
            sample.class_id, sample.number = index.class_id(sample.label), number
            number += 1
            yield sample
            if number == end:
                return
        if number < end:
            raise T2IError(
                f"the shard {self.place(shard.name)} holds {shard.pictures - (end - number)} pictures and {INDEX} says "
                f"{shard.pictures}: copy or write it again"
            )

    def records(self) -> list[Record]:
        """List all pictures, for packing; each reads its shard again when it is needed.

        Raises:
            T2IError: where the shards lie on the web, or one cannot be read.
        """
        if self.remote:
            raise T2IError(f"{self.root} is on the web and cannot be packed: leave out --data.source.stream false")
        index = self.index()
        records = []
        for shard in index.shards:
            for sample in self.samples(index, shard):
                image = Embedded(sample.place, _Reader(self.place(shard.name), *sample.span))
                label = sample.class_id if sample.class_id >= 0 else None
                records.append(Record(image, sample.captions, label, None, cast("Split", shard.split)))
        return records

    def options(self) -> dict[str, Any]:
        """The buffer makes no other store."""
        return {name: value for name, value in super().options().items() if name not in ("buffer", "stream")}


@dataclass(frozen=True)
class _Reader:
    """Reads some bytes of a shard."""

    shard: str
    first: int
    length: int

    def __call__(self) -> bytes:
        with Path(self.shard).open("rb") as file:
            file.seek(self.first)
            return file.read(self.length)
