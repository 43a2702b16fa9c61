"""The data module: any source, through one packed store, to batches on the device."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from t2i_zoo.batch import Batch, BatchNeeds
from t2i_zoo.data.captions import CaptionLookup
from t2i_zoo.data.images import Resample, Resize
from t2i_zoo.data.pixels import Pixels
from t2i_zoo.data.plan import Batches, Order, Plan, Planner
from t2i_zoo.data.records import Source
from t2i_zoo.data.store import Store, StoreSpec, open_store
from t2i_zoo.data.transforms import normalise
from t2i_zoo.errors import T2IError
from t2i_zoo.paths import cache_folder
from t2i_zoo.text import TextCache, TextEncoder, TextFeatures, words_of
from t2i_zoo.text.cache import let_go


class _BySource(L.LightningDataModule):
    """Makes a ``StreamDataModule`` where a ``CaptionDataModule`` of streamed shards is asked for.

    So nobody who builds a data module need choose, the command line included; it reads the options of a class from its
    ``__new__`` where that is its own, hence this class in between.
    """

    def __new__(cls, source: Any = None, **options: Any) -> _BySource:
        if cls is CaptionDataModule and getattr(source, "stream", False):
            from t2i_zoo.data.stream import StreamDataModule

            cls = StreamDataModule
        return super().__new__(cls)


_KEPT = 16  # batches whose pages of the mapped files stay


class CaptionDataModule(_BySource):
    """Captioned pictures from any source, for any model of the zoo.

    ``prepare_data`` packs the source once; from then on only indices move: cropping, mirroring, the pyramid and the
    mapping to [-1, 1] happen on the device. The model's frozen text encoder encodes each caption once, into a cache on
    disk.

    Args:
        source: where pictures and captions come from.
        image_size: side S of the pictures that the model sees, in pixels.
        load_size: side at which the store keeps them; by default 76/64 of ``image_size``, as all papers have it.
        resize: ignore the aspect ratio (GAN-CLS, StackGAN), cut the middle square first, or bring the short side to
            ``load_size`` and keep the aspect ratio (StackGAN++, AttnGAN, MirrorGAN).
        resample: area average, as the authors of GAN-CLS do, or PIL's bilinear filter, as the others do.
        draft: decode large JPEGs at a part of their size, at least twice ``load_size``; faster, other pixels by a bit.
        pyramid: further, smaller sizes of each picture, such as [64, 128]; ``image_size`` is always the last. By
            default what the model asks for.
        batch_size: of each process.
        captions_averaged: captions of a picture, drawn with replacement, whose features are averaged (GAN-CLS: 4);
            the batch's strings and word features are those of the first one.
        order: pictures shuffled, or classes drawn uniformly and then pictures, as the authors of GAN-CLS do.
        augment: random crops and mirrors in training.
        on_bad_image: stop at a file that is no picture, or leave it out and list it in the store's manifest.
        device_resident: keep the store on the GPU; ``auto`` does where it takes at most a quarter of the free memory.
        cache_dir: where stores and encoded captions are kept; by default the user's cache folder.
        seed: of shuffling, crops, captions and mismatches.
    """

    def __init__(
        self,
        source: Source,
        *,
        image_size: int = 64,
        load_size: int | None = None,
        resize: Resize = "stretch",
        resample: Resample = "area",
        draft: bool = False,
        pyramid: list[int] | None = None,
        batch_size: int = 64,
        captions_averaged: int = 1,
        order: Order = "shuffle",
        augment: bool = True,
        on_bad_image: Literal["raise", "skip"] = "raise",
        device_resident: Literal["auto", "yes", "no"] = "auto",
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("image_size", image_size),
            ("batch_size", batch_size),
            ("captions_averaged", captions_averaged),
        ):
            if value < 1:
                raise T2IError(f"found --data.{name} {value}, expected at least 1")
        if odd := [size for size in pyramid or () if not 1 <= size <= image_size]:
            raise T2IError(f"found {odd[0]} in --data.pyramid, expected sizes from 1 to the image size {image_size}")
        load_size = math.ceil(image_size * 76 / 64) if load_size is None else load_size
        if load_size < image_size:
            raise T2IError(f"found --data.load_size {load_size}, expected at least the image size {image_size}")
        self.source, self.image_size, self.batch_size, self.seed = source, image_size, batch_size, seed
        self._sizes = [*sorted(set(pyramid) - {image_size}), image_size] if pyramid else None
        self.captions_averaged, self.order, self.augment = captions_averaged, order, augment
        self.device_resident = device_resident
        self.cache = Path(cache_dir).expanduser() if cache_dir else cache_folder()
        self.spec = StoreSpec(source, load_size, resize, on_bad_image, resample, draft)
        self.store: Store | None = None
        self._pixels: Pixels | None = None
        self._read = 0  # batches
        self._captions: CaptionLookup | None = None
        self._reader: Any = None  #: the device and encoder that ``setup`` served

    # Preparing ------------------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> TextEncoder | None:
        """The frozen text encoder of the model in training, or None where it has none or reads no text."""
        encoder: TextEncoder | None = self._wants("text_encoder", None)
        return encoder if encoder is not None and encoder.dim else None

    @property
    def sizes(self) -> list[int]:
        """Sides of the pictures in a batch, smallest first."""
        return self._sizes or self._wants("sizes", None) or [self.image_size]

    @property
    def _model(self) -> Any:
        return self.trainer.lightning_module if self.trainer is not None else None

    def _wants(self, what: str, default: Any) -> Any:
        """What the model in training says of itself."""
        return getattr(self._model, what, default)

    @property
    def needs(self) -> BatchNeeds:
        """What the model in training reads of a batch."""
        names = ("wrong_images", "words", "neighbours", "references")
        rest = {name: self._wants(f"needs_{name}", False) for name in names}
        return BatchNeeds(self._wants("sizes", None), self._wants("needs_images", True), **rest)

    def text_cache(self, encoder: TextEncoder, words: bool | None = None) -> TextCache:
        """The cache of an encoder's features, with those of words where they are asked for or the model needs them."""
        words = self._wants("needs_words", False) if words is None else words
        return TextCache(self.cache / "text", encoder, words=words)

    def prepare_data(self) -> None:
        """Pack the store and encode its captions, where that has not been done; one process a machine does it."""
        store = open_store(self.spec, self.cache / "stores", progress=True)
        for remark in store.remarks():
            print(f"{remark} ({store.folder / 'manifest.json'})", file=sys.stderr)
        if self.encoder is not None:
            if self.trainer is not None:
                self.encoder.to(self.trainer.strategy.root_device)
            self.text_cache(self.encoder).ensure(store.captions, progress=True)

    def setup(self, stage: str = "fit") -> None:
        """Open what ``prepare_data`` made, and check it against the batch size."""
        store = self._opened
        self._check(stage, len(store.rows("train")), bool(store.captions))
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        reader = (device, self.encoder and self.encoder.fingerprint(), self._wants("needs_words", False))
        if reader == self._reader:
            return
        former, self._reader = self._reader, reader  # another model, or a restored one, may read other features
        if self._pixels is None or former is None or former[0] != device:
            self._pixels = store.pixels()
            if device.type == "cuda" and (
                self.device_resident == "yes"
                or (self.device_resident == "auto" and store.images.nbytes < torch.cuda.mem_get_info(device)[0] // 4)
            ):
                self._pixels = self._pixels.to(device)
        cache = self.text_cache(self.encoder) if self.encoder is not None else None
        self._captions = CaptionLookup(store, cache, self._wants("needs_words", False), self._pixels.device)

    def _check(self, stage: str, share: int, captioned: bool) -> None:
        """Raise where a training split of so many pictures is too small, or the model reads what is not there."""
        world = self.trainer.world_size if self.trainer else 1
        if stage == "fit" and share < self.batch_size * world:
            each = f" on each of {world} processes" if world > 1 else ""
            raise T2IError(
                f"the training split of {self.source.path} holds {share} pictures, fewer than one batch of "
                f"{self.batch_size}{each}: set --data.batch_size to {max(share // world, 1)} or less"
            )
        if self.encoder is not None and not captioned:
            raise T2IError(
                f"the pictures of {self.source.path} have no captions and the model reads them: use a source with "
                "captions, or train without text with --model.text_encoder none where the model can"
            )
        if stage == "fit" and share < 2:
            raise T2IError(f"the training split of {self.source.path} holds one picture, expected a second to mismatch")

    # What others ask ------------------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """One more than the largest class; 0 where the source has no classes."""
        return int(self._opened.labels.max()) + 1

    @property
    def _opened(self) -> Store:
        if self.store is None:
            self.store = open_store(self.spec, self.cache / "stores")
        return self.store

    def captions_of(self, split: str) -> list[str]:
        """All captions of one split."""
        store = self._opened
        return [caption for row in store.rows(split) for caption in store.captions_of(row)]

    def vocabulary(self) -> frozenset[str]:
        """Every word of the training captions."""
        return frozenset(word for caption in self.captions_of("train") for word in words_of(caption))

    def example_captions(self, count: int) -> list[str]:
        """Captions of ``count`` held-out pictures, of different classes as far as there are any; always the same."""
        store = self._opened
        if not store.captions:
            return [""] * count
        rows = next(found for split in ("test", "val", "train") if len(found := store.rows(split)))
        spread = rows[np.argsort(store.labels[rows], kind="stable")]
        chosen = spread[np.linspace(0, len(spread) - 1, min(count, len(spread))).astype(int)]
        return [store.captions[store.offsets[row]] for row in chosen]

    # Loaders --------------------------------------------------------------------------------------------------------

    def planner(self, split: str, train: bool) -> Planner:
        """The planner of one split for this process."""
        store = self._opened
        rows = torch.from_numpy(store.rows(split))
        trainer = self.trainer
        return Planner(
            rows,
            torch.from_numpy(store.labels)[rows],
            torch.from_numpy(store.offsets),
            self.batch_size,
            self.captions_averaged,
            torch.from_numpy(store.shapes) - self.image_size,
            self.order,
            self.augment,
            train,
            self.seed,
            trainer.global_rank if trainer else 0,
            trainer.world_size if trainer else 1,
        )

    def _split(self, *names: str) -> str | None:
        """The first of these splits that has pictures."""
        return next((name for name in names if len(self._opened.rows(name))), None)

    def _batches(self, split: str, train: bool = False) -> Batches:
        return Batches(self.planner(split, train), lambda: self.trainer.current_epoch if self.trainer else 0)

    def train_dataloader(self) -> Batches:
        """Plans of the training split."""
        return self._batches("train", train=True)

    def val_dataloader(self) -> Batches | list[Any]:
        """Plans of the validation split, or of the test split where there is none."""
        split = self._split("val", "test")
        return self._batches(split) if split else []

    def test_dataloader(self) -> Batches | list[Any]:
        """Plans of the test split, or of the validation split where there is none."""
        split = self._split("test", "val")
        return self._batches(split) if split else []

    predict_dataloader = test_dataloader

    # From plan to batch ---------------------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Plan, dataloader_idx: int = 0) -> dict[str, Any]:
        """Look up strings and, where the store is on the host, the cut pixels: only uint8 crosses to the device."""
        store = self._opened
        assert self._pixels is not None
        assert self._captions is not None
        labels = torch.from_numpy(store.labels)
        part: dict[str, Any] = {
            "plan": batch,
            "captions": self._captions.strings(batch.captions),
            "wrong_captions": self._captions.strings(batch.wrong_captions),
            "labels": labels[batch.rows],
            "wrong_labels": labels[batch.wrong_rows],
        }
        if self._wants("needs_neighbours", False):
            part["neighbours"] = self._captions.neighbours(batch.rows, batch.captions)
        if self._wants("needs_references", False):
            part["references"] = [self._opened.captions_of(row) for row in batch.rows.tolist()]
        if self._pixels.device.type == "cpu":
            self._cut(part, batch)
            self._add_sentences(part, batch)
        if self._captions.has_words:
            part["words"] = self._captions.padded_words(batch.captions)
            part["wrong_words"] = self._captions.padded_words(batch.wrong_captions)
        self._read += 1
        if self._read % _KEPT == 0:  # of a set like COCO all that was ever read would count as this process's memory
            let_go(store.images)
            self._captions.let_go()
        return part

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> Batch:
        """Everything else, on the device."""
        plan: Plan = batch.pop("plan")
        assert self._pixels is not None
        if self._pixels.device.type != "cpu":
            self._cut(batch, plan)
            self._add_sentences(batch, plan)
        return self._finished(batch, plan.pictures)

    def _finished(self, part: dict[str, Any], index: Tensor) -> Batch:
        """Words beside their sentences, and pixels as the models see them."""
        for kind in ("", "wrong_") if "words" in part else ():
            words, mask = part.pop(f"{kind}words")
            part[f"{kind}text"] = TextFeatures(part[f"{kind}text"].sentence, words, mask)
        for kind in ("", "wrong_"):
            if f"{kind}pixels" in part:
                part[f"{kind}images"] = normalise(part.pop(f"{kind}pixels"), self.sizes)
        result: Batch = {"index": index, **part}  # type: ignore[typeddict-item]
        return result

    def _add_sentences(self, part: dict[str, Any], plan: Plan) -> None:
        assert self._captions is not None
        if self._captions.has_sentences:
            part["text"] = TextFeatures(self._captions.sentence(plan.captions))
            part["wrong_text"] = TextFeatures(self._captions.sentence(plan.wrong_captions))

    def _cut(self, part: dict[str, Any], plan: Plan) -> None:
        """Add the pixels that the model looks at, (B, 3, S, S) uint8."""
        assert self._pixels is not None
        if self._wants("needs_images", True):
            part["pixels"] = self._pixels.gather(plan.rows, plan.crops, self.image_size)
        if self._wants("needs_wrong_images", False):
            part["wrong_pixels"] = self._pixels.gather(plan.wrong_rows, plan.wrong_crops, self.image_size)
