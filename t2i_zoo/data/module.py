"""The data module: any source, through one packed store, to batches on the device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from t2i_zoo.batch import Batch
from t2i_zoo.data.base import BaseDataModule
from t2i_zoo.data.captions import CaptionLookup
from t2i_zoo.data.pixels import StoreImages
from t2i_zoo.data.plan import Plan, Planner, Plans
from t2i_zoo.data.store import SPLITS, Store, open_store
from t2i_zoo.text import TextCache, TextEncoder, TextFeatures, words_of
from t2i_zoo.text.cache import release_pages

_KEPT = 16  # batches whose pages of the mapped files stay


class _BySource(BaseDataModule):
    """Makes a ``StreamDataModule`` where a ``CaptionDataModule`` of streamed shards is asked for.

    So nobody has to choose, on the command line either. A class in between, since jsonargparse would read the options
    of a class with a ``__new__`` of its own from there.
    """

    def __new__(cls, source: Any = None, **options: Any) -> Any:
        if cls is CaptionDataModule and getattr(source, "stream", False):
            from t2i_zoo.data.stream import StreamDataModule

            return StreamDataModule(source, **options)
        return super().__new__(cls)


class CaptionDataModule(_BySource):
    """Captioned images from any source, for any model of the zoo.

    ``prepare_data`` packs the source once; from then on only indices move: cropping, mirroring, the pyramid and the
    mapping to [-1, 1] happen on the device. The model's frozen text encoder encodes each caption once, into a cache on
    disk. Streamed shards make it a ``StreamDataModule``, which yields the same batches.

    Args:
        source: where images and captions come from.
        image_size: side S of the images that the model sees, in pixels.
        load_size: side at which the store keeps them; 76/64 of ``image_size`` by default, as in all papers.
        resize: ignore the aspect ratio (GAN-CLS, StackGAN), cut the middle square first, or bring the short side to
            ``load_size`` and keep the aspect ratio (StackGAN++, AttnGAN, MirrorGAN).
        resample: area average, as the authors of GAN-CLS do, or PIL's bilinear filter, as the others do.
        draft: decode large JPEGs at a fraction of their size, at least twice ``load_size``; this is faster and changes
            pixels slightly.
        pyramid: further, smaller sizes of each image, such as [64, 128]; ``image_size`` is always the last. By
            default the sizes that the model asks for.
        batch_size: images in a batch, of each process.
        captions_averaged: captions of an image, drawn with replacement, whose features are averaged (GAN-CLS: 4);
            the batch's strings and word features are those of the first one.
        order: images shuffled, or classes drawn uniformly and then images, as the authors of GAN-CLS do.
        oversample: how many times an epoch draws an image that has a word in one of its captions, such as
            ``{blue: 4}`` for colours that few images have; the largest number counts, and other images come once.
        augment: random crops and mirrors in training.
        on_bad_image: stop at an image that is missing or unreadable, or leave it out and list it in the manifest.
        on_bad_caption: stop at an image without a caption, or leave it out and list it in the store's manifest.
        max_megapixels: the largest image that is decoded; larger ones count as unreadable.
        device_resident: keep the store on the GPU; ``auto`` does if it takes at most a quarter of the free memory.
        cache_dir: where stores and encoded captions are kept; the user's cache folder by default.
        limit: for a first try, pack and use about this many images, spread evenly over the splits; all by default.
        seed: of shuffling, crops, captions and mismatches.
    """

    store: Store | None = None
    _pixels: StoreImages | None = None
    _captions: CaptionLookup | None = None
    _served: tuple[Any, ...] | None = None  #: device, encoder and kind of features that were looked up
    _read = 0  # batches

    # Preparing ------------------------------------------------------------------------------------------------------

    def text_cache(self, encoder: TextEncoder, words: bool | None = None) -> TextCache:
        """The cache of an encoder's features, with those of words if asked for; by default if the model needs them."""
        return TextCache(self.cache / "text", encoder, words=self.needs.words if words is None else words)

    def prepare_data(self) -> None:
        """Pack the store and encode its captions unless that is done; Lightning calls it in one process a machine."""
        store = open_store(self.spec, self.cache / "stores", progress=True)
        for remark in [*store.remarks(), *store.manifest["remarks"]]:
            print(f"{remark} ({store.folder / 'manifest.json'})", file=sys.stderr)
        known = self.vocabulary() if self.oversample else frozenset()
        if unknown := [word for word in self.oversample if word not in known]:
            print(f"note: no training caption has {', '.join(unknown)}, of --data.oversample", file=sys.stderr)
        if self.encoder is not None:
            self.text_cache(self.encoder.to(self.device)).ensure(store.captions, progress=True)

    def setup(self, stage: str = "fit") -> None:
        """Open the store, and check it against the batch size and the model."""
        self.check(stage, {split: len(self.opened.rows(split)) for split in SPLITS}, bool(self.opened.captions))

    def content(self) -> str:
        """Of the store, whose pixels do not count: they differ with Pillow's version."""
        return f"{len(self.opened.starts)}-{self.opened.manifest['files']['captions.json']['hash']}"

    def look_up(self) -> None:
        """Open pixels and cached features for the model; captions that are not encoded yet are encoded here."""
        store, device, words = self.opened, self.device, self.needs.words
        served = (device, self.encoder and self.encoder.fingerprint(), words)
        if served == self._served:
            return
        if self._pixels is None or self._served is None or self._served[0] != device:
            self._pixels = store.pixels()
            if device.type == "cuda" and (
                self.device_resident == "yes"
                or (self.device_resident == "auto" and store.images.nbytes < torch.cuda.mem_get_info(device)[0] // 4)
            ):
                self._pixels = self._pixels.to(device)
        cache = self.text_cache(self.encoder.to(device)) if self.encoder is not None else None
        self._captions = CaptionLookup(store, cache, words, self._pixels.device)
        self._served = served

    @property
    def opened(self) -> Store:
        """The open store; it is packed first if it is missing."""
        if self.store is None:
            self.store = open_store(self.spec, self.cache / "stores")
        return self.store

    # What models ask ------------------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """One more than the largest class; 0 where the source has no classes."""
        return int(self.opened.labels.max()) + 1

    def classes_of(self, split: str) -> frozenset[int] | None:
        """The classes of one split."""
        return frozenset(self.opened.labels[self.opened.rows(split)].tolist()) - {-1}

    def captions_of(self, split: str) -> list[str]:
        """All captions of one split."""
        store = self.opened
        return [caption for row in store.rows(split) for caption in store.captions_of(row)]

    def vocabulary(self) -> frozenset[str]:
        """Every word of the training captions."""
        return frozenset(word for caption in self.captions_of("train") for word in words_of(caption))

    def example_captions(self, count: int) -> list[str]:
        """Captions of ``count`` held-out images, of different classes as far as possible; always the same."""
        store = self.opened
        if not store.captions:
            return [""] * count
        rows = next(found for split in ("test", "val", "train") if len(found := store.rows(split)))
        by_class = rows[np.argsort(store.labels[rows], kind="stable")]
        chosen = by_class[np.linspace(0, len(by_class) - 1, min(count, len(by_class))).astype(int)]
        return [store.captions[store.offsets[row]] for row in chosen]

    # Loaders --------------------------------------------------------------------------------------------------------

    def has(self, split: str) -> bool:
        """Whether a split has images."""
        return len(self.opened.rows(split)) > 0

    def planner(self, split: str, train: bool) -> Planner:
        """The planner of one split for this process."""
        store = self.opened
        rows, labels = torch.from_numpy(store.rows(split)), torch.from_numpy(store.labels)
        groups = None
        if train and self.oversample:
            rows = rows.repeat_interleave(torch.tensor([self._times(row) for row in rows.tolist()]))
            if bool((labels[rows] == labels[rows[0]]).all()):
                groups = rows  # so that no image is mismatched with itself
        return Planner(
            rows,
            labels[rows],
            torch.from_numpy(store.offsets),
            self.batch_size,
            self.captions_averaged,
            torch.from_numpy(store.shapes) - self.image_size,
            self.order,
            self.augment,
            train,
            self.seed,
            *self.rank_and_world,
            groups=groups,
        )

    def _times(self, row: int) -> int:
        """How many times an epoch draws an image."""
        words = {word for caption in self.opened.captions_of(row) for word in words_of(caption)}
        return max((times for word, times in self.oversample.items() if word in words), default=1)

    def loader(self, split: str, train: bool, epoch: Callable[[], int]) -> Plans:
        """Batches of a split, gathered ahead."""
        return Plans(self.planner(split, train), epoch, self.gather)

    # From plan to batch ---------------------------------------------------------------------------------------------

    def gather(self, batch: Plan) -> dict[str, Any]:
        """Look up strings and, where the store is on the host, cut the pixels: only uint8 crosses to the device."""
        if self._captions is None:
            self.look_up()
        assert self._pixels is not None
        assert self._captions is not None
        store, needs = self.opened, self.needs
        part: dict[str, Any] = {"plan": batch, "captions": self._captions.strings(batch.captions)}
        if needs.wrong_text:
            part["wrong_captions"] = self._captions.strings(batch.wrong_captions)
        if needs.neighbours:
            part["neighbours"] = self._captions.neighbours(batch.rows, batch.captions)
        if needs.references:
            part["references"] = [store.captions_of(row) for row in batch.rows.tolist()]
        if self._captions.has_words:
            part["words"] = self._captions.padded_words(batch.captions)
            if needs.wrong_text and needs.wrong_words:
                part["wrong_words"] = self._captions.padded_words(batch.wrong_captions)
        if self._pixels.device.type == "cpu":
            self._add_tensors(part, batch)
        if self.device.type == "cuda" and self._pixels.device.type == "cpu":
            with torch.cuda.device(self.device):  # this may be a thread, which would pin on the first GPU
                pinned = {key: value.pin_memory() for key, value in part.items() if key.endswith("pixels")}
            part |= pinned
        self._read += 1
        if self._read % _KEPT == 0:  # of a set like COCO all that was ever read would count as this process's memory
            release_pages(store.images)
            self._captions.release_pages()
        return part

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> Batch:
        """Everything else, on the device."""
        plan: Plan = batch.pop("plan")
        assert self._pixels is not None
        if self._pixels.device.type != "cpu":
            self._add_tensors(batch, plan)
        batch |= {"labels": plan.labels, "wrong_labels": plan.wrong_labels}
        return self.finish(batch, plan.positions)

    def _add_tensors(self, part: dict[str, Any], plan: Plan) -> None:
        """Add the pixels that the model looks at, (B, 3, S, S) uint8, and the sentence embeddings."""
        assert self._pixels is not None
        assert self._captions is not None
        if self.needs.images:
            part["pixels"] = self._pixels.gather(plan.rows, plan.crops, self.image_size)
        if self.needs.wrong_images:
            part["wrong_pixels"] = self._pixels.gather(plan.wrong_rows, plan.wrong_crops, self.image_size)
        if self._captions.has_sentences:
            part["text"] = TextFeatures(self._captions.sentence(plan.captions))
            if self.needs.wrong_text:
                part["wrong_text"] = TextFeatures(self._captions.sentence(plan.wrong_captions))
