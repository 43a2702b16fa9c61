"""Features of frozen text encoders on disk, one row for each caption, so that no caption is encoded twice."""

from __future__ import annotations

import hashlib
import mmap
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from t2i_zoo.errors import T2IError
from t2i_zoo.text.features import TextEncoder

_KEY = "S16"  # 16 bytes of blake2b; numpy sorts and searches byte strings of fixed length
_CHUNK = 1024  # captions for each call of the encoder
_SEGMENT_CAPTIONS = 65_536
_SEGMENT_BYTES = 1 << 29  # word features of 65,536 captions would be gigabytes: write earlier
_STALE_SECONDS = 86_400  # an unfinished segment of this age was left by a killed process

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass
class _Segment:
    """One immutable folder: keys (N,), sentence (N, D), words (sum T, W), offsets (N + 1,)."""

    keys: NDArray[np.bytes_]
    sentence: Floats
    words: Floats | None
    offsets: Integers | None


def release_pages(array: NDArray[Any] | None) -> None:
    """Release the pages of a mapped file, which count as this process's memory; the system's cache keeps them."""
    mapping = getattr(array, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):  # Linux and macOS
        mapping.madvise(mmap.MADV_DONTNEED)


class CachedRows:
    """Features of a list of captions on disk; only what is asked for is read.

    Args:
        segments: of the cache.
        places: (N,) segment of each caption.
        rows: (N,) its row in the segment.
        dim: dimension D of a sentence embedding.
        word_dim: dimension W of a word vector.
    """

    def __init__(self, segments: Sequence[_Segment], places: Integers, rows: Integers, dim: int, word_dim: int) -> None:
        self._segments, self._places, self._rows = segments, places, rows
        self._dim, self._word_dim = dim, word_dim

    def __len__(self) -> int:
        return len(self._rows)

    def release_pages(self) -> None:
        """Release the pages of the files that were read."""
        for segment in self._segments:
            release_pages(segment.sentence)
            release_pages(segment.words)

    def sentences(self, numbers: Integers | slice = slice(None)) -> Floats:
        """Sentence embeddings (n, D), float32, of the captions with these numbers; by default of all.

        A contiguous run of one segment is a read-only view of the file; anything else is a copy.
        """
        places, rows = self._places[numbers], self._rows[numbers]
        return _gather([segment.sentence for segment in self._segments], places, rows, self._dim)

    def words(self, numbers: Integers | slice = slice(None)) -> tuple[Floats, Integers]:
        """Word vectors of captions in one array: flat (sum T, W) float32 and offsets (n + 1,) int64.

        Caption ``i`` of these has the rows ``flat[offsets[i]:offsets[i + 1]]``, its real tokens without padding. A
        contiguous run is a read-only view of the file, as in ``sentences``.
        """
        places, rows = self._places[numbers], self._rows[numbers]
        starts, ends = np.zeros_like(rows), np.zeros_like(rows)
        for place in np.unique(places):
            edges = self._segments[place].offsets
            assert edges is not None, "this cache was opened without words=True"
            chosen = places == place
            starts[chosen], ends[chosen] = edges[rows[chosen]], edges[rows[chosen] + 1]
        offsets = np.concatenate([[0], np.cumsum(ends - starts)])
        tokens = np.repeat(starts - offsets[:-1], ends - starts) + np.arange(offsets[-1])
        tables = [segment.words for segment in self._segments]
        return _gather(tables, np.repeat(places, ends - starts), tokens, self._word_dim), offsets


