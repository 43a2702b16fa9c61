"""The drawing half of DF-GAN."""

from __future__ import annotations

from torch import nn

from t2i_zoo.models.dfgan import networks
from t2i_zoo.models.drawing import Drawing


class Half(Drawing):
    """One generator of noise and sentence."""

    def build_generator(self) -> nn.Module:
        """The generator of the option ``variant``."""
        chosen = self.chosen("noise_dim", "generator_width", "image_size", "variant")
        return networks.Generator(self.text_encoder.dim, *chosen)
