"""StackGAN++ (StackGAN-v2): images of several sizes at once, each with its own discriminator.

Zhang, Xu, Li, Zhang, Wang, Huang, Metaxas: StackGAN++: Realistic Image Synthesis with Stacked Generative Adversarial
Networks, 2017, arXiv 1710.10916. Authors' code: hanzhanggit/StackGAN-v2. Deviations, all listed in the card: one Adam
for all discriminators; a warm-up of the moving average; snapshots do not change the training; mismatched images are
never of the same class.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.pyramid import PyramidGAN
from t2i_zoo.models.stackganpp import losses
from t2i_zoo.models.stackganpp.drawing import Half
from t2i_zoo.nn import over_sizes
from t2i_zoo.ranges import Count, Range, Weight, Whole

Branches = Annotated[int, Range("1 to 5", least=1, most=5)]


class StackGANPlusPlus(Half, PyramidGAN):
    """StackGAN++, with text or, with ``text_encoder: none``, without.

    Defaults are those of the authors' ``birds_3stages``. Their unconditional configs differ in ``colour_weight: 50``.
    The generator's width is halved from branch to branch.

    Args:
        branches: number of image sizes, 1 to 5 (``BRANCH_NUM``).
        late_residual_blocks: residual blocks in each branch from the fourth on, by default ``residual_blocks``; the
            authors have 1.
        uncond_weight: weight of the unconditional terms beside the conditional ones; unused without text.
        colour_weight: weight alpha of colour consistency between neighbouring branches, covariances weighing five times
            as much as means; 0 leaves it out.
        ema_overwrite_on_snapshot: every ``snapshot_every`` batches the generator goes on from its moving average, as
            in the authors' code by mistake.
        snapshot_every: batches between two snapshots.
        options: options of ``PyramidGAN``.
    """

    def __init__(
        self,
        *,
        branches: Branches = 3,
        late_residual_blocks: Whole | None = None,
        uncond_weight: Weight = 1.0,
        colour_weight: Weight = 0.0,
        ema_overwrite_on_snapshot: bool = False,
        snapshot_every: Count = 2000,
        **options: Any,
    ) -> None:
        super().__init__(branches=branches, **options)
        width = self.hparams["generator_width"]
        if width < 1 or width % 2 ** (branches - 1):
            raise T2IError(
                f"found --model.generator_width {width}, expected a multiple of {2 ** (branches - 1)}, since each of "
                f"{branches} branches has half the channels of the one before"
            )
        self.needs = replace(self.needs, wrong_images=self.conditional, wrong_text=False)
        self.set_pyramid(self.condition_dim, condition_first=True)

    @property
    def judges_alone(self) -> bool:
        """With ``uncond_weight: 0`` the unconditional heads are untrained, and no penalty looks at them."""
        return bool(self.hparams["uncond_weight"]) or not self.conditional

    def condition(self, fakes: Fakes) -> Tensor | None:
        """The mean of conditioning augmentation, which the generator's loss trains too; None without text."""
        return fakes.extras.get("mu")

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """The sum over all sizes, each of which also has its own entry."""
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
        terms, weight = super().generator_loss(batch, fakes), self.hparams["colour_weight"]
        if weight > 0:
            pairs = [losses.colour_consistency(high, low) for low, high in pairwise(fakes.images)]
            # the paper's lambda_1 = 1 and lambda_2 = 5
            terms["colour"] = sum(
                (mean + 5 * covariance for mean, covariance in pairs), torch.zeros_like(terms["loss"])
            )
            terms["loss"] = terms["loss"] + weight * terms["colour"]
        return terms

    @torch.no_grad()
    def update_ema(self, count: int) -> None:
        """As in every model; then, with the authors' mistake as an option, the average becomes the live generator."""
        super().update_ema(count)
        if self.hparams["ema_overwrite_on_snapshot"] and self.clock % self.hparams["snapshot_every"] == 0:
            averages: list[Tensor] = list(self.generator_ema.parameters())
            torch._foreach_copy_(list(self.generator.parameters()), averages)
