"""What a trained text-to-image model does: encode captions, draw noise and generate images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.companions import CompanionModule
from t2i_zoo.pictures import interpolate_noise
from t2i_zoo.text import TextEncoder, TextFeatures


class SamplingModule(CompanionModule):
    """The sampling half of ``TextToImageGAN``."""

    text_encoder: TextEncoder
    generator: nn.Module
    generator_ema: nn.Module
    total_noise_dim: int  #: dimension of all noise of a sample: z and, after it, that of conditioning augmentation
    attends = False  #: whether ``sampled`` returns attention over words
    text_is_optional = False  #: whether the model can sample from noise alone, with ``text_encoder: none``
    noise_is_normal = True  #: whether the noise is standard normal, so that it can be truncated

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Run a generator; papers with other inputs than noise and sentence, or several images, override it."""
        return Fakes([network(noise, text.sentence)], text, {}, noise)

    @property
    def conditional(self) -> bool:
        """Whether images follow captions: not with ``text_encoder: none``."""
        return self.text_encoder.dim > 0

    def encode(self, captions: Sequence[str] | Batch) -> TextFeatures:
        """Features of captions, or of a batch, whose cached features are used if there are any."""
        if isinstance(captions, dict):
            cached: TextFeatures | None = captions.get("text")
            return cached if cached is not None else self.encode(captions["captions"])
        if isinstance(captions, str):
            raise T2IError('found one string, expected a list of captions: write ["a red flower"]')
        return self.text_encoder.encode(list(captions), words=self.needs.words)

    def encode_wrong(self, batch: Batch) -> TextFeatures:
        """Features of the mismatched captions of a batch."""
        cached = batch.get("wrong_text")
        return cached if cached is not None else self.encode(batch["wrong_captions"])

    def noise(self, count: int, rng: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (count, ``total_noise_dim``) on the model's device; training passes its ``rng``.

        Everything random in a sample is drawn here, so that it can be repeated: the noise vector z and, in papers with
        conditioning augmentation, the noise of that after it.
        """
        source = rng.device if rng is not None else self.device
        return torch.randn(count, self.total_noise_dim, generator=rng, device=source).to(self.device)

    def noise_path(self, steps: int, rng: torch.Generator | None = None) -> Tensor:
        """Noise (steps, ``total_noise_dim``) on the CPU on a path between two draws, both ends included."""
        first, second = self.noise(2, rng).cpu()
        return interpolate_noise(first, second, steps)

    def generate(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
        ema: bool = True,
    ) -> Tensor:
        """Generate one image per caption: (B, 3, S, S) in [-1, 1], float32, on the model's device.

        Args:
            captions: B sentences, or their features.
            noise: (B, ``total_noise_dim``) as ``noise`` returns it; drawn by default.
            rng: source of the noise; a CPU generator gives the same noise on every device.
            ema: use the moving average of the weights; False uses the live generator (in eval mode).
        """
        return self.sampled(captions, noise=noise, rng=rng, ema=ema).images[-1].float()

    @torch.no_grad()
    def sampled(
        self,
        captions: Sequence[str] | TextFeatures,
        *,
        noise: Tensor | None = None,
        rng: torch.Generator | None = None,
        ema: bool = True,
    ) -> Fakes:
        """All outputs of a generator in eval mode, such as images of every size and attention; see ``generate``."""
        text = captions if isinstance(captions, TextFeatures) else self.encode(captions)
        text = TextFeatures(*(None if part is None else part.to(self.device) for part in text))  # type: ignore[arg-type]
        wanted = (len(text.sentence), self.total_noise_dim)
        if noise is not None and noise.shape != wanted:
            raise T2IError(
                f"found noise of shape {tuple(noise.shape)}, expected {wanted}: draw it with "
                f"model.noise({len(text.sentence)})"
            )
        noise = self.noise(len(text.sentence), rng) if noise is None else noise.to(self.device)
        network = self.generator_ema if ema else self.generator
        kind = next((p.dtype for p in network.parameters()), torch.float32)  # half precision after ``half()``
        noise = noise.to(kind)
        text = TextFeatures(*(x.to(kind) if x is not None and x.is_floating_point() else x for x in text))  # type: ignore[arg-type]
        was_training = network.training
        try:
            return self.draw(network.eval(), noise, text)
        finally:
            network.train(was_training)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One generated image for each caption of the test split."""
        rng = torch.Generator().manual_seed(int(batch["index"][0]))
        return {"images": self.generate(self.encode(batch), rng=rng), "captions": batch["captions"]}
