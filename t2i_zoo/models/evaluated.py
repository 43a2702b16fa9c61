"""What every GAN does with held-out batches, and how it logs its losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from t2i_zoo.batch import Batch
from t2i_zoo.models.aids import AidedModule
from t2i_zoo.models.compiling import uncompiled


class EvaluatedModule(AidedModule):
    """The evaluating half of ``TextToImageGAN``, which supplies both losses."""

    def __init__(self) -> None:
        super().__init__()
        self._latest: dict[str, Tensor] = {}  #: of each term in training

    def _log(self, stage: str, count: int, losses: dict[str, dict[str, Tensor]]) -> None:
        values = {
            f"{stage}/{network}_{key}": value.detach()
            for network, terms in losses.items()
            for key, value in terms.items()
        }
        if stage != "train":
            self.log_dict(values, batch_size=count, sync_dist=True)
            return
        # Lightning would keep the values of every batch, at a cost, without writing them. What a logged batch does not
        # compute, such as a lazy penalty, is logged with its last value.
        self._latest |= values
        if not self.trainer._logger_connector.should_update_logs:  # Lightning's count: the clock may be of another run
            return
        self.log_dict(self._latest, batch_size=count)
        self.check_losses()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the latest terms: a lazy penalty need not be computed before the next log."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["t2i_zoo"]["latest"] = {name: float(value) for name, value in self._latest.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what ``on_save_checkpoint`` added."""
        super().on_load_checkpoint(checkpoint)
        kept = checkpoint.get("t2i_zoo", {}).get("latest", {})
        self._latest = {name: torch.tensor(value) for name, value in kept.items()}

    @torch.no_grad()
    def _evaluate(self, stage: str, batch: Batch) -> None:
        batch["text"] = self.encode(batch)
        rng = torch.Generator().manual_seed(int(batch["index"][0]))  # the same noise in every evaluation
        count = len(batch["captions"])
        fakes = self.draw(self.generator_ema, self.noise(count, rng), batch["text"])
        gan: Any = self
        with uncompiled(self.hparams):
            losses_d, losses_g = gan.discriminator_loss(batch, fakes), gan.generator_loss(batch, fakes)
        self._log(stage, count, {"discriminator": losses_d, "generator": losses_g})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Both losses on held-out images, with the averaged generator."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Both losses on the test split."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One generated image for each image of the test split, from one of its captions."""
        rng = torch.Generator().manual_seed(int(batch["index"][0]))
        return {"images": self.generate(self.encode(batch), rng=rng), "captions": batch["captions"]}
