"""StackGAN, in two stages that are trained one after the other.

Zhang, Xu, Li, Zhang, Wang, Huang, Metaxas: StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative
Adversarial Networks, 2017, arXiv 1612.03242. Authors' PyTorch code: hanzhanggit/StackGAN-Pytorch, which is what this
follows; their TensorFlow code, hanzhanggit/StackGAN, has other networks. Deviations are listed in the card.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models import state
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.stackgan import losses, networks
from t2i_zoo.nn import CAActivation, discriminator_loss
from t2i_zoo.paths import find_checkpoint
from t2i_zoo.text import TextFeatures

UNTRAINED = "untrained"  #: what ``stage1`` says for a trial run of Stage II on random weights
KIND = "t2i_zoo.models.stackgan.module.StackGAN"  #: as checkpoints name it
SHARED = ("text_encoder", "noise_dim", "condition_dim", "generator_width", "ca_activation")  #: by both stages


class StackGAN(TextToImageGAN):
    """One stage of StackGAN: Stage I draws small pictures, Stage II draws those of a frozen Stage I anew, 4 x as large.

    Defaults are those of the PyTorch code's ``config.py``, but for the average of the generator's weights. A finished
    Stage II holds its Stage I, so its checkpoint needs no other.

    Args:
        stage: 1 or 2.
        stage1: what Stage II builds on: the run of a Stage I, as a folder, a .ckpt or a converted .safetensors file, or
            ``untrained`` for a trial run on random weights. Its noise, condition, width, activation and text encoder
            must be this model's, and its pictures a quarter as large.
        stage1_ema: take the averaged weights of Stage I, or (as the authors, who keep no average) the last ones.
        stage1_mode: of the frozen Stage I while Stage II is in training; ``train`` (the authors') normalises by the
            batch, and its running statistics go on moving, ``eval`` uses and keeps those of its own training.
        condition_dim: length C of the condition drawn by the conditioning augmentation.
        generator_width: ``GF_DIM``; the authors have 192 on COCO.
        discriminator_width: ``DF_DIM``; the authors have 96 on COCO.
        residual_blocks: ``R_NUM`` of Stage II; the authors have 2 on COCO.
        ca_activation: of the conditioning augmentation; with ``relu`` (the PyTorch code) mean and log-variance are at
            least 0, the TensorFlow code has ``lrelu``, StackGAN++ has ``glu``.
        sampling_noise: draw the condition around its mean when sampling too, as the authors do; False takes the mean.
        kl_weight: of the KL divergence, a mean over batch and dimensions.
        mismatch: ``shift`` pairs each picture with the next picture's sentence, B - 1 pairs whatever their classes;
            ``class`` with a sentence of another class.
        exclude_same_class: leave those pairs of a shift out of the mean whose pictures are of one class.
        lr_decay: factor on the learning rate every ``lr_decay_every`` epochs.
        lr_decay_every: 600 in ``config.py``, which is its number of epochs; the authors have 20 on COCO.
        options: what every model takes; see ``TextToImageGAN``.
    """

    generator: networks.Stage1Generator | networks.Stage2Generator
    generator_ema: networks.Stage1Generator | networks.Stage2Generator
    starting_points = ("weights", "stage1")
    builds_on = ("stage1",)

    def __init__(
        self,
        *,
        stage: Literal[1, 2] = 1,
        stage1: str | None = None,
        stage1_ema: bool = True,
        stage1_mode: Literal["train", "eval"] = "train",
        condition_dim: int = 128,
        generator_width: int = 128,
        discriminator_width: int = 64,
        residual_blocks: int = 4,
        ca_activation: CAActivation = "relu",
        sampling_noise: bool = True,
        kl_weight: float = 2.0,
        mismatch: Literal["shift", "class"] = "shift",
        exclude_same_class: bool = False,
        lr_decay: float = 0.5,
        lr_decay_every: int = 600,
        **options: Any,
    ) -> None:
        super().__init__(lr_decay=lr_decay, lr_decay_every=lr_decay_every, **options)
        size, noise_dim = self.hparams["image_size"], self.hparams["noise_dim"]
        if stage not in (1, 2):
            raise T2IError(f"found --model.stage {stage}, expected 1 or 2")
        least = 8 if stage == 1 else 32
        if size < least or size & (size - 1):
            raise T2IError(
                f"found --model.image_size {size}, expected a power of two of at least {least} in stage {stage}, such "
                f"as {64 if stage == 1 else 256}"
            )
        if stage == 1 and stage1:
            raise T2IError(f"found --model.stage1 {stage1} in stage 1: set --model.stage 2, or leave it out")
        if exclude_same_class and mismatch == "class":
            raise T2IError("found --model.exclude_same_class with --model.mismatch class, which has no such pairs")
        common = (self.text_encoder.dim, noise_dim, condition_dim, generator_width, size)
        generator: nn.Module
        if stage == 1:
            generator = networks.Stage1Generator(*common, ca_activation)
        else:
            training = stage1_mode == "train"
            generator = networks.Stage2Generator(*common, residual_blocks, ca_activation, training)
            if stage1 and stage1 != UNTRAINED:
                self._load_stage1(generator.stage1, stage1)
        self._has_stage1 = bool(stage == 1 or stage1 or self.hparams["weights"])
        self.total_noise_dim = noise_dim + stage * condition_dim
        self.set_networks(generator, networks.Discriminator(condition_dim, discriminator_width, size, stage))

    def _load_stage1(self, network: nn.Module, path: str) -> None:
        """Give Stage I the weights of its run, once the run is known to be of the same shapes and sentences."""
        place, ours = find_checkpoint(path), self.hparams
        if converted := place.suffix == ".safetensors":
            weights, about = state.read_weights(place)
            theirs, kind = about.get("hparams", {}), about.get("model", "other weights")
            kind = KIND if kind == "stackgan" else kind
        else:
            checkpoint = state.read_checkpoint(place)
            weights, theirs = checkpoint["state_dict"], checkpoint["hyper_parameters"]
            kind = checkpoint["t2i_zoo"]["model"]
        if kind not in {f"{cls.__module__}.{cls.__qualname__}" for cls in type(self).__mro__} or theirs["stage"] != 1:
            found = f"stage {theirs['stage']}" if "stage" in theirs else kind.rpartition(".")[2]
            raise T2IError(f"--model.stage1 {path} holds {found}: give the run of a StackGAN of stage 1")
        if theirs["image_size"] * 4 != ours["image_size"]:
            raise T2IError(
                f"--model.stage1 {path} draws {theirs['image_size']} px and this Stage II {ours['image_size']} px: set "
                f"--model.image_size and --data.image_size to {4 * theirs['image_size']}, or give another Stage I"
            )
        for name in SHARED:
            there, here = _plain(theirs[name]), _plain(ours[name])
            if converted and name == "text_encoder":  # hashed words stand in for theirs: lengths are all that is known
                there, here = theirs[name]["dim"], self.text_encoder.dim
            if there != here:
                raise T2IError(
                    f"--model.stage1 {path} has {name} {there} and this Stage II has {here}: set --model.{name} to the "
                    "former, or give another Stage I"
                )
        prefix = "generator_ema." if ours["stage1_ema"] and not converted else "generator."
        network.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Run one of the generators; noise is z, then what each stage's conditioning augmentation draws."""
        lengths = [self.hparams["noise_dim"]] + [self.hparams["condition_dim"]] * self.hparams["stage"]
        z, *spreads = torch.split(noise, lengths, dim=1)
        if not (network.training or self.hparams["sampling_noise"]):
            spreads = [torch.zeros_like(spread) for spread in spreads]
        *images, mu, logvar = network(z, text.sentence, *spreads)
        return Fakes(images, text, {"mu": mu, "logvar": logvar}, noise)

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
                one, two = batch["labels"][:-1], batch["labels"][1:]
                keep = (one != two) | (one < 0)  # -1: no class, and surely another image
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

    def setup(self, stage: str) -> None:
        """Raise also for batches of one picture, whose batch norm and shift would have nothing to work with."""
        super().setup(stage)
        data = self.data_module
        if stage == "fit" and data is not None and data.batch_size < 2:
            raise T2IError(f"found --data.batch_size {data.batch_size}, expected at least 2 images in a batch")

    def on_fit_start(self) -> None:
        """Raise where Stage II has nothing to build on; only here is it known whether a run is resumed."""
        super().on_fit_start()
        if not self._has_stage1:
            raise T2IError(
                "found stage 2 without a Stage I: set --model.stage1 to the run of one, or to untrained for a trial"
            )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what a checkpoint holds; that of a Stage II holds its Stage I."""
        super().on_load_checkpoint(checkpoint)
        self._has_stage1 = True


def _plain(value: Any) -> Any:
    """An option as two runs are compared by it: of a text encoder all but the files that its checkpoint carries."""
    if not isinstance(value, dict):
        return value
    kept = {key: inner for key, inner in value.items() if key != "assets"}
    return kept["kind"] if kept.keys() == {"kind"} else kept