class TextCache:
    """Append-only cache of one encoder's features in ``folder/<fingerprint>[-words]/seg-*``.

    A segment is written under another name and renamed, so neither a killed nor a second process leaves half a segment.
    Two processes that encode the same caption both store it, which costs space and changes nothing.

    Args:
        folder: the folder of the caches of all encoders; created by the first write.
        encoder: a frozen encoder with its final weights, which runs on its own device.
        words: store word vectors too.
    """

    def __init__(self, folder: Path, encoder: TextEncoder, words: bool = False) -> None:
        self.encoder = encoder
        self.with_words = words
        self.folder = Path(folder) / (encoder.fingerprint() + ("-words" if words else ""))
        self._segments: dict[str, _Segment] = {}
        self._keys: NDArray[np.bytes_] = np.empty(0, dtype=_KEY)
        self._segment_of: Integers = np.empty(0, dtype=np.int64)
        self._row_of: Integers = np.empty(0, dtype=np.int64)
        self._refresh()

    def __len__(self) -> int:
        """Number of distinct captions on disk."""
        return len(self._keys)

    def ensure(self, captions: Sequence[str], progress: bool = False) -> None:
        """Encode and store the captions that are not in the cache yet, each once, in the given order.

        Args:
            captions: any number of texts, repetitions allowed.
            progress: show a progress bar on standard error.

        Raises:
            T2IError: the encoder refuses a caption, or the disk is full. What was written before stays.
        """
        keys = _keys_of(captions)
        if self._found(keys).all():
            return
        self._refresh()  # another process may have written them
        absent = np.flatnonzero(~self._found(keys))
        _, first = np.unique(keys[absent], return_index=True)
        missing = absent[np.sort(first)]
        buffer: list[tuple[NDArray[Any], ...]] = []
        start = held = 0
        steps = range(0, len(missing), _CHUNK)
        console = Console(stderr=True, force_jupyter=False)
        for done in track(steps, "encoding captions", console=console, disable=not progress):
            rows = missing[done : done + _CHUNK]
            buffer.append(self._encode([captions[i] for i in rows]))
            held += sum(part.nbytes for part in buffer[-1])
            end = done + len(rows)
            if end == len(missing) or end - start >= _SEGMENT_CAPTIONS or held >= _SEGMENT_BYTES:
                self._write(keys[missing[start:end]], buffer)
                buffer, start, held = [], end, 0
        self._refresh()

    def rows(self, captions: Sequence[str]) -> CachedRows:
        """The features of these captions; those not in the cache yet are encoded first."""
        self.ensure(captions)
        keys = _keys_of(captions)
        index = np.searchsorted(self._keys, keys)
        places, rows = self._segment_of[index], self._row_of[index]
        return CachedRows(list(self._segments.values()), places, rows, self.encoder.dim, self.encoder.word_dim)

    def sentences(self, captions: Sequence[str]) -> Floats:
        """Sentence embeddings (N, D) of these captions, as ``CachedRows.sentences``."""
        return self.rows(captions).sentences()

    def word_rows(self, captions: Sequence[str]) -> tuple[Floats, Integers]:
        """Word vectors of all these captions in one array, as ``CachedRows.words``."""
        assert self.with_words, "this cache was opened without words=True"
        return self.rows(captions).words()

    def _encode(self, captions: list[str]) -> tuple[NDArray[Any], ...]:
        """Sentence embeddings and, if words are stored, all word vectors and the captions' lengths."""
        features = self.encoder.encode(captions, words=self.with_words)
        sentence = features.sentence.to("cpu", torch.float32).numpy()
        if not self.with_words:
            return (sentence,)
        assert features.words is not None
        assert features.mask is not None
        flat = features.words[features.mask].to("cpu", torch.float32).numpy()
        return sentence, flat, features.mask.sum(1).cpu().numpy().astype(np.int64)

    def _found(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        if not len(self._keys):
            return np.zeros(len(keys), dtype=bool)
        index = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[index] == keys)

    def _write(self, keys: NDArray[np.bytes_], buffer: list[tuple[NDArray[Any], ...]]) -> None:
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        beside = self.folder / f"new-{name}"
        sentence, *words = (np.concatenate(parts) for parts in zip(*buffer, strict=True))
        try:
            beside.mkdir(parents=True)
            np.save(beside / "keys.npy", keys)
            np.save(beside / "sentence.npy", sentence)
            if words:
                np.save(beside / "words.npy", words[0])
                np.save(beside / "offsets.npy", np.concatenate([[0], np.cumsum(words[1])]))
            beside.rename(self.folder / f"seg-{name}")
        except OSError as error:
            raise T2IError(
                f"the text cache {self.folder} cannot be written ({error.strerror or error}): make room, or choose "
                "another folder with --data.cache_dir or T2I_ZOO_CACHE"
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)  # nothing is there after the renaming

    def _refresh(self) -> None:
        """Open segments that are new on disk, and sort all keys; of equal keys the oldest is used."""
        for path in self.folder.glob("new-*"):
            if time.time_ns() - int(path.name.split("-")[1]) > _STALE_SECONDS * 10**9:
                shutil.rmtree(path, ignore_errors=True)
        fresh = {p.name: p for p in sorted(self.folder.glob("seg-*")) if p.name not in self._segments}
        opened = {name: segment for name, path in fresh.items() if (segment := self._open(path)) is not None}
        if not opened:
            return
        self._segments.update(opened)
        parts = [segment.keys for segment in self._segments.values()]
        keys = np.concatenate(parts)
        self._keys, first = np.unique(keys, return_index=True)
        sizes = [len(part) for part in parts]
        self._segment_of = np.repeat(np.arange(len(parts)), sizes)[first]
        self._row_of = np.concatenate([np.arange(size) for size in sizes])[first]

    def _open(self, path: Path) -> _Segment | None:
        """Map one segment; None if it is damaged, and then its captions are encoded again."""
        try:
            keys = np.load(path / "keys.npy")
            sentence = np.load(path / "sentence.npy", mmap_mode="r")
            words = np.load(path / "words.npy", mmap_mode="r") if self.with_words else None
            offsets = np.load(path / "offsets.npy") if self.with_words else None
        except (OSError, ValueError, EOFError):
            return None
        whole = keys.dtype == _KEY and sentence.shape == (len(keys), self.encoder.dim)
        if words is not None and offsets is not None:
            whole &= len(offsets) == len(keys) + 1 and words.shape == (offsets[-1], self.encoder.word_dim)
        return _Segment(keys, sentence, words, offsets) if whole else None


def _keys_of(captions: Sequence[str]) -> NDArray[np.bytes_]:
    digests = [hashlib.blake2b(c.encode("utf-8", "surrogatepass"), digest_size=16).digest() for c in captions]
    return np.frombuffer(b"".join(digests), dtype=_KEY)


def _gather(tables: Sequence[Floats | None], places: Integers, rows: Integers, dim: int) -> Floats:
    """Rows (n, dim) of several tables; a contiguous run of one table is a view."""
    if len(rows) and (places == places[0]).all() and (np.diff(rows) == 1).all():
        whole = tables[places[0]]
        assert whole is not None
        return np.asarray(whole[rows[0] : rows[-1] + 1])
    out = np.empty((len(rows), dim), dtype=np.float32)
    for place in np.unique(places):
        table, chosen = tables[place], places == place
        assert table is not None
        out[chosen] = table[rows[chosen]]
    return out
