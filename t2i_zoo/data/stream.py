"""The data module of sets in shards: the batches of ``CaptionDataModule``, from images that pass by only once.

Each process reads an equal run of the shards, in an order that is new in each epoch. A shuffle buffer mixes what is
near, and mismatched pairs are drawn from it, which is why it is not webdataset's. Which images a batch has follows from
seed, epoch and process alone, so a resumed run reads up to its place, without decoding, and meets the same batches.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, cycle, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.batch import Batch
from t2i_zoo.data.base import BaseDataModule
from t2i_zoo.data.captions import pad_words
from t2i_zoo.data.images import ImageError
from t2i_zoo.data.mismatch import MismatchSampler
from t2i_zoo.data.notes import by_number, counted, some
from t2i_zoo.data.packing import cores, load
from t2i_zoo.data.records import Embedded, Record
from t2i_zoo.data.shards import Sample, ShardIndex, lost_error
from t2i_zoo.data.transforms import Crops, centre_crops, draw_crops
from t2i_zoo.data.usable import SPLITS
from t2i_zoo.data.webdataset import WebDataset
from t2i_zoo.errors import T2IError
from t2i_zoo.seeds import stable_seed
from t2i_zoo.text import TextFeatures

ImageArray = NDArray[np.uint8]
_AHEAD = 2  # batches that are decoded while the model works


class StreamDataModule(BaseDataModule):
    """Captioned images from shards; ``CaptionDataModule(WebDataset(...))`` creates one.

    The options are those of ``CaptionDataModule``. ``order`` is always shuffle, ``device_resident`` has no effect, and
    ``captions_averaged`` above 1 needs shards with features of the model's text encoder.

    Args:
        source: the shards.
        options: as of ``CaptionDataModule``.
    """

    source: WebDataset

    def __init__(self, source: WebDataset, **options: Any) -> None:
        super().__init__(source, **options)
        if self.order != "shuffle":
            raise T2IError(f"found --data.order {self.order}, which streamed shards cannot have: use shuffle")
        if self.oversample:
            raise T2IError("found --data.oversample, which streamed shards cannot have: leave it out")
        if self.spec.limit is not None:
            raise T2IError(
                f"found --data.limit {self.spec.limit} with streamed shards, of which nothing is packed: leave it out, "
                "or pass --data.source.stream false"
            )
        if source.buffer < 2:
            raise T2IError(f"found --data.source.buffer {source.buffer}, expected at least 2")
        self._index: ShardIndex | None = None
        self._served: tuple[str, bool] | None = None  #: the encoder and kind of features of the last ``look_up``
        self.cached_text = False  #: whether features come from the shards

    def prepare_data(self) -> None:
        """Count what the shards hold, if no index says it."""
        self.source.index(self.cache)

    def setup(self, stage: str = "fit") -> None:
        """Check the shards against batch size and image size."""
        index, spec = self.index, self.spec
        self.check(stage, {split: index.pictures(split) for split in SPLITS}, index.captions > 0)
        if index.missing and spec.on_bad_image == "raise":
            raise lost_error(index, self.source.root)
        if index.lacking and spec.on_bad_caption == "raise":
            lacking = f"{counted(index.lacking, 'image')} of {self.source.root}"
            have = by_number(index.lacking, "has", "have")
            raise T2IError(
                f"{lacking} {have} no caption ({some(index.lacks, index.lacking)}): "
                "write the shards again, or pass --data.on_bad_caption skip to leave these images out"
            )
        same = index.resize in (None, "short_side", spec.resize)  # short_side keeps what all the others need
        if index.load_size and (index.load_size < spec.load_size or not same):
            raise T2IError(
                f"the shards of {self.source.root} hold images of {index.load_size} px ({index.resize}), expected at "
                f"least {spec.load_size} px ({spec.resize}): write them again with the same --data.image_size, "
                "--data.load_size and --data.resize, or change these"
            )

    def content(self) -> str:
        """Counts alone: reading all captions would take as long as an epoch."""
        return f"{sum(self.index.pictures(split) for split in SPLITS)}-{self.index.captions}"

    def look_up(self) -> None:
        """Decide whether the shards' features are those of the model's text encoder."""
        if (encoder := self.encoder) is None:
            self.cached_text, self._served = False, None
            return
        served = encoder.fingerprint(), self.needs.words
        if served == self._served:
            return
        self._served, held = served, self.index.text or {}
        self.cached_text = held.get("fingerprint") == served[0] and (not served[1] or bool(held.get("words")))
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

    @property
    def index(self) -> ShardIndex:
        """What the shards hold."""
        if self._index is None:
            self._index = self.source.index(self.cache)
        return self._index

    @property
    def num_classes(self) -> int:
        """One more than the largest class; 0 if the set has no classes."""
        return self.index.num_classes

    def captions_of(self, split: str) -> list[str]:
        """All captions of one split; reads its shards."""
        shards = self.index.of(split)
        return [c for shard in shards for sample in self.source.samples(self.index, shard) for c in sample.captions]

    def vocabulary(self) -> frozenset[str]:
        """Every word of the training captions."""
        return frozenset(self.index.vocabulary)

    def example_captions(self, count: int) -> list[str]:
        """Captions of held-out images, of different classes as far as there are any; always the same."""
        return self.index.examples[:count] if self.index.captions else [""] * count

    def has(self, split: str) -> bool:
        """Whether a split has images."""
        return self.index.pictures(split) > 0

    def loader(self, split: str, train: bool, epoch: Callable[[], int]) -> Stream:
        """Batches of a split, on the host."""
        return Stream(self, split, train, *self.rank_and_world, epoch)

    # From samples to batch --------------------------------------------------------------------------------------------

    def decode(self, sample: Sample) -> ImageArray:
        """The pixels at load size, (H, W, 3) uint8."""
        image = Embedded(sample.place, lambda: sample.image)
        return load(self.spec, Record(image, sample.captions))

    def assemble(self, pairs: Sequence[Pair], crop: bool, seed: int) -> dict[str, Any]:
        """A batch on the host; ``crop`` cuts and mirrors at random instead of cutting the centre."""
        rng = torch.Generator().manual_seed(seed)
        part: dict[str, Any] = {"index": torch.tensor([pair.sample.number for pair in pairs])}
        for kind, samples, pixels in (
            ("", [pair.sample for pair in pairs], [pair.pixels for pair in pairs]),
            ("wrong_", [pair.wrong for pair in pairs], [pair.wrong_pixels for pair in pairs]),
        ):
            picks = [self._pick(sample, rng) for sample in samples]
            chosen = [(sample.captions or ("",), pick[0]) for sample, pick in zip(samples, picks, strict=True)]
            part[f"{kind}labels"] = torch.tensor([sample.class_id for sample in samples])
            if not kind or self.needs.wrong_text:
                part[f"{kind}captions"] = [captions[number] for captions, number in chosen]
                if self.cached_text:
                    words = self.needs.words and (not kind or self.needs.wrong_words)
                    self._add_text(part, kind, [(s.features(words), p) for s, p in zip(samples, picks, strict=True)])
            if not kind and self.needs.neighbours:
                part["neighbours"] = [(own[number - 1], own[(number + 1) % len(own)]) for own, number in chosen]
            if not kind and self.needs.references:
                part["references"] = [list(sample.captions) for sample in samples]
            if images := [image for image in pixels if image is not None]:
                room = torch.tensor([image.shape[:2] for image in images]) - self.image_size
                crops = draw_crops(room, True, rng) if crop else centre_crops(room)
                part[f"{kind}pixels"] = _windows(images, crops, self.image_size)
        return part

    def _pick(self, sample: Sample, rng: torch.Generator) -> list[int]:
        """Numbers of K of its captions, drawn with replacement; 0 if it has none."""
        drawn = torch.rand(self.captions_averaged, generator=rng, dtype=torch.float64) * len(sample.captions)
        return [max(min(number, len(sample.captions) - 1), 0) for number in drawn.long().tolist()]

    def _add_text(self, part: dict[str, Any], kind: str, found: Sequence[tuple[Any, list[int]]]) -> None:
        sentences = np.stack([parts[0][pick] for parts, pick in found])
        part[f"{kind}text"] = TextFeatures(torch.from_numpy(sentences).mean(1))
        if len(found[0][0]) > 1:
            part[f"{kind}words"] = pad_words([words[ends[i] : ends[i + 1]] for (_, words, ends), (i, *_) in found])

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> Batch:
        """Make the pyramid and map it to [-1, 1], on the device."""
        part = dict(batch)
        return self.finish(part, part.pop("index"))


def _windows(images: Sequence[ImageArray], crops: Crops, size: int) -> Tensor:
    """Cut and mirror (B, 3, S, S) uint8, the colours of a pixel together."""
    out = np.empty((len(images), size, size, 3), np.uint8)
    for i, (image, top, left, flip) in enumerate(zip(images, *(part.tolist() for part in crops), strict=True)):
        window = image[top : top + size, left : left + size]
        out[i] = window[:, ::-1] if flip else window
    return torch.from_numpy(out).permute(0, 3, 1, 2)


class Pair(NamedTuple):
    """An image, the one it is mismatched with, and the pixels of each, (H, W, 3), if the model looks at them."""

    sample: Sample
    wrong: Sample
    pixels: ImageArray | None = None
    wrong_pixels: ImageArray | None = None


class Stream:
    """One epoch of batches after another, of one split and one process; can be resumed in the middle of an epoch."""

    def __init__(
        self, data: StreamDataModule, split: str, train: bool, rank: int, world: int, epoch: Callable[[], int]
    ) -> None:
        self.data, self.split, self.train, self.rank, self.epoch = data, split, train, rank, epoch
        total = data.index.pictures(split)
        #: images of this process in an epoch, the same number for each; in evaluation the last ones wrap around
        self.share = total // world if train else -(-total // world)
        self._done = self._first = 0
        self._skipped: dict[str, str] = {}

    def __len__(self) -> int:
        """Batches in an epoch; training drops the last one if it is not full."""
        size = self.data.batch_size
        return self.share // size if self.train else -(-self.share // size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        # A generator asks for the epoch at its first step: Lightning calls iter() before it knows the epoch it resumes.
        epoch, first, self._first = self.epoch() if self.train else -1, self._first, 0
        self._done, good = first, list[Pair]()
        with ThreadPoolExecutor(cores()) as pool:
            decoding = (pool.map(self._decode, pairs) for pairs in islice(self._draw(epoch), first, None))
            for number, pairs in enumerate(_ahead(decoding), first):
                decoded = list(pairs)
                good = [pair for pair in decoded if pair is not None] or good
                if not good:
                    example = next(iter(self._skipped.values()))
                    raise T2IError(f"none of the first {len(decoded)} images can be read, such as: {example}")
                self._done = number + 1
                batch = list(islice(cycle(good), len(decoded)))  # as large as on the other processes
                seed = stable_seed(self.data.seed, epoch, self.rank, number)
                if self._skipped and number + 1 == len(self):  # Lightning asks for nothing behind the last batch
                    example = next(iter(self._skipped.values()))
                    are = by_number(len(self._skipped), "is", "are")
                    count = f"{counted(len(self._skipped), 'image')} cannot be read and {are} left out"
                    print(f"{count}, such as: {example}", file=sys.stderr)
                yield self.data.assemble(batch, self.train and self.data.augment, seed)

    def _decode(self, pair: Pair) -> Pair | None:
        """Add the pixels that the model looks at; None if one of both images cannot be read and is to be left out."""
        needs, decode = self.data.needs, self.data.decode
        for sample in (pair.sample, pair.wrong) if self.data.index.lacking else ():
            if not sample.captions:
                self._skipped[sample.place] = sample.lacks or f"{sample.place} has no caption"
                return None
        sample = pair.sample
        try:
            pixels = decode(sample) if needs.images else None
            sample = pair.wrong
            return pair._replace(pixels=pixels, wrong_pixels=decode(sample) if needs.wrong_images else None)
        except ImageError as error:
            if self.data.spec.on_bad_image == "raise":
                raise
            self._skipped[sample.place] = error.found
            return None

    def _draw(self, epoch: int) -> Iterator[list[Pair]]:
        """The samples of each batch, drawn from the buffer, and those that they are mismatched with."""
        rng = torch.Generator().manual_seed(stable_seed(self.data.seed, epoch, self.rank))
        reader = self._samples(epoch)
        buffer, recent = list(islice(reader, self.data.source.buffer)), list[Sample]()
        for _ in range(len(self)):
            batch: list[Sample] = []
            while buffer and len(batch) < self.data.batch_size:
                place = int(torch.randint(len(buffer), (), generator=rng)) if self.train else 0
                batch.append(buffer.pop(place))
                buffer.extend(islice(reader, 1))
            pool, recent = [*batch, *buffer, *recent], batch
            labels = torch.tensor([sample.class_id for sample in pool])
            wrong = MismatchSampler(labels).draw(torch.arange(len(batch)), rng).tolist()
            yield [Pair(sample, pool[number]) for sample, number in zip(batch, wrong, strict=True)]

    def _samples(self, epoch: int) -> Iterator[Sample]:
        """This process's run of the shards, as they are ordered in this epoch."""
        index, shards = self.data.index, self.data.index.of(self.split)
        if self.train:
            rng = torch.Generator().manual_seed(stable_seed(self.data.seed, epoch))
            shards = [shards[i] for i in torch.randperm(len(shards), generator=rng).tolist()]
        edges = list(accumulate((shard.pictures for shard in shards), initial=0))
        place, end = self.rank * self.share, (self.rank + 1) * self.share
        while place < end:
            at = place % edges[-1]
            number = bisect_right(edges, at) - 1
            for sample in islice(self.data.source.samples(index, shards[number], at - edges[number]), end - place):
                place += 1
                yield sample

    def state_dict(self) -> dict[str, int]:
        """How many batches of the running epoch were handed out."""
        return {"batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch behind the batches that were handed out already."""
        self._first = self._done = state["batches"] % max(len(self), 1)


def _ahead(batches: Iterable[Iterator[Pair | None]]) -> Iterator[Iterator[Pair | None]]:
    """The same batches, each begun while those before it are in use."""
    waiting = deque[Iterator[Pair | None]]()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting
