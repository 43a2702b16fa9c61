"""Samples of a model in training, from the same captions and noise each time, and the files of a prediction."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from t2i_zoo.callbacks.resume import ends_here
from t2i_zoo.callbacks.watch import Watch
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.loggers import show
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.pictures import attention_page, caption_grid, save_beside, save_images
from t2i_zoo.ranges import Count, Whole, check_ranges
from t2i_zoo.sampling import draw_rows


class SampleGrid(L.Callback):
    """Draw a grid of samples of the averaged generator with their captions, every few epochs and at the end.

    Grids go to ``<run>/samples/epoch_NNNN.png`` and to each logger that takes images (TensorBoard, wandb). Models that
    attend to words also draw their attention for the first caption, in ``<run>/attention``.

    Args:
        every_n_epochs: epochs between two grids; 0 draws only the last one.
        captions: one row each; by default captions of held-out images of different classes.
        rows: number of captions that are taken from the data.
        columns: images for each caption.
        seed: seed of the noise, which is the same in every grid.
        font: file of a font for the captions; by default each script is drawn with a font that this machine has.
    """

    def __init__(
        self,
        every_n_epochs: Whole = 5,
        captions: list[str] | None = None,
        rows: Count = 8,
        columns: Count = 8,
        seed: Whole = 0,
        font: str | None = None,
    ) -> None:
        check_ranges(SampleGrid, locals(), "samples")
        if captions is not None and not (captions and all(caption.strip() for caption in captions)):
            raise T2IError(
                f"found --samples.captions {captions}, expected one or more captions, or null for the data's"
            )
        self.every_n_epochs, self.columns, self.rows, self.seed = every_n_epochs, columns, rows, seed
        self.captions, self.font = captions, font
        self.hint = ""  #: a caption to draw with, known after the first grid
        self.latest: Path | None = None
        self._drawn: int | None = None  # batches of the last grid

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw if a grid is due."""
        epoch = trainer.current_epoch + 1
        if ends_here(trainer) or (self.every_n_epochs and epoch % self.every_n_epochs == 0):
            self._draw_once(trainer, pl_module, epoch)

    def draw(self, trainer: L.Trainer, model: TextToImageGAN) -> None:
        """Draw one now, as of the running epoch."""
        self._draw(trainer, model, trainer.log_dir, trainer.current_epoch)

    def _draw_once(self, trainer: L.Trainer, model: L.LightningModule, epoch: int) -> None:
        folder = trainer.log_dir  # a collective, so all ranks ask
        if trainer.is_global_zero and isinstance(model, TextToImageGAN) and self._drawn != model.clock:
            self._draw(trainer, model, folder, epoch)
            self._drawn = model.clock

    def _draw(self, trainer: L.Trainer, model: TextToImageGAN, folder: str | None, epoch: int) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        captions: Sequence[str] | None = self.captions
        if captions is None:
            if not hasattr(data, "example_captions"):
                return
            captions = data.example_captions(self.rows)
        self.hint = captions[0]
        rng = torch.Generator().manual_seed(self.seed)
        # rows that share their noise differ by their words alone; without text only noise can make them differ
        noises: Any = model.noise(self.columns, rng)
        if not model.conditional:
            noises = [noises, *(model.noise(self.columns, rng) for _ in captions[1:])]
        rows = draw_rows(model, captions, noises)
        for watch in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(watch, Watch):
                watch.look(trainer, model, rows)
        pages = {"samples": caption_grid(rows, captions, font=self.font)}
        if model.attends:
            pages["attention"] = _attention(model, captions[0], noises[:1])
        if folder is None or getattr(trainer, "fast_dev_run", False):
            return
        for kind, page in pages.items():
            path = save_beside(page, Path(folder) / kind / f"epoch_{epoch:04d}.png")
            self.latest = path if kind == "samples" else self.latest
            for logger in trainer.loggers:
                mine = (captions, rows) if kind == "samples" else (captions[:1], [])
                show(logger, kind, page, *mine, model.clock)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the last grid, if no epoch's end has, and say where the samples are and how to draw more."""
        unfinished = not trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        self._draw_once(trainer, pl_module, trainer.current_epoch + unfinished)
        if trainer.is_global_zero and self.latest is not None:
            run = self.latest.parents[1]
            print(f"\nsamples with their captions: {self.latest}")
            text = f" --text {shlex.quote(self.hint)}" if self.hint else ""
            print(f"draw your own: t2i-zoo sample --ckpt {run}{text} --out grid.png")


def _attention(model: Any, caption: str, noise: torch.Tensor) -> Any:
    fakes = model.sampled([caption], noise=noise)
    images, maps = fakes.images[-1].float(), fakes.attention
    return attention_page(images[0], [one[0] for one in maps], model.text_encoder.tokens(caption), caption)


class PredictionWriter(BasePredictionWriter):
    """Write the images of ``t2i-zoo predict`` to ``<run>/predictions``, with ``captions.json`` beside them."""

    def __init__(self) -> None:
        super().__init__("batch")
        self._captions: dict[str, str] = {}

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: dict[str, Any],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one PNG file for each caption."""
        names = [f"{int(i):06d}" for i in batch["index"]]
        save_images(prediction["images"], prediction["captions"], _predictions(trainer), names)
        self._captions |= {f"{name}.png": c for name, c in zip(names, prediction["captions"], strict=True)}

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the captions of this process."""
        folder = _predictions(trainer)
        name = "captions.json" if trainer.world_size == 1 else f"captions.{trainer.global_rank}.json"
        if self._captions:
            with replacing(folder / name) as partial:
                partial.write_text(json.dumps(self._captions, indent=1, ensure_ascii=False), "utf-8")
            print(f"{len(self._captions)} images in {folder}")


def _predictions(trainer: L.Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir) / "predictions"
