"""The drawing half of GAN-CLS."""

from __future__ import annotations

from torch import nn

from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.gancls import networks

GENERATORS: dict[str, type[nn.Module]] = {
    "residual": networks.Generator,
    "dcgan": networks.DCGANGenerator,
    "light": networks.LightGenerator,
}


class Half(Drawing):
    """Any of its three generators."""

    def build_generator(self) -> nn.Module:
        """The generator of the option ``architecture``."""
        names = ["noise_dim", "projection_dim", "generator_width", "image_size"]
        if self.hparams["architecture"] != "dcgan":
            names.append("large")
        return GENERATORS[self.hparams["architecture"]](self.text_encoder.dim, *self.chosen(*names))
