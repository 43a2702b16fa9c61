"""How shards are written from any source: pictures at load size, captions and their features, mixed for training."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import uuid
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock

from t2i_zoo.data.images import load_image
from t2i_zoo.data.packing import SPLITS, StoreSpec, check_records, cores, progress_bar
from t2i_zoo.data.records import Record
from t2i_zoo.data.shards import FEATURES, INDEX, Shard, ShardIndex, Survey
from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256
from t2i_zoo.text import TextEncoder

PER_SHARD = 1000
_ENCODED_AT_ONCE = 1024  # captions a call of the encoder


def write_shards(
    spec: StoreSpec,
    folder: Path,
    encoder: TextEncoder | None = None,
    words: bool = False,
    per_shard: int = PER_SHARD,
    progress: bool = False,
) -> tuple[ShardIndex, list[str]]:
    """Write a source as shards into a new folder, all or nothing.

    Training pictures are written in a random order, always the same, so that a shuffle buffer meets all classes.
    Pictures are brought to load size and kept without loss, so that batches are those of the packed store.

    Args:
        spec: the source and how its pictures are brought to load size.
        folder: where to; it must not be there, or be empty.
        encoder: whose features of the captions are written beside them; None writes none.
        words: write features of words too.
        per_shard: pictures a shard.
        progress: show a bar.

    Returns:
        The index, and a sentence for each picture that was left out.

    Raises:
        T2IError: for what is wrong with the source, a picture under ``on_bad_image="raise"``, or the folder.
    """
    if per_shard < 1:
        raise T2IError(f"found {per_shard} pictures a shard, expected at least 1")
    spec.source.fetch()
    records = spec.source.records()
    if not records:
        raise T2IError(f"{spec.source.path} lists no pictures: correct --data.source.root")
    check_records(records)
    beside = folder.parent / f".{folder.name}.unfinished-{uuid.uuid4().hex[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise T2IError(f"{folder} is there and not empty: choose another --out, or delete it")
            for leftover in folder.parent.glob(f".{folder.name}.unfinished-*"):  # of a killed run: we have the lock
                shutil.rmtree(leftover, ignore_errors=True)
            beside.mkdir()
            index, skipped = _write(spec, records, beside, encoder, words, per_shard, progress)
            (beside / INDEX).write_text(index.to_json(), "utf-8")
            if folder.exists():
                folder.rmdir()
            beside.rename(folder)
    except OSError as error:
        raise T2IError(
            f"the shards cannot be written to {folder} ({error.strerror or error}): make room, or choose another --out"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return index, skipped


def _write(
    spec: StoreSpec,
    records: Sequence[Record],
    folder: Path,
    encoder: TextEncoder | None,
    words: bool,
    per_shard: int,
    progress: bool,
) -> tuple[ShardIndex, list[str]]:
    survey, shards, skipped = Survey(), list[Shard](), list[str]()
    parts = list(_parts(records, per_shard))
    for split, name, chosen in progress_bar(parts, len(parts), "writing shards", progress):
        kept = list(_pictures(spec, chosen, skipped))
        features = _features(encoder, [record for record, _ in kept], words)
        if not kept:
            continue
        with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, ((record, picture), text) in enumerate(zip(kept, features, strict=True)):
                label = None if record.class_id is None else str(record.class_id)
                survey.add(split, record.captions, label)
                row = {"captions": record.captions} if record.captions else {}
                row |= {} if record.class_id is None else {"class": record.class_id}  # type: ignore[dict-item]
                content = {"png": picture, "json": json.dumps(row).encode(), FEATURES: text}
                for kind, data in content.items():
                    if data is not None:
                        info = tarfile.TarInfo(f"{number:06d}.{kind}")
                        info.size = len(data)
                        archive.addfile(info, io.BytesIO(data))
        shards.append(Shard(name, split, len(kept), f"sha256:{sha256(folder / name)}"))
    if not shards:
        raise T2IError(f"none of the {len(records)} pictures can be read: correct --data.source.root")
    text_of = None if encoder is None else {"fingerprint": encoder.fingerprint(), "words": words}
    index = survey.index(shards, str(spec.source.path), text_of)
    index.load_size, index.resize = spec.load_size, spec.resize
    return index, skipped


def _parts(records: Sequence[Record], per_shard: int) -> Iterator[tuple[str, str, list[Record]]]:
    """Split, name and records of each shard."""
    for split in SPLITS:
        own = [record for record in records if record.split == split]
        if split == "train":
            own = [own[i] for i in np.random.default_rng(0).permutation(len(own))]
        for number, first in enumerate(range(0, len(own), per_shard)):
            yield split, f"{split}-{number:06d}.tar", own[first : first + per_shard]


def _pictures(spec: StoreSpec, records: Sequence[Record], skipped: list[str]) -> Iterator[tuple[Record, bytes]]:
    """Records with their pictures as PNG; those that are left out are noted."""
    from PIL import Image

    def encode(record: Record) -> bytes | T2IError:
        try:
            pixels = load_image(record.image, spec.load_size, spec.resize, record.box, spec.resample, spec.draft)
        except T2IError as error:
            if spec.on_bad_image == "raise":
                raise
            return error
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "png", compress_level=4)
        return out.getvalue()

    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # load_image has a sentence for it
        try:
            for record, found in zip(records, pool.map(encode, records), strict=True):
                if isinstance(found, T2IError):
                    skipped.append(str(found))
                else:
                    yield record, found
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _features(encoder: TextEncoder | None, records: Sequence[Record], words: bool) -> list[bytes | None]:
    """What ``Sample.features`` reads, one a record."""
    captions = [caption for record in records for caption in record.captions]
    if encoder is None or not captions:
        return [None] * len(records)
    sentences, lengths, flat = [], [], []
    for first in range(0, len(captions), _ENCODED_AT_ONCE):
        found = encoder.encode(captions[first : first + _ENCODED_AT_ONCE], words=words)
        sentences.append(found.sentence.float().cpu().numpy())
        if words:
            assert found.words is not None
            assert found.mask is not None
            lengths.append(found.mask.sum(1).cpu().numpy())
            flat.append(found.words[found.mask].float().cpu().numpy())
    sentence = np.concatenate(sentences)
    edges = np.cumsum([0, *np.concatenate(lengths)]) if words else None
    rows = np.concatenate(flat) if words else None
    texts: list[bytes | None] = []
    start = 0
    for record in records:
        end = start + len(record.captions)
        parts = {"sentence": sentence[start:end]}
        if edges is not None and rows is not None:
            parts |= {"words": rows[edges[start] : edges[end]], "offsets": edges[start : end + 1] - edges[start]}
        out = io.BytesIO()
        np.savez(out, **parts)  # type: ignore[arg-type]
        texts.append(out.getvalue())
        start = end
    return texts
