"""StackGAN, in two stages trained one after the other.

Zhang, Xu, Li, Zhang, Wang, Huang, Metaxas: StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative
Adversarial Networks, ICCV 2017, arXiv 1612.03242. This follows the authors' PyTorch code, hanzhanggit/StackGAN-Pytorch;
their TensorFlow code, hanzhanggit/StackGAN, has other networks. Deviations are listed in the card.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, BatchNeeds, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.checks import check_image_size, check_mismatch
from t2i_zoo.models.exported import ExportedGenerator
from t2i_zoo.models.stackgan import losses, networks
from t2i_zoo.models.stackgan.drawing import Half
from t2i_zoo.nn import CAActivation, discriminator_loss, of_other_classes
from t2i_zoo.paths import find_weights
from t2i_zoo.ranges import Count, Positive, Weight, Whole

UNTRAINED = "untrained"  #: the value of ``stage1`` for a trial run of Stage II on random weights
#: the same in both stages
SHARED = ("text_encoder", "noise_dim", "condition_dim", "generator_width", "least_channels", "ca_activation")


class StackGAN(Half, TextToImageGAN):
    """One stage of StackGAN: Stage I draws small images, Stage II redraws those of a frozen Stage I, 4 x as large.

    Defaults are those of the PyTorch code's ``config.py``, except the average of the generator's weights. A checkpoint
    of Stage II holds its Stage I and needs no other file.

    Args:
        stage: which of the two stages to train, 1 or 2.
        stage1: run of the Stage I that Stage II builds on, as a folder, a .ckpt or a converted .safetensors file, or
            ``untrained`` for a trial run on random weights. Its noise, condition, width, activation and text encoder
            must be the same, and its images a quarter as large.
        stage1_ema: take the averaged weights of Stage I, or the last ones, as the authors, who keep no average.
        stage1_mode: mode of the frozen Stage I while Stage II is trained; ``train`` (the authors') normalises by the
            batch, and its running statistics keep moving, ``eval`` uses and keeps those of its own training.
        condition_dim: dimension C of the condition drawn by the conditioning augmentation.
        generator_width: channels of the generator (``GF_DIM``); the authors have 192 on COCO.
        least_channels: fewest channels of the generator's maps, each doubling of the side halving them; the authors
            have 1, which differs only for widths below 8 in Stage I and below 16 in Stage II.
        discriminator_width: channels of the discriminator (``DF_DIM``); the authors have 96 on COCO.
        residual_blocks: residual blocks of Stage II (``R_NUM``); the authors have 2 on COCO.
        ca_activation: activation of the conditioning augmentation; with ``relu`` (the PyTorch code) mean and
            log-variance are at least 0, the TensorFlow code has ``lrelu``, StackGAN++ has ``glu``.
        sampling_noise: draw the condition around its mean when sampling too, as the authors do; False takes the mean.
        kl_weight: weight of the condition's KL divergence from N(0, 1), a mean over batch and dimensions.
        mismatch: ``shift`` pairs each image with the next image's sentence, B - 1 pairs whatever their classes;
            ``class`` with a sentence of another class.
        exclude_same_class: leave those pairs of a shift out of the mean whose images are of one class.
        lr_decay: factor on the learning rate every ``lr_decay_every`` epochs.
        lr_decay_every: epochs, counted from 0; 600 in ``config.py``, which is its number of epochs; the authors have 20
            on COCO.
        options: options of every model; see ``TextToImageGAN``.
    """

    generator: networks.Stage1Generator | networks.Stage2Generator
    generator_ema: networks.Stage1Generator | networks.Stage2Generator
    first_epoch = 0
    starting_points = ("weights", "stage1")
    needs = BatchNeeds(least=2)
    builds_on = ("damsm", "stage1")

    def __init__(
        self,
        *,
        stage: Literal[1, 2] = 1,
        stage1: str | None = None,
        stage1_ema: bool = True,
        stage1_mode: Literal["train", "eval"] = "train",
        condition_dim: Count = 128,
        generator_width: Count = 128,
        least_channels: Count = 4,
        discriminator_width: Count = 64,
        residual_blocks: Whole = 4,
        ca_activation: CAActivation = "relu",
        sampling_noise: bool = True,
        kl_weight: Weight = 2.0,
        mismatch: Literal["shift", "class"] = "shift",
        exclude_same_class: bool = False,
        lr_decay: Positive = 0.5,
        lr_decay_every: Count = 600,
        **options: Any,
    ) -> None:
        super().__init__(lr_decay=lr_decay, lr_decay_every=lr_decay_every, **options)
        size = self.hparams["image_size"]
        if stage not in (1, 2):
            raise T2IError(f"found --model.stage {stage}, expected 1 or 2")
        check_image_size(size, 8 if stage == 1 else 32, f" in stage {stage}", such_as=64 if stage == 1 else 256)
        if stage == 1 and stage1:
            raise T2IError(f"found --model.stage1 {stage1} in stage 1: set --model.stage 2, or leave it out")
        check_mismatch(mismatch, exclude_same_class)
        self.needs = replace(self.needs, wrong_text=mismatch == "class")
        generator: Any = self.build_generator()
        if stage == 2 and stage1 and stage1 != UNTRAINED:
            self._load_stage1(generator.stage1, stage1)
        self._has_stage1 = bool(stage == 1 or stage1 or self.hparams["weights"])
        self.set_networks(generator, networks.Discriminator(condition_dim, discriminator_width, size, stage))

    def _load_stage1(self, network: nn.Module, path: str) -> None:
        """Copy the weights of a Stage I, once it is known to have the same shapes and text encoder."""
        with warnings.catch_warnings():  # a converted file without its text encoder: this model has its own
            warnings.simplefilter("ignore")
            first = load_model(path)
        if not isinstance(first, Half) or first.hparams["stage"] != 1:
            found = f"stage {first.hparams['stage']}" if isinstance(first, Half) else type(first).__name__
            raise T2IError(f"--model.stage1 {path} holds {found}: give the run of a StackGAN of stage 1")
        theirs, ours = first.hparams, self.hparams
        if theirs["image_size"] * 4 != ours["image_size"]:
            raise T2IError(
                f"--model.stage1 {path} has {theirs['image_size']} px and this Stage II {ours['image_size']} px: set "
                f"--model.image_size and --data.image_size to {4 * theirs['image_size']}, or give another Stage I"
            )
        for name in SHARED:
            there, here = _plain(theirs[name]), _plain(ours[name])
            if name == "text_encoder" and find_weights(path).suffix == ".safetensors":
                # Hashed words replace the encoder of a converted file: only its dimension is known. An exported file
                # has its own, whose rounded weights cannot be compared.
                there, here = first.text_encoder.dim, self.text_encoder.dim
                if isinstance(first, ExportedGenerator):
                    there = f"{type(first.text_encoder).__name__} of dimension {there}"
                    here = f"{type(self.text_encoder).__name__} of dimension {here}"
            if there != here:
                raise T2IError(
                    f"--model.stage1 {path} has {name} {there} and this Stage II has {here}: set --model.{name} to the "
                    "former, or give another Stage I"
                )
        source = first.generator_ema if ours["stage1_ema"] else first.generator
        network.load_state_dict(source.state_dict())

    def condition(self, fakes: Fakes) -> Tensor:
        """The mean of the condition, through which no gradient reaches the generator."""
        return fakes.extras["mu"].detach()

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Real, mismatched and fake pairs; what the discriminator sees of a sentence is the mean of its condition."""
        mu, keep, against = self.condition(fakes), None, None
        images, drawn = self.observe(batch["images"], real=True), self.observe(fakes.images, real=False)
        (real,) = images.judge(mu)  # before the mismatched ones: batch norm follows the order
        if self.hparams["mismatch"] == "shift":
            (wrong,), against = images.judge(mu[1:], slice(-1)), real.rows(slice(-1))
            if self.hparams["exclude_same_class"]:
                keep = of_other_classes(batch["labels"], slice(-1), slice(1, None))
        else:
            network = self.generator if self.training else self.generator_ema
            with torch.no_grad():
                _, other, _ = network.ca(self.encode_wrong(batch).sentence, torch.zeros_like(mu))
            (wrong,) = images.judge(other)
        (fake,) = drawn.judge(mu)
        return discriminator_loss(real, wrong, fake, keep=keep, against=against, loss=self.adversarial)

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Adversarial terms, through the detached mean of the condition, and the KL divergence of the condition."""
        extras, mu = fakes.extras, self.condition(fakes)
        (fake,), (real,) = self.observe(fakes.images, real=False).judge(mu), self.opponents(batch, mu)
        options = {"kl_weight": self.hparams["kl_weight"], "real": real, "loss": self.adversarial}
        return losses.generator_loss(fake, extras["mu"], extras["logvar"], **options)

    def on_fit_start(self) -> None:
        """Raise where Stage II has no Stage I; only here is it known whether a run is resumed."""
        super().on_fit_start()
        if not self._has_stage1:
            raise T2IError(
                "found stage 2 without a Stage I: set --model.stage1 to the run of one, or to untrained for a trial"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what a checkpoint holds; that of a Stage II holds its Stage I."""
        super().on_load_checkpoint(checkpoint)
        self._has_stage1 = True


def _plain(value: Any) -> Any:
    """An option in the form in which two runs are compared: a text encoder without arguments by its name alone."""
    return value["kind"] if isinstance(value, dict) and value.keys() == {"kind"} else value
