"""What encoders, caption writers and classifiers have in common: they are trained, but draw no pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from t2i_zoo.batch import Batch
from t2i_zoo.errors import T2IError
from t2i_zoo.models.zoo import ZooModule


class ServingModule(ZooModule):
    """Base of what is trained to serve a GAN; a subclass writes ``evaluate`` and ``summarise``.

    Attributes:
        use: what a run of it is good for, as an advice to those who want to draw with it.
        known: the words that it knows, with an attribute ``words``; None for what knows none.
    """

    use: str
    known: Any = None

    def evaluate(self, stage: str, batch: Batch) -> None:
        """Log the losses of a held-out batch as ``val/...`` or ``test/...``, and keep what ``summarise`` needs."""
        raise NotImplementedError

    def summarise(self, stage: str) -> None:
        """Log what follows from all batches of a split together."""
        raise NotImplementedError

    def know(self, words: Sequence[str]) -> None:
        """Take the words of captions or of a checkpoint, and make room for them."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate on held-out pictures or captions."""
        self.evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the test split."""
        self.evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log what follows from the whole split."""
        self.summarise("val")

    def on_test_epoch_end(self) -> None:
        """The same of the test split."""
        self.summarise("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> None:
        """There is nothing to predict."""
        raise T2IError(f"{type(self).__name__} draws no pictures: {self.use}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the words, in the order of the table's rows."""
        super().on_save_checkpoint(checkpoint)
        if self.known is not None:
            checkpoint["t2i_zoo"]["words"] = self.known.words

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the words back, before the weights come."""
        super().on_load_checkpoint(checkpoint)
        if self.known is not None:
            self.know(checkpoint.get("t2i_zoo", {}).get("words", ()))
