"""The drawing half of TAC-GAN."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Fakes
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.tacgan import networks
from t2i_zoo.text import TextFeatures

CONTEXT = 64  # the authors' batch size, in training and in sampling


class Half(Drawing):
    """Uniform noise, and batch statistics of the training captions that ``context_sentence`` holds."""

    context_sentence: Tensor  #: (64, D), zeros before training
    context_noise: Tensor  #: (64, z) in [-1, 1]
    noise_is_normal = False

    def build_generator(self) -> nn.Module:
        """The only generator that the paper has."""
        dims = self.chosen("noise_dim", "projection_dim", "generator_width", "image_size")
        return networks.Generator(self.text_encoder.dim, *[*dims, self.hparams["batch_stats"] == "tracked"])

    def prepare_drawing(self) -> None:
        """Register the context, unless running averages are tracked."""
        if self.hparams["batch_stats"] == "always":
            assert isinstance(self, nn.Module)
            rng = torch.Generator().manual_seed(0)
            self.register_buffer("context_sentence", torch.zeros(CONTEXT, self.text_encoder.dim))
            self.register_buffer("context_noise", 2 * torch.rand(CONTEXT, self.total_noise_dim, generator=rng) - 1)

    def has_context(self) -> bool:
        """Whether ``draw`` in eval mode needs the context, and training has chosen it."""
        return self.hparams["batch_stats"] == "always" and bool(self.context_sentence.any())

    def noise(self, count: int, rng: torch.Generator | None = None, move: bool = True) -> Tensor:
        """Noise (count, z), uniform in [-1, 1], on the model's device; without ``move`` on that of ``rng``."""
        source = rng.device if rng is not None else self.device
        noise = 2 * torch.rand(count, self.total_noise_dim, generator=rng, device=source) - 1
        return noise.to(self.device) if move else noise

    def noise_path(self, steps: int, rng: torch.Generator | None = None) -> Tensor:
        """A straight line from all -1 to all 1, as in the authors' script: (steps, z); nothing is random."""
        return torch.linspace(-1, 1, steps)[:, None].repeat(1, self.total_noise_dim)

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Run a generator; in eval mode after the context, if there is one (running averages need none)."""
        rows, sentences, context = noise, text.sentence, 0
        if not network.training and self.has_context():
            context = CONTEXT
            rows = torch.cat([self.context_noise, noise])
            sentences = torch.cat([self.context_sentence, sentences])
        images = network(rows, sentences, context)[context:]
        return Fakes([images * 2 - 1], text, {}, noise)
