"""What encoders, captioners and classifiers share: they are trained, but do not generate images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, BatchNeeds
from t2i_zoo.errors import T2IError
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.nn import class_loss


class ServingModule(ZooModule):
    """Base of what is trained to serve a GAN; a subclass writes ``evaluate`` and ``summarise``.

    Attributes:
        use: how to use one of its runs; part of the error for those who try to generate with it.
        known: its vocabulary, with an attribute ``words``; None for models without one.
        class_head: a linear classifier on the features of its backbone, or None.
    """

    use: str
    known: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.class_head: nn.Linear | None = None

    def training_captions(self) -> list[str]:
        """All captions of the training split.

        Raises:
            T2IError: there are none.
        """
        data = self.data_module
        captions = data.captions_of("train") if data is not None else []
        if not captions:
            raise T2IError(
                f"found no training captions: give {type(self).__name__} a CaptionDataModule whose source has some"
            )
        return captions

    def trained_parameters(self) -> list[nn.Parameter]:
        """The parameters that are not frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode without gradients; the former mode comes back at the end."""
        mode = self.training
        try:
            with torch.no_grad():
                self.eval()
                yield
        finally:
            self.train(mode)

    def add_class_head(self, features: int) -> None:
        """Make ``class_head`` for features of this dimension, if the option ``class_weight`` is not 0."""
        if self.hparams["class_weight"]:
            self.class_head = nn.Linear(features, self.hparams["num_classes"])

    def add_class_loss(self, found: dict[str, Tensor], features: Tensor, labels: Tensor | None) -> None:
        """Add ``class``, the cross-entropy of ``class_head``, to the losses, and its weighted value to ``loss``."""
        if self.class_head is not None and labels is not None:
            found["class"] = class_loss(self.class_head(features), labels)
            found["loss"] = found["loss"] + self.hparams["class_weight"] * found["class"]

    def log_training(self, found: Mapping[str, Tensor], count: int) -> Tensor:
        """Log the losses of a batch of ``count`` items as ``train/...``, count the batch, and return ``loss``."""
        self.log_dict({f"train/{key}": value.detach() for key, value in found.items()}, batch_size=count)
        return self.count_batch(found["loss"])

    def count_batch(self, loss: Tensor) -> Tensor:
        """Count a training batch, watch that its loss is finite, and return it."""
        self.clock += 1
        self.note_losses({"train/loss": loss})
        if self.trainer._logger_connector.should_update_logs:
            self.check_losses()
        return loss

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Log the losses of a held-out batch as ``val/...`` or ``test/...``, and keep what ``summarise`` needs."""
        raise NotImplementedError

    def summarise(self, stage: str) -> None:
        """Log the measures of a whole split."""
        raise NotImplementedError

    def know(self, words: Sequence[str]) -> None:
        """Adopt the words of captions or of a checkpoint, and resize what depends on their number."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate on held-out images or captions."""
        self.evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate on the test split."""
        self.evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log the measures of the validation split."""
        self.summarise("val")

    def on_test_epoch_end(self) -> None:
        """Log the measures of the test split."""
        self.summarise("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """Raise: there is nothing to predict."""
        raise T2IError(f"{type(self).__name__} generates no images: {self.use}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the words, in the order of the embedding table."""
        super().on_save_checkpoint(checkpoint)
        if self.known is not None:
            checkpoint["t2i_zoo"]["words"] = self.known.words

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the words, ahead of the weights."""
        super().on_load_checkpoint(checkpoint)
        if self.known is not None:
            self.know(checkpoint.get("t2i_zoo", {}).get("words", ()))


class RetrievalModule(ServingModule):
    """Base of pairs of image and text encoders; a subclass writes ``forward`` and ``retrieval``.

    ``forward`` returns the losses of a batch, image codes (B, D) and sentence embeddings (B, D).
    """

    needs = BatchNeeds(wrong_text=False, least=2)
    parts = ("text_network.", "image_network.")
    starting_points = ("weights", "backbone_weights")

    def __init__(self) -> None:
        super().__init__()
        self._pool: list[tuple[Tensor, ...]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the losses."""
        found, codes, _ = self(batch)
        return self.log_training(found, len(codes))

    def retrieval(self, codes: Tensor, sentences: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Retrieval scores of a split: image codes and sentence embeddings (N, D), classes (N,) or -1."""
        raise NotImplementedError

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Log losses, and keep codes and embeddings for ``retrieval``."""
        found, codes, sentences = self(batch)
        self.log_dict({f"{stage}/{k}": value for k, value in found.items()}, batch_size=len(codes), sync_dist=True)
        unknown = torch.full((len(codes),), -1, device=codes.device)
        self._pool.append((codes.float(), sentences.float(), batch.get("labels", unknown), batch["index"]))

    def summarise(self, stage: str) -> None:
        """Log retrieval over the images of all processes, each once."""
        gathered: Any = self.all_gather([torch.cat(part) for part in zip(*self._pool, strict=True)])
        self._pool.clear()
        codes, sentences = (part.reshape(-1, part.shape[-1]) for part in gathered[:2])
        labels, index = (part.reshape(-1) for part in gathered[2:])
        rows = first_of_each(index)
        for key, value in self.retrieval(codes[rows], sentences[rows], labels[rows]).items():
            self.log(f"{stage}/{key}", value)


def first_of_each(index: Tensor) -> Tensor:
    """One row of each image, in the order of ``index`` (N,); ranks repeat images to have equally many."""
    order = index.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = index[order][1:] != index[order][:-1]
    return order[first]


def check_class_weight(options: Mapping[str, Any]) -> None:
    """Raise if ``class_weight`` asks for a classifier without ``num_classes``."""
    if options["class_weight"] and options["num_classes"] is None:
        raise T2IError("found --model.class_weight without --model.num_classes: set it to the data's number of classes")
