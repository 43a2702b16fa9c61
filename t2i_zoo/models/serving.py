"""What encoders, captioners and classifiers share: they are trained, but do not generate images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from t2i_zoo.batch import Batch
from t2i_zoo.errors import T2IError
from t2i_zoo.models.zoo import ZooModule


class ServingModule(ZooModule):
    """Base of what is trained to serve a GAN; a subclass writes ``evaluate`` and ``summarise``.

    Attributes:
        use: how to use one of its runs; part of the error for those who try to generate with it.
        known: its vocabulary, with an attribute ``words``; None for models without one.
    """

    use: str
    known: Any = None

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

    def __init__(self) -> None:
        super().__init__()
        self._pool: list[tuple[Tensor, ...]] = []

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
        order = index.argsort(stable=True)
        first = torch.ones_like(order, dtype=torch.bool)  # ranks repeat images to have equally many
        first[1:] = index[order][1:] != index[order][:-1]
        rows = order[first]
        for key, value in self.retrieval(codes[rows], sentences[rows], labels[rows]).items():
            self.log(f"{stage}/{key}", value)
