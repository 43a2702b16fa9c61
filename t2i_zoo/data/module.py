"""The data module: any source, through one packed store, to batches on the device."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor

from t2i_zoo.batch import Batch
from t2i_zoo.data.images import Resample, Resize
from t2i_zoo.data.pixels import Pixels
from t2i_zoo.data.plan import Batches, Order, Plan, Planner
from t2i_zoo.data.records import Source
from t2i_zoo.data.store import Store, StoreSpec, open_store
from t2i_zoo.data.transforms import normalise
from t2i_zoo.errors import T2IError
from t2i_zoo.paths import cache_folder
from t2i_zoo.text import TextCache, TextEncoder, TextFeatures, words_of


class CaptionDataModule(L.LightningDataModule):
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
        self.spec = StoreSpec(source, load_size, resize, on_bad_image, resample)
        self.store: Store | None = None
        self._pixels: Pixels | None = None
        self._sentences: Tensor | None = None
        self._words: tuple[Any, Any] | None = None
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

    def text_cache(self, encoder: TextEncoder, words: bool | None = None) -> TextCache:
        """The cache of an encoder's features, with those of words where they are asked for or the model needs them."""
        words = self._wants("needs_words", False) if words is None else words
        return TextCache(self.cache / "text", encoder, words=words)

    def prepare_data(self) -> None:
        """Pack the store and encode its captions, where that has not been done; one process a machine does it."""
        store = open_store(self.spec, self.cache / "stores", progress=True)
        if self.encoder is not None:
            if self.trainer is not None:
                self.encoder.to(self.trainer.strategy.root_device)
            self.text_cache(self.encoder).ensure(store.captions, progress=True)

    def setup(self, stage: str = "fit") -> None:
        """Open what ``prepare_data`` made, and check it against the batch size."""
        store = self._opened
        share, world = len(store.rows("train")), self.trainer.world_size if self.trainer else 1
        if stage == "fit" and share < self.batch_size * world:
            each = f" on each of {world} processes" if world > 1 else ""
            raise T2IError(
                f"the training split of {self.source.path} holds {share} pictures, fewer than one batch of "
                f"{self.batch_size}{each}: set --data.batch_size to {max(share // world, 1)} or less"
            )
        if self.encoder is not None and not store.captions:
            raise T2IError(
                f"the pictures of {self.source.path} have no captions and the model reads them: use a source with "
                "captions, or train without text with --model.text_encoder none where the model can"
            )
        if stage == "fit" and share < 2:
            raise T2IError(f"the training split of {self.source.path} holds one picture, expected a second to mismatch")
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        reader = (device, self.encoder and self.encoder.fingerprint(), self._wants("needs_words", False))
        if reader == self._reader:
            return
        self._reader, self._sentences, self._words = reader, None, None  # another model may read other features
        self._pixels = store.pixels()
        if device.type == "cuda" and (
            self.device_resident == "yes"
            or (self.device_resident == "auto" and store.images.nbytes < torch.cuda.mem_get_info(device)[0] // 4)
        ):
            self._pixels = self._pixels.to(device)
        if self.encoder is not None:
            cache = self.text_cache(self.encoder)
            cache.ensure(store.captions)
            with warnings.catch_warnings():  # it may be a read-only mapping of the cache, which nobody writes to
                warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
                self._sentences = torch.from_numpy(cache.sentences(store.captions))
            if self._pixels.device == device:
                self._sentences = self._sentences.to(device)
            if self._wants("needs_words", False):
                self._words = cache.word_rows(store.captions)

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
        return [c for row in store.rows(split) for c in store.captions[store.offsets[row] : store.offsets[row + 1]]]

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

    def _batches(self, split: str, train: bool = False) -> Batches:
        return Batches(self.planner(split, train), lambda: self.trainer.current_epoch if self.trainer else 0)

    def train_dataloader(self) -> Batches:
        """Plans of the training split."""
        return self._batches("train", train=True)

    def val_dataloader(self) -> Batches | list[Any]:
        """Plans of the validation split, or of the test split where there is none."""
        split = next((s for s in ("val", "test") if len(self._opened.rows(s))), None)
        return self._batches(split) if split else []

    def test_dataloader(self) -> Batches | list[Any]:
        """Plans of the test split, or of the validation split where there is none."""
        split = next((s for s in ("test", "val") if len(self._opened.rows(s))), None)
        return self._batches(split) if split else []

    predict_dataloader = test_dataloader

    # From plan to batch ---------------------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Plan, dataloader_idx: int = 0) -> dict[str, Any]:
        """Look up strings and, where the store is on the host, the cut pixels: only uint8 crosses to the device."""
        store = self._opened
        assert self._pixels is not None
        labels = torch.from_numpy(store.labels)
        part: dict[str, Any] = {
            "plan": batch,
            "captions": self._strings(batch.captions),
            "wrong_captions": self._strings(batch.wrong_captions),
            "labels": labels[batch.rows],
            "wrong_labels": labels[batch.wrong_rows],
        }
        if self._wants("needs_neighbours", False):
            part["neighbours"] = self._neighbours(batch)
        if self._pixels.device.type == "cpu":
            self._cut(part, batch)
        if self._sentences is not None and self._sentences.device.type == "cpu":
            part["text"] = TextFeatures(self._sentence(batch.captions))
            part["wrong_text"] = TextFeatures(self._sentence(batch.wrong_captions))
        if self._words is not None:  # always on the host: of COCO they are tens of gigabytes
            part["words"] = self._padded_words(batch.captions[:, 0])
            part["wrong_words"] = self._padded_words(batch.wrong_captions[:, 0])
        return part

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int = 0) -> Batch:
        """Everything else, on the device."""
        plan: Plan = batch.pop("plan")
        assert self._pixels is not None
        if self._pixels.device.type != "cpu":
            self._cut(batch, plan)
        if self._sentences is not None and "text" not in batch:
            batch["text"] = TextFeatures(self._sentence(plan.captions))
            batch["wrong_text"] = TextFeatures(self._sentence(plan.wrong_captions))
        for kind in ("", "wrong_") if "words" in batch else ():
            words, mask = batch.pop(f"{kind}words")
            batch[f"{kind}text"] = TextFeatures(batch[f"{kind}text"].sentence, words, mask)
        for kind, crops in (("", plan.crops), ("wrong_", plan.wrong_crops)):
            if f"{kind}pixels" in batch:
                batch[f"{kind}images"] = normalise(batch.pop(f"{kind}pixels"), crops.flip, self.sizes)
        result: Batch = {"index": plan.pictures, **batch}  # type: ignore[typeddict-item]
        return result

    def _cut(self, part: dict[str, Any], plan: Plan) -> None:
        """Add the pixels that the model looks at, (B, 3, S, S) uint8."""
        assert self._pixels is not None
        if self._wants("needs_images", True):
            part["pixels"] = self._pixels.gather(plan.rows, plan.crops, self.image_size)
        if self._wants("needs_wrong_images", False):
            part["wrong_pixels"] = self._pixels.gather(plan.wrong_rows, plan.wrong_crops, self.image_size)

    def _strings(self, numbers: Tensor) -> list[str]:
        """The first caption of each picture; blank where the source has none."""
        captions = self._opened.captions
        return [captions[i] for i in numbers[:, 0].tolist()] if captions else [""] * len(numbers)

    def _neighbours(self, plan: Plan) -> list[tuple[str, str]]:
        """The captions before and after each one among those of its picture, cyclically."""
        captions, offsets = self._opened.captions, torch.from_numpy(self._opened.offsets)
        first, amount = offsets[plan.rows], offsets[plan.rows + 1] - offsets[plan.rows]
        place = plan.captions[:, 0] - first
        before, after = ((first + (place + step) % amount).tolist() for step in (-1, 1))
        return [(captions[i], captions[j]) for i, j in zip(before, after, strict=True)]

    def _sentence(self, captions: Tensor) -> Tensor:
        """Sentence features (B, D), each the mean over its K captions: (B, K) caption numbers."""
        assert self._sentences is not None
        return self._sentences[captions[:, 0]] if captions.shape[1] == 1 else self._sentences[captions].mean(1)

    def _padded_words(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Word features (B, T, W) of each picture's first caption, zeros behind its end, and the mask (B, T)."""
        assert self._words is not None
        flat, offsets = self._words
        first, lengths = offsets[captions.numpy()], offsets[captions.numpy() + 1] - offsets[captions.numpy()]
        mask = np.arange(lengths.max()) < lengths[:, None]
        words = np.zeros((*mask.shape, flat.shape[1]), np.float32)
        words[mask] = flat[(first[:, None] + np.arange(mask.shape[1]))[mask]]
        return torch.from_numpy(words), torch.from_numpy(mask)
