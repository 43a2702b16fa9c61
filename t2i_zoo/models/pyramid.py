"""What StackGAN++ and the AttnGAN family have in common: images of several sizes, each with its own discriminator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from t2i_zoo.batch import Batch, BatchNeeds, Fakes
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.checks import check_image_size
from t2i_zoo.models.drawing import PyramidDrawing
from t2i_zoo.nn import JointDiscriminator, Norm, generator_loss, kl_to_normal, weighted
from t2i_zoo.ranges import Count, Weight, Whole


class PyramidGAN(PyramidDrawing, TextToImageGAN):
    """Base of the models whose generator yields several sizes at once; a subclass calls ``set_pyramid``.

    Args:
        image_size: side of the largest images; each branch before has half the side of the next.
        branches: number of image sizes (``BRANCH_NUM``).
        condition_dim: dimension C of the augmented condition (``EMBEDDING_DIM``); unused without text.
        generator_width: channels of the first branch (``GF_DIM``).
        discriminator_width: channels after the first layer of each discriminator (``DF_DIM``).
        residual_blocks: residual blocks in each branch of the generator after the first (``R_NUM``).
        kl_weight: weight of the condition's KL divergence from N(0, 1), a mean over batch and dimensions.
        sampling_noise: draw the condition around its mean when sampling too, as the authors do; False takes the mean.
        gradient_checkpointing: save memory at the cost of one more forward of both networks; the results are the same.
        options: options of every model; see ``TextToImageGAN``.
    """

    needs = BatchNeeds(least=2)
    discriminator: nn.ModuleList  #: of ``JointDiscriminator``, one per size, smallest first
    discriminator_norm: Norm = "batch"  #: of the discriminators' convolutions

    def __init__(
        self,
        *,
        image_size: Count = 256,
        branches: Count = 3,
        condition_dim: Count = 128,
        generator_width: Count = 64,
        discriminator_width: Count = 64,
        residual_blocks: Whole = 2,
        kl_weight: Weight = 2.0,
        sampling_noise: bool = True,
        gradient_checkpointing: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(image_size=image_size, **options)
        check_image_size(image_size, 8 * 2 ** (branches - 1), f" with {branches} branches", such_as=256)
        self.needs = replace(self.needs, sizes=tuple(self.branch_sizes))

    def set_pyramid(self, told: int, *, condition_first: bool, last_only: bool = False) -> None:
        """Build and adopt the networks.

        Args:
            told: dimension of the discriminators' condition; 0 without text.
            condition_first: order of condition and features in the discriminators; see ``JointHeads``.
            last_only: only the largest image and its discriminator, without unconditional logits.
        """
        if last_only:
            self.needs = replace(self.needs, sizes=self.needs.sizes[-1:])
        generator, checkpointing = self.build_generator(), self.hparams["gradient_checkpointing"]
        joint = {"condition_first": condition_first, "unconditional": not last_only, "checkpointing": checkpointing}
        width, norm = self.hparams["discriminator_width"], self.discriminator_norm
        discriminators = [JointDiscriminator(told, width, size, norm=norm, **joint) for size in self.needs.sizes]
        self.set_networks(generator, nn.ModuleList(discriminators))

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Adversarial terms of all sizes and, with text, the divergence of the condition; a paper adds its own."""
        condition, options = self.condition(fakes), self.hparams
        drawn, reals = self.observe(fakes.images, real=False).judge(condition), self.opponents(batch, condition)
        alone = options.get("uncond_weight", 1.0)
        terms = {
            f"at_{size}": generator_loss(fake, real, self.adversarial, alone=alone)
            for size, fake, real in zip(self.needs.sizes, drawn, reals, strict=True)
        }
        if "mu" in fakes.extras:
            terms["kl"] = kl_to_normal(fakes.extras["mu"], fakes.extras["logvar"])
        return weighted(terms, kl=options["kl_weight"])
