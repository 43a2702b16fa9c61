"""StackGAN++ networks: a generator that grows branches; its discriminators are ``t2i_zoo.nn.JointDiscriminator``.

Authors' code: hanzhanggit/StackGAN-v2. Shapes: B batch, D sentence dimension, z noise dimension, C dimension of the
condition, which is conditioning augmentation's or, without text, the noise itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.nn import (
    ConditioningAugmentation,
    FirstStage,
    GLUResidual,
    checkpointed,
    glu_block,
    glu_up,
    orthogonal_init,
    to_image,
)


def convolve_with_code(conv: nn.Conv2d, code: Tensor, features: Tensor) -> Tensor:
    """A 3 x 3 convolution of a code at every place together with the features, without repeating the code.

    Each of the nine taps adds the same to every place, but for those at the edge where it lies outside of the map. So
    the code costs nine small products, where repeated it would be most of the convolution's channels.

    Args:
        conv: over the channels of the code and then those of the features; it has no bias.
        code: (B, C).
        features: (B, F, H, W).
    """
    of_code, of_features = torch.split(conv.weight, [code.shape[1], features.shape[1]], dim=1)
    taps = torch.einsum("bc,ocyx->boyx", code, of_code).flatten(2)
    inside = F.unfold(code.new_ones(1, 1, *features.shape[2:]), 3, padding=1)[0]  # (9, H * W), 1 or 0
    repeated = (taps @ inside).reshape(*taps.shape[:2], *features.shape[2:])
    return F.conv2d(features, of_features, padding=1) + repeated


class NextStage(nn.Module):
    """Join the features with the condition, refine them and double their side.

    Features (B, width, H, H) and a condition (B, C) to features (B, width / 2, 2 H, 2 H).
    """

    def __init__(self, condition_dim: int, width: int, residual_blocks: int) -> None:
        super().__init__()
        self.joint = glu_block(condition_dim + width, width)
        self.residual = nn.Sequential(*(GLUResidual(width) for _ in range(residual_blocks)))
        self.up = glu_up(width, width // 2)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Return the features of the next branch."""
        conv, norm, gate = self.joint
        assert isinstance(conv, nn.Conv2d)
        joined = gate(norm(convolve_with_code(conv, condition, features)))
        result: Tensor = self.up(self.residual(joined))
        return result


class Generator(nn.Module):
    """Noise (B, z) and sentences (B, D) to a pyramid of pictures (B, 3, S, S) in [-1, 1], smallest first.

    Args:
        text_dim: D; with 0 there is no conditioning augmentation and later branches are conditioned on the noise.
        noise_dim: z.
        condition_dim: C, the length of the augmented condition.
        width: channels of the first branch, halved from branch to branch (``GF_DIM``).
        sizes: sides of the pictures, each twice the one before.
        residual_blocks: in each branch after the first (``R_NUM``).
        checkpointing: keep only what passes between the branches, and compute the rest again in the backward pass.
    """

    def __init__(
        self,
        text_dim: int,
        noise_dim: int,
        condition_dim: int,
        width: int,
        sizes: list[int],
        residual_blocks: int,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.augment = ConditioningAugmentation(text_dim, condition_dim, "glu") if text_dim else None
        later = condition_dim if text_dim else noise_dim
        self.first = FirstStage(condition_dim + noise_dim if text_dim else noise_dim, width, sizes[0])
        self.stages = nn.ModuleList(NextStage(later, width >> i, residual_blocks) for i in range(len(sizes) - 1))
        self.pictures = nn.ModuleList(to_image(width >> i) for i in range(len(sizes)))
        self.apply(orthogonal_init)

    def forward(self, noise: Tensor, sentence: Tensor, augmentation: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Draw pictures.

        Args:
            noise: (B, z).
            sentence: (B, D).
            augmentation: (B, C) normal noise of conditioning augmentation; 0 makes the condition its mean.

        Returns:
            The pictures, and ``mu`` and ``logvar`` (B, C) of conditioning augmentation where there is text.
        """
        condition, code, extras = noise, noise, {}
        if self.augment is not None:
            condition, mu, logvar = self.augment(sentence, augmentation)
            code, extras = torch.cat([condition, noise], dim=1), {"mu": mu, "logvar": logvar}
        features = checkpointed(self.first, code) if self.checkpointing else self.first(code)
        images = [self.pictures[0](features)]
        for stage, picture in zip(self.stages, self.pictures[1:], strict=True):
            features = checkpointed(stage, features, condition) if self.checkpointing else stage(features, condition)
            images.append(picture(features))
        return images, extras
