"""What the packed and the streamed data module share: their options, the model that they serve, and their loaders."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from t2i_zoo.batch import Batch, BatchNeeds, CaptionedData, ReadsBatches
from t2i_zoo.data.images import MEGAPIXELS, Resample, Resize
from t2i_zoo.data.notes import counted
from t2i_zoo.data.packing import StoreSpec
from t2i_zoo.data.plan import Order
from t2i_zoo.data.records import Source
from t2i_zoo.data.transforms import normalise
from t2i_zoo.data.usable import OnBad
from t2i_zoo.errors import T2IError
from t2i_zoo.paths import cache_folder
from t2i_zoo.ranges import Count, Positive, Several, Whole, check_ranges
from t2i_zoo.text import TextEncoder, TextFeatures, words_of


class BaseDataModule(L.LightningDataModule, CaptionedData):
    """Captioned images for any model of the zoo; ``CaptionDataModule`` describes the arguments.

    A subclass writes ``prepare_data``, ``setup``, ``look_up``, ``has``, ``loader`` and the hooks around the transfer.
    """

    def __init__(
        self,
        source: Source,
        *,
        image_size: Count = 64,
        load_size: int | None = None,
        resize: Resize = "stretch",
        resample: Resample = "area",
        draft: bool = False,
        pyramid: list[int] | None = None,
        batch_size: Count = 64,
        captions_averaged: Count = 1,
        order: Order = "shuffle",
        oversample: dict[str, int] | None = None,
        augment: bool = True,
        on_bad_image: OnBad = "raise",
        on_bad_caption: OnBad = "raise",
        max_megapixels: Positive = MEGAPIXELS,
        device_resident: Literal["auto", "yes", "no"] = "auto",
        cache_dir: str | None = None,
        limit: Several | None = None,
        seed: Whole = 0,
    ) -> None:
        super().__init__()
        check_ranges(BaseDataModule, locals(), "data")
        if odd := [size for size in pyramid or () if not 1 <= size <= image_size]:
            raise T2IError(f"found {odd[0]} in --data.pyramid, expected sizes from 1 to the image size {image_size}")
        load_size = math.ceil(image_size * 76 / 64) if load_size is None else load_size
        if load_size < image_size:
            raise T2IError(f"found --data.load_size {load_size}, expected at least the image size {image_size}")
        self.source, self.image_size, self.batch_size, self.seed = source, image_size, batch_size, seed
        self._pyramid = [*sorted(set(pyramid) - {image_size}), image_size] if pyramid else []
        if odd_words := [word for word, times in (oversample or {}).items() if times < 1 or words_of(word) != [word]]:
            raise T2IError(
                f"found {odd_words[0]!r} in --data.oversample, expected words in lower case with integers from 1, such "
                "as {blue: 4}"
            )
        self.oversample = oversample or {}
        self.captions_averaged, self.order, self.augment = captions_averaged, order, augment
        self.device_resident = device_resident
        self.cache = Path(cache_dir).expanduser() if cache_dir else cache_folder()
        self.spec = StoreSpec(
            source, load_size, resize, on_bad_image, resample, draft, on_bad_caption, max_megapixels, limit
        )
        self._given: ReadsBatches | None = None  #: the model of ``batches``
        self._plain: BaseDataModule | None = None  #: the copy that serves it

    # The model that is served ---------------------------------------------------------------------------------------

    @property
    def model(self) -> ReadsBatches | None:
        """The model in training, or the one that was given to ``batches``."""
        found: Any = self.trainer.lightning_module if self.trainer is not None else self._given
        # isinstance of a protocol finds no submodules from Python 3.12 on, and a text encoder is one
        return found if all(hasattr(found, name) for name in ("needs", "text_encoder")) else None

    @property
    def needs(self) -> BatchNeeds:
        """What the model reads of a batch; without a model, images and captions."""
        return self.model.needs if self.model is not None else BatchNeeds()

    @property
    def encoder(self) -> TextEncoder | None:
        """The frozen text encoder of the model, or None where it has none or reads no text."""
        encoder = self.model.text_encoder if self.model is not None else None
        return encoder if encoder is not None and encoder.dim else None

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        if self.trainer is not None:
            return self.trainer.strategy.root_device
        return self.model.device if self.model is not None else torch.device("cpu")

    @property
    def sizes(self) -> list[int]:
        """Sides of the images in a batch, smallest first."""
        return self._pyramid or list(self.needs.sizes) or [self.image_size]

    @property
    def rank_and_world(self) -> tuple[int, int]:
        """The number of this process and how many there are."""
        if self.trainer is not None:
            return self.trainer.global_rank, self.trainer.world_size
        return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)

    def check(self, stage: str, counts: Mapping[str, int], captioned: bool) -> None:
        """Raise where the training split is too small, or the model reads what is not there.

        Args:
            stage: of the Trainer; only ``fit`` needs a training split.
            counts: images of each split.
            captioned: whether there are captions.
        """
        world, share, place = self.rank_and_world[1], counts["train"], self.source.path
        if stage == "fit" and share < 1:
            listed = ", ".join(f"{count} {split}" for split, count in counts.items())
            raise T2IError(
                f"none of the {sum(counts.values())} images of {place} is in the split train ({listed}): correct the "
                "column split, or the folders that give the splits"
            )
        if stage == "fit" and share < 2:
            raise T2IError(f"the training split of {place} holds one image, expected a second to mismatch: add images")
        if stage == "fit" and share < self.batch_size * world:
            each, most, least = f" on each of {world} processes" if world > 1 else "", share // world, self.needs.least
            remedy = f"set --data.batch_size to {most}{' or less' if most > least else ''}"
            raise T2IError(
                f"the training split of {place} holds {share} images, fewer than one batch of "
                f"{self.batch_size}{each}: {remedy if most >= least else 'give more images'}"
            )
        if self.encoder is not None and not captioned:
            able = getattr(self.model, "text_is_optional", False)
            without = "--model.text_encoder none" if able else "a model that can, as --config stackganpp_unconditional"
            raise T2IError(
                f"the images of {place} have no captions and the model reads them: use a source with captions, or "
                f"train without text with {without}"
            )

    def content(self) -> str:
        """How many images there are and what their captions say, as one word."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What the order of a run's data depends on, and which data these are, for its checkpoint."""
        batches = {"batch_size": self.batch_size, "processes": self.rank_and_world[1]}
        return {**batches, "source": self.source.root or str(self.source.path), "content": self.content()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Say where a resumed run has other data, and what other batches do to the order of the data."""
        now, (rank, _) = self.state_dict(), self.rank_and_world
        if self.trainer is None or self.trainer.state.fn != "fit" or rank != 0:
            return
        if state.get("content", now["content"]) != now["content"]:  # earlier versions did not note it
            was, found = state["source"], now["source"]
            other = f"other images or captions in {found}" if was == found else f"{found} instead of {was}"
            print(f"note: the run goes on with {other}", file=sys.stderr)
        if any(state[name] != now[name] for name in ("batch_size", "processes")):
            was, found = (
                f"{counted(s['batch_size'], 'image')} on {counted(s['processes'], 'process')}" for s in (state, now)
            )
            print(
                f"note: the run had batches of {was} and now has {found}: if it was stopped in the middle of an epoch, "
                "the rest of that epoch repeats or leaves out images, and all later ones are cut into other batches",
                file=sys.stderr,
            )

    # Loaders --------------------------------------------------------------------------------------------------------

    def look_up(self) -> None:
        """Find the cached features that the model reads; called whenever a loader is made.

        Lightning asks for loaders once it has restored a checkpoint. In ``setup`` it has not, and the restored text
        encoder may be another one than the config names.
        """
        raise NotImplementedError

    def has(self, split: str) -> bool:
        """Whether a split has images."""
        raise NotImplementedError

    def loader(self, split: str, train: bool, epoch: Callable[[], int]) -> Any:
        """What is iterated over, once an epoch: batches ahead of the transfer hooks.

        Args:
            split: of the source.
            train: shuffle, augment and drop the ragged batch; evaluation does none of these.
            epoch: asked at the first batch of each iteration.
        """
        raise NotImplementedError

    def _loader(self, *splits: str) -> Any:
        """The loader of the first of these splits that has images; an empty list where none has."""
        split = next(filter(self.has, splits), None)
        if split is None:
            return []
        self.look_up()
        return self.loader(split, split == "train", lambda: self.trainer.current_epoch if self.trainer else 0)

    def train_dataloader(self) -> Any:
        """The training split."""
        return self._loader("train")

    def val_dataloader(self) -> Any:
        """The validation split, or the test split where there is none."""
        return self._loader("val", "test")

    def test_dataloader(self) -> Any:
        """The test split, or the validation split where there is none."""
        return self._loader("test", "val")

    predict_dataloader = test_dataloader

    def batches(self, split: str = "train", model: ReadsBatches | None = None, epoch: int = 0) -> Iterator[Batch]:
        """Finished batches of one epoch, for a loop without a Trainer.

        Args:
            split: ``train`` is shuffled and augmented; ``val`` and ``test`` are not.
            model: decides by its needs and its text encoder what a batch holds, and by its device where it is;
                without one, batches hold images and captions and are on the CPU.
            epoch: of the training split, whose order, crops and captions differ from epoch to epoch.

        Raises:
            T2IError: where the split has no images, or too few for one batch.
        """
        if self._plain is None or self._plain._given is not model:  # a copy, since a Trainer may be using this one
            self._plain = copy.copy(self)
            self._plain.trainer, self._plain._given, self._plain._plain = None, model, None
        return self._plain._finished_batches(split, epoch)

    def _finished_batches(self, split: str, epoch: int) -> Iterator[Batch]:
        self.setup("fit" if split == "train" else "test")
        if not self.has(split):
            raise T2IError(f"{self.source.path} has no images in the split {split!r}: choose another split")
        self.look_up()
        for batch in self.loader(split, split == "train", lambda: epoch):
            ready = self.transfer_batch_to_device(self.on_before_batch_transfer(batch, 0), self.device, 0)
            yield self.on_after_batch_transfer(ready, 0)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move everything but lists, which hold strings: Lightning would look at each of them, in every batch."""
        moved = move_data_to_device({key: part for key, part in batch.items() if not isinstance(part, list)}, device)
        return {**batch, **moved}

    def finish(self, part: dict[str, Any], index: Tensor) -> Batch:
        """Join words with their sentences, and turn pixels into the pyramid of images."""
        for kind in ("", "wrong_"):
            if f"{kind}words" in part:
                words, mask = part.pop(f"{kind}words")
                part[f"{kind}text"] = TextFeatures(part[f"{kind}text"].sentence, words, mask)
            if f"{kind}pixels" in part:
                part[f"{kind}images"] = normalise(part.pop(f"{kind}pixels"), self.sizes)
        result: Batch = {"index": index, **part}  # type: ignore[typeddict-item]
        return result
