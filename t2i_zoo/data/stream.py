"""The data module of sets in shards: the batches of ``CaptionDataModule``, from pictures that pass by only once.

Each process reads an equal run of the shards, in an order that is new in each epoch. A shuffle buffer mixes what is
near, and mismatched pairs are drawn from what lies in it. Which pictures a batch has follows from seed, epoch and
process alone, so a resumed run reads up to its place, without decoding, and meets the batches that it would have met.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.batch import Batch
from t2i_zoo.data.base import BaseDataModule
from t2i_zoo.data.captions import pad_words
from t2i_zoo.data.images import load_image
from t2i_zoo.data.packing import cores
from t2i_zoo.data.plan import stable_seed
from t2i_zoo.data.records import Embedded
from t2i_zoo.data.shards import Sample, ShardIndex
from t2i_zoo.data.transforms import Crops, centre_crops, draw_crops
from t2i_zoo.data.webdataset import WebDataset
from t2i_zoo.errors import T2IError
from t2i_zoo.text import TextFeatures

Pixels = NDArray[np.uint8]
_AHEAD = 2  # batches that are decoded while the model works


class StreamDataModule(BaseDataModule):
    """Captioned pictures from shards; ``CaptionDataModule(WebDataset(...))`` makes one.

    The options are those of ``CaptionDataModule``. ``order`` is always shuffle, ``device_resident`` has no meaning, and
    ``captions_averaged`` above 1 needs shards with the features of the model's text encoder.

    Args:
        source: the shards.
        options: as of ``CaptionDataModule``.
    """

    source: WebDataset

    def __init__(self, source: WebDataset, **options: Any) -> None:
        super().__init__(source, **options)
        if self.order != "shuffle":
            raise T2IError(f"found --data.order {self.order}, which streamed shards cannot have: use shuffle")
        if source.buffer < 2:
            raise T2IError(f"found --data.source.buffer {source.buffer}, expected at least 2")
        self._index: ShardIndex | None = None
        self.cached_text = False  #: whether features come from the shards
        self._served: tuple[str, bool] | None = None  #: the encoder and kind of features that were looked up

    def prepare_data(self) -> None:
        """Count what the shards hold, where no index says it."""
        self.source.index(self.cache)

    def setup(self, stage: str = "fit") -> None:
        """Check the shards against batch size and model."""
        index = self.index
        self.check(stage, index.pictures("train"), index.captions > 0)
        self._check_size(index)

    def look_up(self) -> None:
        """Decide whether the shards' features are those of the model's text encoder."""
        if (encoder := self.encoder) is None:
            self.cached_text, self._served = False, None
            return
        if self._served == (encoder.fingerprint(), self.needs.words):
            return
        self._served = (encoder.fingerprint(), self.needs.words)
        held = self.index.text or {}
        whole = held.get("words") or not self.needs.words
        self.cached_text = held.get("fingerprint") == encoder.fingerprint() and bool(whole)
        if not self.cached_text and self.captions_averaged > 1:
            raise T2IError(
                f"the shards of {self.source.root} hold no features of this text encoder, which "
                f"--data.captions_averaged {self.captions_averaged} reads: write them with t2i-zoo prepare --to "
                "webdataset and the config of the model, or set it to 1"
            )
        if not self.cached_text and (self.trainer is None or self.trainer.is_global_zero):
            print(
                "the shards hold no features of this text encoder: captions are encoded in each batch", file=sys.stderr
            )

    def _check_size(self, index: ShardIndex) -> None:
        """Raise where the shards hold other pictures than are asked for; ``short_side`` has kept what all need."""
        spec = self.spec
        if index.load_size and (
            index.load_size < spec.load_size or index.resize not in (None, "short_side", spec.resize)
        ):
            raise T2IError(
                f"the shards of {self.source.root} hold pictures of {index.load_size} px ({index.resize}), expected at "
                f"least {spec.load_size} px ({spec.resize}): write them again with the same --data.image_size, "
                "--data.load_size and --data.resize, or change these"
            )

    @property
    def index(self) -> ShardIndex:
        """What the shards hold."""
        if self._index is None:
            self._index = self.source.index(self.cache)
        return self._index

    @property
    def num_classes(self) -> int:
        """One more than the largest class; 0 where the set has no classes."""
        return self.index.num_classes

    def captions_of(self, split: str) -> list[str]:
        """All captions of one split; reads its shards."""
        index = self.index
        return [c for shard in index.of(split) for sample in self.source.samples(index, shard) for c in sample.captions]

    def vocabulary(self) -> frozenset[str]:
        """Every word of the training captions."""
        return frozenset(self.index.vocabulary)

    def example_captions(self, count: int) -> list[str]:
        """Captions of held-out pictures, of different classes as far as there are any; always the same."""
        return self.index.examples[:count] if self.index.captions else [""] * count

    def has(self, split: str) -> bool:
        """Whether a split has images."""
        return self.index.pictures(split) > 0

    def loader(self, split: str, train: bool, epoch: Callable[[], int]) -> Stream:
        """Batches of a split, on the host."""
        return Stream(self, split, train, *self.rank_and_world, epoch)

    # From samples to batch --------------------------------------------------------------------------------------------

    def decode(self, sample: Sample) -> Pixels:
        """The pixels at load size, (H, W, 3)."""
        if sample.pixels is not None:
            return sample.pixels
        picture = Embedded(sample.place, lambda: sample.image)
        return load_image(picture, self.spec.load_size, self.spec.resize, None, self.spec.resample, self.spec.draft)

    def assemble(
        self, samples: Sequence[Sample], wrong: Sequence[Sample], pixels: Sequence[Pixels], crop: bool, seed: int
    ) -> dict[str, Any]:
        """A batch on the host; ``pixels`` are those of the samples, then of the mismatched where they are wanted."""
        rng = torch.Generator().manual_seed(seed)
        part: dict[str, Any] = {"index": torch.tensor([sample.number for sample in samples])}
        count = len(samples)
        for kind, own, cut in (("", samples, pixels[:count]), ("wrong_", wrong, pixels[count:])):
            picks = [self._pick(sample, rng) for sample in own]
            part[f"{kind}captions"] = [
                sample.captions[pick[0]] if sample.captions else "" for sample, pick in zip(own, picks, strict=True)
            ]
            part[f"{kind}labels"] = torch.tensor([sample.class_id for sample in own])
            if self.cached_text:
                self._add_text(part, kind, own, picks)
            if kind == "" and self.needs.neighbours:
                part["neighbours"] = [
                    (sample.captions[pick[0] - 1], sample.captions[(pick[0] + 1) % len(sample.captions)])
                    for sample, pick in zip(own, picks, strict=True)
                ]
            if kind == "" and self.needs.references:
                part["references"] = [list(sample.captions) for sample in own]
            if cut:
                room = torch.tensor([picture.shape[:2] for picture in cut]) - self.image_size
                crops = draw_crops(room, True, rng) if crop else centre_crops(room)
                part[f"{kind}pixels"] = _windows(cut, crops, self.image_size)
        return part

    def _pick(self, sample: Sample, rng: torch.Generator) -> list[int]:
        """Numbers of K of its captions, drawn with replacement."""
        drawn = torch.rand(self.captions_averaged, generator=rng, dtype=torch.float64) * len(sample.captions)
        return [min(number, len(sample.captions) - 1) for number in drawn.long().tolist()]

    def _add_text(self, part: dict[str, Any], kind: str, own: Sequence[Sample], picks: Sequence[list[int]]) -> None:
        features = [sample.features() for sample in own]
        sentences = [found.sentence[pick] for found, pick in zip(features, picks, strict=True)]
        part[f"{kind}text"] = TextFeatures(torch.from_numpy(np.stack(sentences)).mean(1))
        if self.needs.words:
            rows = []
            for found, pick, sample in zip(features, picks, own, strict=True):
                if found.words is None or found.offsets is None:
                    raise T2IError(f"{sample.place}: no features of words: write the shards again")
                rows.append(found.words[found.offsets[pick[0]] : found.offsets[pick[0] + 1]])
            part[f"{kind}words"] = pad_words(rows)

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> dict[str, Any]:
        """Nothing: the batch is whole."""
        return batch

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> Batch:
        """Make the pyramid and map it to [-1, 1], on the device."""
        part = dict(batch)
        return self.finish(part, part.pop("index"))


def _windows(pictures: Sequence[Pixels], crops: Crops, size: int) -> Tensor:
    """Cut and mirror (B, 3, S, S) uint8, the colours of a pixel together."""
    out = np.empty((len(pictures), size, size, 3), np.uint8)
    for i, (picture, top, left, flip) in enumerate(zip(pictures, *(part.tolist() for part in crops), strict=True)):
        window = picture[top : top + size, left : left + size]
        out[i] = window[:, ::-1] if flip else window
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class Stream:
    """An epoch of batches after the other, of one split and one process; can be resumed in the middle of one."""

    def __init__(
        self, data: StreamDataModule, split: str, train: bool, rank: int, world: int, epoch: Callable[[], int]
    ) -> None:
        self.data, self.split, self.train, self.rank, self.world, self.epoch = data, split, train, rank, world, epoch
        self._done = self._first = 0
        self._skipped: dict[str, str] = {}

    @property
    def share(self) -> int:
        """Pictures of this process an epoch: the same for each; in evaluation the last ones wrap around."""
        count = self.data.index.pictures(self.split)
        return count // self.world if self.train else -(-count // self.world)

    def __len__(self) -> int:
        """Batches an epoch; training drops the ragged one."""
        size = self.data.batch_size
        return self.share // size if self.train else -(-self.share // size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A generator asks for the epoch at its first step: Lightning calls iter() before it knows the epoch it resumes.
        epoch, first, self._first = self.epoch() if self.train else -1, self._first, 0
        self._done = first
        wanted = self.data.needs.images, self.data.needs.wrong_images
        with ThreadPoolExecutor(cores()) as pool:
            ahead: deque[tuple[int, list[Sample], list[Sample], list[Future[Pixels]]]] = deque()
            drawn = islice(enumerate(self._draw(epoch)), first, None)
            try:
                while True:
                    while len(ahead) <= _AHEAD and (found := next(drawn, None)) is not None:
                        number, (samples, wrong) = found
                        shown = [*(samples if wanted[0] else ()), *(wrong if wanted[1] else ())]
                        ahead.append((number, samples, wrong, [pool.submit(self.data.decode, s) for s in shown]))
                    if not ahead:
                        break
                    number, samples, wrong, futures = ahead.popleft()
                    seed = stable_seed(self.data.seed, epoch, self.rank, number)
                    pixels = [future.result() for future in futures]
                    self._done = number + 1
                    yield self.data.assemble(samples, wrong, pixels, self.train and self.data.augment, seed)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if self._skipped:
            first_one = next(iter(self._skipped.values()))
            print(
                f"{len(self._skipped)} pictures cannot be read and are left out (the first: {first_one})",
                file=sys.stderr,
            )

    def _draw(self, epoch: int) -> Iterator[tuple[list[Sample], list[Sample]]]:
        """The samples of each batch and those that they are mismatched with."""
        rng = np.random.default_rng(stable_seed(self.data.seed, epoch, self.rank))
        reader, size = self._samples(epoch), self.data.batch_size
        buffer = list(islice(reader, self.data.source.buffer))
        recent: list[Sample] = []
        for _ in range(len(self)):
            batch: list[Sample] = []
            while buffer and len(batch) < size:
                place = int(rng.integers(len(buffer))) if self.train else 0
                batch.append(buffer[place])
                if (more := next(reader, None)) is not None and self.train:
                    buffer[place] = more
                else:
                    del buffer[place]
                    buffer += [] if more is None else [more]
            yield batch, self._mismatched(batch, [*batch, *buffer, *recent], rng)
            recent = batch

    def _mismatched(self, batch: list[Sample], pool: list[Sample], rng: np.random.Generator) -> list[Sample]:
        """For each sample one of another class out of the pool; of any other picture where there is no other class."""
        numbers, labels = (np.array([getattr(s, name) for s in pool]) for name in ("number", "class_id"))
        chosen = []
        for sample in batch:
            others = np.flatnonzero(labels != sample.class_id)
            others = others if len(others) else np.flatnonzero(numbers != sample.number)
            chosen.append(pool[int(others[rng.integers(len(others))])] if len(others) else sample)
        return chosen

    def _samples(self, epoch: int) -> Iterator[Sample]:
        """This process's run of the shards, as they are ordered in this epoch.

        Where pictures are left out, it goes on into the next run, so that all processes have equally many.
        """
        index, source = self.data.index, self.data.source
        shards = index.of(self.split)
        if self.train:
            order = np.random.default_rng(stable_seed(self.data.seed, epoch)).permutation(len(shards))
            shards = [shards[i] for i in order]
        edges = np.cumsum([0, *(shard.pictures for shard in shards)])
        total, start = int(edges[-1]), self.rank * self.share
        place, left = start, self.share
        while left:
            at = place % total
            number = int(np.searchsorted(edges, at, side="right")) - 1
            for sample in source.samples(index, shards[number], at - int(edges[number])):
                place += 1
                if self._good(sample):
                    yield sample
                    left -= 1
                    if not left:
                        return
            if place - start >= 2 * total and left == self.share:
                raise T2IError(f"none of the pictures of {source.root} can be read: correct --data.source.root")

    def _good(self, sample: Sample) -> bool:
        """Whether the picture can be read, asked only where those that cannot are to be left out."""
        if self.data.spec.on_bad_image == "raise":
            return True
        try:
            sample.pixels = self.data.decode(sample)
            return True
        except T2IError as error:
            self._skipped[sample.place] = str(error)
            return False

    def state_dict(self) -> dict[str, int]:
        """How many batches of the running epoch were handed out."""
        return {"batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch behind the batches that were handed out already."""
        self._first = self._done = state["batches"] % max(len(self), 1)
