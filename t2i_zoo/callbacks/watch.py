"""Say in one line that a run goes wrong, by what is seen on its grid of samples."""

from __future__ import annotations

from collections.abc import Sequence

import lightning as L
import torch
from torch import Tensor

from t2i_zoo.models.base import TextToImageGAN


class Watch(L.Callback):
    """Look at each grid that ``SampleGrid`` draws, and say if the discriminator wins or if noise or text has no effect.

    All three measures are relative to the contrast, the mean standard deviation over the pixels of an image, and are
    logged as ``watch/<measure>``. For thresholds of 0 nothing is said.

    Args:
        roughness: mean difference of neighbouring pixels from which images count as noise; white noise has 1.13.
        discriminator_loss: mean of some twenty batches below which the discriminator wins, if images are noise too.
        noise_effect: standard deviation over the images of one caption below which noise has no effect.
        text_effect: standard deviation over captions with the same noise below which text has no effect.
    """

    def __init__(
        self,
        roughness: float = 0.8,
        discriminator_loss: float = 0.3,
        noise_effect: float = 0.3,
        text_effect: float = 0.1,
    ) -> None:
        self.roughness, self.discriminator_loss = roughness, discriminator_loss
        self.noise_effect, self.text_effect = noise_effect, text_effect

    def look(self, trainer: L.Trainer, model: TextToImageGAN, rows: Sequence[Tensor]) -> list[str]:
        """Log the measures of a grid, and print and return what is wrong.

        Args:
            trainer: whose loggers are used.
            model: what drew the grid.
            rows: for each caption (n, 3, S, S) in [-1, 1]; the rows share their noise if the model reads text.
        """
        found = measures(torch.stack(list(rows)), model.conditional)
        for logger in trainer.loggers:
            logger.log_metrics({f"watch/{name}": value for name, value in found.items()}, step=max(model.clock - 1, 0))
        loss = model.recent_losses().get("discriminator_loss")
        lines = []
        if loss is not None and loss < self.discriminator_loss and found["roughness"] > self.roughness:
            lines.append(
                f"the discriminator wins: its loss is {loss:.3f} and the images are noise; raise "
                "--model.generator_width, lower --model.discriminator_learning_rate or set --model.r1 1"
            )
        if found.get("noise_effect", 1) < self.noise_effect:
            lines.append(
                f"the noise has little effect: images of one caption differ by {found['noise_effect']:.3f} of their "
                "contrast; set --model.mode_seeking 1"
            )
        if found.get("text_effect", 1) < self.text_effect:
            lines.append(
                f"the text has little effect: images of all captions differ by {found['text_effect']:.3f} of their "
                "contrast; check that the captions belong to the images"
            )
        for line in lines:
            print(f"watch: {line}", flush=True)
        return lines


def measures(images: Tensor, conditional: bool = True) -> dict[str, float]:
    """The measures of a grid (captions, n, 3, S, S); without text, or with one image or row, some are absent."""
    images = images.float()
    contrast = images.flatten(3).std(-1).mean().clamp_min(1e-3)
    found = {"contrast": contrast, "roughness": (images[..., 1:] - images[..., :-1]).abs().mean() / contrast}
    if images.shape[1] > 1:
        found["noise_effect"] = images.std(1).mean() / contrast
    if conditional and len(images) > 1:
        found["text_effect"] = images.std(0).mean() / contrast
    return {name: float(value) for name, value in found.items()}
