"""The drawing half of StackGAN."""

from __future__ import annotations

from torch import Tensor, nn

from t2i_zoo.batch import Fakes
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.stackgan import networks
from t2i_zoo.nn import split_noise
from t2i_zoo.text import TextFeatures


class Half(Drawing):
    """Either stage; the noise is z and then that of each stage's conditioning augmentation."""

    @property
    def total_noise_dim(self) -> int:
        """Dimension of z and of the conditions."""
        found: int = self.hparams["noise_dim"] + self.hparams["stage"] * self.hparams["condition_dim"]
        return found

    def build_generator(self) -> nn.Module:
        """The generator of the option ``stage``; Stage II's holds Stage I's."""
        names = ["noise_dim", "condition_dim", "generator_width", "image_size"]
        if self.hparams["stage"] == 1:
            names += ["ca_activation", "least_channels"]
            return networks.Stage1Generator(self.text_encoder.dim, *self.chosen(*names))
        dims = self.chosen(*names, "residual_blocks", "ca_activation")
        further = [self.hparams["stage1_mode"] == "train", self.hparams["least_channels"]]
        return networks.Stage2Generator(self.text_encoder.dim, *[*dims, *further])

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Run a generator."""
        lengths = [self.hparams["noise_dim"]] + [self.hparams["condition_dim"]] * self.hparams["stage"]
        z, *condition_noises = split_noise(noise, lengths, augment=network.training or self.hparams["sampling_noise"])
        *images, mu, logvar = network(z, text.sentence, *condition_noises)
        return Fakes(images, text, {"mu": mu, "logvar": logvar}, noise)
