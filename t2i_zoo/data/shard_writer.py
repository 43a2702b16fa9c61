"""Writing any source as shards: images at load size, captions and their features, in a random order for training."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from webdataset.writer import TarWriter

from t2i_zoo.data.notes import collecting
from t2i_zoo.data.packing import StoreSpec, listing, load, none_readable, on_all_cores, progress_bar
from t2i_zoo.data.records import Record
from t2i_zoo.data.shards import FEATURES, INDEX, Shard, ShardIndex, Survey
from t2i_zoo.data.usable import SPLITS
from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256
from t2i_zoo.text import TextCache, TextEncoder

PER_SHARD = 1000


def write_shards(
    spec: StoreSpec,
    folder: Path,
    encoder: TextEncoder | None = None,
    words: bool = False,
    per_shard: int = PER_SHARD,
    progress: bool = False,
) -> tuple[ShardIndex, list[str]]:
    """Write a source as shards into a new folder, all or nothing.

    Training images are written in a random order, always the same, so that a shuffle buffer holds all classes. Images
    are brought to load size and stored without loss, so that batches equal those of the packed store.

    Args:
        spec: the source, and how its images are brought to load size.
        folder: where to; it must not exist, or be empty.
        encoder: text encoder whose features of the captions are stored; None stores none.
        words: store word features too.
        per_shard: number of images in a shard.
        progress: show a progress bar.

    Returns:
        The index, and a sentence for each image that was left out.

    Raises:
        T2IError: for what is wrong with the source, an image under ``on_bad_image="raise"``, or the folder.
    """
    if per_shard < 1:
        raise T2IError(f"found --per_shard {per_shard}, expected at least 1")
    spec.source.fetch()
    with collecting() as notes:
        records, lost, lacks = listing(spec)
    beside = folder.parent / f".{folder.name}.unfinished"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise T2IError(f"{folder} is there and not empty: choose another --out")
            shutil.rmtree(beside, ignore_errors=True)  # of a killed run
            beside.mkdir()
            try:
                index, skipped = _write(spec, records, beside, encoder, words, per_shard, progress)
                index.understood, index.remarks = notes.facts, notes.remarks()
                (beside / INDEX).write_text(index.to_json(), "utf-8")
                if folder.exists():
                    folder.rmdir()
                beside.rename(folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise T2IError(
            f"the shards cannot be written to {folder} ({error.strerror or error}): make room, or choose another --out"
        ) from error
    return index, [*lost, *lacks, *skipped]


def _write(
    spec: StoreSpec,
    records: Sequence[Record],
    folder: Path,
    encoder: TextEncoder | None,
    words: bool,
    per_shard: int,
    progress: bool,
) -> tuple[ShardIndex, list[str]]:
    survey, shards, skipped = Survey(), list[Shard](), dict[int, str]()
    parts = list(_parts(records, per_shard))
    for split, name, chosen in progress_bar(parts, len(parts), "writing shards", progress):
        if not (kept := _images(spec, chosen, skipped)):
            continue
        features = _features(encoder, [record.captions for record, _ in kept], words, folder)
        with (folder / name).open("wb") as file, TarWriter(file, encoder=False, mode=0o644, mtime=0) as archive:
            for number, ((record, image), text) in enumerate(zip(kept, features, strict=True)):
                label = None if record.class_id is None else str(record.class_id)
                survey.add(split, record.captions, label)
                row = {"captions": record.captions, "class": record.class_id}
                row = {key: value for key, value in row.items() if value not in ((), None)}
                archive.write({"__key__": f"{number:06d}", "png": image, "json": json.dumps(row).encode(), **text})
        shards.append(Shard(name, split, len(kept), f"sha256:{sha256(folder / name)}"))
    if not shards:
        raise none_readable(spec, len(records), skipped)
    index = survey.index(shards, str(spec.source.path))
    index.text = {"fingerprint": encoder.fingerprint(), "words": words} if encoder else None
    index.load_size, index.resize = spec.load_size, spec.resize
    return index, list(skipped.values())


def _parts(records: Sequence[Record], per_shard: int) -> Iterator[tuple[str, str, list[Record]]]:
    """Split, name and records of each shard."""
    for split in SPLITS:
        own = [record for record in records if record.split == split]
        if split == "train":
            own = [own[i] for i in np.random.default_rng(0).permutation(len(own))]
        for number, first in enumerate(range(0, len(own), per_shard)):
            yield split, f"{split}-{number:06d}.tar", own[first : first + per_shard]


def _images(spec: StoreSpec, records: Sequence[Record], skipped: dict[int, str]) -> list[tuple[Record, bytes]]:
    """Records with their images as PNG; a sentence about each that is left out goes to ``skipped``."""
    images, bad = [b""] * len(records), dict[int, str]()

    def encode(i: int) -> None:
        out = io.BytesIO()
        Image.fromarray(load(spec, records[i])).save(out, "png", compress_level=4)
        images[i] = out.getvalue()

    on_all_cores(spec, len(records), encode, bad)
    skipped.update({len(skipped) + i: bad[number] for i, number in enumerate(sorted(bad))})
    return [(record, image) for record, image in zip(records, images, strict=True) if image]


def _features(
    encoder: TextEncoder | None, captions: Sequence[tuple[str, ...]], words: bool, folder: Path
) -> Iterator[dict[str, bytes]]:
    """What ``Sample.features`` reads, for each image of a shard."""
    if encoder is None or not any(captions):
        yield from ({} for _ in captions)
        return
    with TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as cache:
        rows = TextCache(Path(cache), encoder, words).rows([caption for own in captions for caption in own])
        start = 0
        for own in captions:
            chosen = slice(start, start := start + len(own))
            parts: dict[str, Any] = {"sentence": rows.sentences(chosen)}
            if words:
                parts["words"], parts["offsets"] = rows.words(chosen)
            out = io.BytesIO()
            np.savez(out, **parts)
            yield {FEATURES: out.getvalue()}
