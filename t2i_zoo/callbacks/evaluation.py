"""Scores of a model in training, by a named protocol, every few epochs."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import lightning as L

from t2i_zoo.callbacks.resume import ends_here
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.evaluation import evaluate, prepare
from t2i_zoo.metrics.networks import Network, build_network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import METRICS, load_protocol
from t2i_zoo.metrics.records import FILE, append_lines, lines_of
from t2i_zoo.models import load_model
from t2i_zoo.models.base import TextToImageGAN


class Evaluation(L.Callback):
    """Evaluate by a protocol every few epochs, at the end and in ``test``: to the loggers and ``metrics.jsonl``.

    All processes draw and measure their share. Captions and noise are the protocol's, the same each time, and training
    keeps its own random state. Scores are logged as ``eval/<protocol>/<metric>``.

    Args:
        protocol: name of a packaged protocol, or the path of one.
        every_n_epochs: epochs between two evaluations; 0 evaluates only at the end.
        images: number of images to draw; by default the protocol's.
        network: network that looks at the images; by default the protocol's.
        weights: weights of ``inception_v3_tf`` or a torchvision network: a path, or ``random``.
        batch_size: images drawn at once in each process.

    Raises:
        T2IError: for a protocol or network that is not available, before training starts.
    """

    def __init__(
        self,
        protocol: str,
        every_n_epochs: int = 10,
        images: int | None = None,
        network: str | None = None,
        weights: str | None = None,
        batch_size: int = 64,
    ) -> None:
        self.every_n_epochs, self.batch_size = every_n_epochs, batch_size
        self.protocol = load_protocol(protocol).change(images=images)
        self.weights = weights
        self.network: Network | None = None
        self._evaluated: int | None = None  # batches of the last evaluation
        self._needs_network = any(METRICS[name].needs_network for name in self.protocol.metrics)
        if self._needs_network:
            self.protocol = self.protocol.change(network=network)
            if self.protocol.network == "ask":
                raise T2IError(f"the protocol {protocol} leaves its network open: give network to Evaluation")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Build the network, which belongs to no model and enters no checkpoint."""
        if stage not in ("fit", "test"):
            return
        if not isinstance(pl_module, TextToImageGAN):
            raise T2IError(f"found a {type(pl_module).__name__}, which draws no images: leave Evaluation out")
        if self._needs_network and self.network is None:
            assert self.protocol.network is not None
            self.network = build_network(self.protocol.network, self.protocol.antialias, load_model, self.weights)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise before training if data, model or network lack what the protocol needs."""
        prepare(self.protocol, self._photographs(trainer), pl_module, self.network, pl_module.device, self.batch_size)
        self._free_device()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same before a test."""
        self.on_fit_start(trainer, pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate the tested model; all processes come here together."""
        self._evaluate(trainer, pl_module, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate if it is due; all processes come here together."""
        epoch = trainer.current_epoch + 1
        if trainer.sanity_checking or getattr(trainer, "fast_dev_run", False):
            return
        if ends_here(trainer) or (self.every_n_epochs and epoch % self.every_n_epochs == 0):
            self._evaluate(trainer, pl_module, epoch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate what training ends with."""
        if self._evaluated != getattr(pl_module, "clock", None) and not getattr(trainer, "fast_dev_run", False):
            self._evaluate(trainer, pl_module, trainer.current_epoch)

    def _photographs(self, trainer: L.Trainer) -> Photographs:
        data: Any = getattr(trainer, "datamodule", None)
        store = getattr(data, "store", None)
        if store is None:
            raise T2IError(
                "found no packed data, which Evaluation takes its real images from: leave it out, or train on a source "
                "that is packed"
            )
        if self.protocol.size not in (None, data.image_size):
            raise T2IError(
                f"found the protocol {self.protocol.name} of {self.protocol.size} px and data of {data.image_size} px, "
                "expected the same in training: leave size out of the protocol, or use t2i-zoo evaluate"
            )
        return Photographs(store, data.image_size)

    def _free_device(self) -> None:
        """Leave the memory of the device to the training."""
        if self.network is not None:
            self.network.to("cpu")

    def _evaluate(self, trainer: L.Trainer, model: L.LightningModule, epoch: int) -> None:
        assert isinstance(model, TextToImageGAN)
        folder, photographs = trainer.log_dir, self._photographs(trainer)  # both in all processes
        report = evaluate(self.protocol, photographs, model, self.network, model.device, self.batch_size)
        self._free_device()
        self._evaluated = model.clock
        if not trainer.is_global_zero:
            return
        values = {f"eval/{self.protocol.name}/{score.metric}": score.value for score in report.scores}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=max(model.clock - 1, 0))  # of the last batch, as Lightning counts
        if folder is not None:
            about = {
                "name": type(model).__name__,
                "checkpoint": f"epoch {epoch}",
                "checkpoint_sha256": "",
                "model": type(model).__name__,
                "batches": model.clock,
                "epoch": epoch,
                "data": photographs.key,
                "size": photographs.size,
                "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            }
            append_lines(Path(folder) / FILE, lines_of(report, self.protocol, self.network, about))
