"""StackGAN++ (StackGAN-v2): pictures of several sizes at once, each with a discriminator of its own.

Zhang, Xu, Li, Zhang, Wang, Huang, Metaxas: StackGAN++: Realistic Image Synthesis with Stacked Generative Adversarial
Networks, 2017, arXiv 1710.10916. Authors' code: hanzhanggit/StackGAN-v2. Deviations, all listed in the card: one Adam
for all discriminators; a warm-up of the moving average; snapshots that leave the training alone; mismatched pictures
that are never of the same class.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.stackganpp import losses, networks
from t2i_zoo.nn import JointDiscriminator, kl_to_normal, over_sizes
from t2i_zoo.text import TextFeatures


class StackGANPlusPlus(TextToImageGAN):
    """StackGAN++, with text or, with ``text_encoder: none``, without.

    Defaults are those of the authors' ``birds_3stages``. Their unconditional configs differ in ``colour_weight: 50``.

    Args:
        image_size: side of the largest pictures; each branch before has half the side of the next.
        branches: 1 to 5 picture sizes (``BRANCH_NUM``).
        condition_dim: length of the augmented condition (``EMBEDDING_DIM``); unused without text.
        generator_width: channels of the first branch, halved from branch to branch (``GF_DIM``).
        discriminator_width: channels after the first layer of each discriminator (``DF_DIM``).
        residual_blocks: in each branch of the generator after the first (``R_NUM``).
        kl_weight: of conditioning augmentation's divergence from N(0, 1), a mean over its dimensions.
        uncond_weight: of the unconditional terms beside the conditional ones; unused without text.
        colour_weight: alpha of colour consistency between neighbouring branches, covariances weighing five times as
            much as means; 0 leaves it out.
        sampling_noise: keep the noise of conditioning augmentation outside of training, as the authors do; without it
            the condition is its mean there.
        ema_overwrite_on_snapshot: every ``snapshot_every`` batches the generator goes on from its moving average, as
            in the authors' code by mistake.
        snapshot_every: batches.
        gradient_checkpointing: less memory for one more forward of both networks; the results are the same.
        channels_last: keep weights and features with the channels innermost, which suits half precision on GPUs.
        options: what every model takes; see ``TextToImageGAN``.
    """

    generator: networks.Generator
    discriminator: nn.ModuleList  #: of ``JointDiscriminator``, one a size, smallest first
    text_is_optional = True

    def __init__(
        self,
        *,
        image_size: int = 256,
        branches: int = 3,
        condition_dim: int = 128,
        generator_width: int = 64,
        discriminator_width: int = 64,
        residual_blocks: int = 2,
        kl_weight: float = 2.0,
        uncond_weight: float = 1.0,
        colour_weight: float = 0.0,
        sampling_noise: bool = True,
        ema_overwrite_on_snapshot: bool = False,
        snapshot_every: int = 2000,
        gradient_checkpointing: bool = False,
        channels_last: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(image_size=image_size, **options)
        if not 1 <= branches <= 5:
            raise T2IError(f"found --model.branches {branches}, expected 1 to 5")
        least = 8 * 2 ** (branches - 1)
        if image_size < least or image_size & (image_size - 1):
            raise T2IError(
                f"found --model.image_size {image_size} with {branches} branches, expected a power of two of at least "
                f"{least}: change it, or --model.branches"
            )
        if generator_width < 1 or generator_width % 2 ** (branches - 1):
            raise T2IError(
                f"found --model.generator_width {generator_width}, expected a multiple of {2 ** (branches - 1)}, since "
                f"each of {branches} branches has half the channels of the one before"
            )
        if snapshot_every < 1:
            raise T2IError(f"found --model.snapshot_every {snapshot_every}, expected at least 1 batch")
        sizes = tuple(image_size >> i for i in reversed(range(branches)))
        self.needs = replace(self.needs, sizes=sizes, wrong_images=self.conditional)
        self.condition_dim = condition_dim if self.conditional else 0
        self.total_noise_dim += self.condition_dim
        generator = networks.Generator(
            self.text_encoder.dim,
            self.hparams["noise_dim"],
            condition_dim,
            generator_width,
            list(sizes),
            residual_blocks,
            gradient_checkpointing,
        )
        discriminator = nn.ModuleList(
            JointDiscriminator(
                self.condition_dim,
                discriminator_width,
                size,
                condition_first=True,
                checkpointing=gradient_checkpointing,
            )
            for size in sizes
        )
        if channels_last:
            generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.set_networks(generator, discriminator)

    def draw(self, network: nn.Module, noise: Tensor, text: TextFeatures) -> Fakes:
        """Pictures of every size; the last ``condition_dim`` numbers of the noise are conditioning augmentation's."""
        z, augmentation = torch.split(noise, [self.hparams["noise_dim"], self.condition_dim], dim=1)
        if not network.training and not self.hparams["sampling_noise"]:
            augmentation = torch.zeros_like(augmentation)
        images, extras = network(z, text.sentence, augmentation)
        return Fakes(images, text, extras, noise)

    def condition(self, fakes: Fakes) -> Tensor | None:
        """The mean of conditioning augmentation, which the generator's loss reaches too; None without text."""
        return fakes.extras.get("mu")

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The sum over all sizes, of which each also has its own entry; condition is the mean of the augmentation."""
        mu, weight = self.condition(fakes), self.hparams["uncond_weight"]
        reals = self.observe(batch["images"], real=True).judge(mu)
        wrongs = [None] * len(reals) if mu is None else self.observe(batch["wrong_images"], real=True).judge(mu)
        drawn = self.observe(fakes.images, real=False).judge(mu)
        return over_sizes(
            self.needs.sizes,
            [losses.discriminator_loss(*at, weight, self.adversarial) for at in zip(reals, wrongs, drawn, strict=True)],
        )

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Adversarial terms of all sizes, the divergence of conditioning augmentation, and colour consistency."""
        mu, hparams = self.condition(fakes), self.hparams
        drawn, reals = self.observe(fakes.images, real=False).judge(mu), self.opponents(batch, mu)
        options = {"uncond_weight": hparams["uncond_weight"], "loss": self.adversarial}
        terms = {
            f"at_{size}": losses.generator_loss(fake, real=real, **options)
            for size, fake, real in zip(self.needs.sizes, drawn, reals, strict=True)
        }
        loss = torch.stack(list(terms.values())).sum()
        if mu is not None:
            terms["kl"] = kl_to_normal(mu, fakes.extras["logvar"])
            loss = loss + hparams["kl_weight"] * terms["kl"]
        if hparams["colour_weight"] > 0:
            pairs = [losses.colour_consistency(high, low) for low, high in pairwise(fakes.images)]
            # the paper's lambda_1 = 1 and lambda_2 = 5
            terms["colour"] = sum((mean + 5 * covariance for mean, covariance in pairs), torch.zeros_like(loss))
            loss = loss + hparams["colour_weight"] * terms["colour"]
        return {"loss": loss, **terms}

    @torch.no_grad()
    def update_ema(self, count: int) -> None:
        """As in every model; then, if the authors' mistake is wanted, the average becomes the live generator."""
        super().update_ema(count)
        if self.hparams["ema_overwrite_on_snapshot"] and self.clock % self.hparams["snapshot_every"] == 0:
            averages: list[Tensor] = list(self.generator_ema.parameters())
            torch._foreach_copy_(list(self.generator.parameters()), averages)
