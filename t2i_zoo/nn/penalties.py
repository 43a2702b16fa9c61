"""Terms that any discriminator may have beside its loss, and the statistics that go with them.

Every gradient penalty is of raw logits, before a sigmoid or a hinge, and needs a discriminator that does not mix the
samples of a batch: batch norm would pollute the gradient of each sample with those of the others. Run the
discriminator in float32 for them, since squares overflow in float16. All results are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def squared_gradients(logits: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Squared norm of each sample's gradient of its logits, one (B,) per input.

    Its mean over the batch is R1 for real images (Mescheder et al. 2018, arXiv 1801.04406) and R2 for generated ones
    (both in R3GAN, Huang et al. 2024, arXiv 2501.05441). Papers weigh it with gamma / 2, which is left to the caller,
    and differentiate with respect to the images **before** any augmentation.

    The squares are summed over all dimensions of a sample, as every paper does: a mean would divide by 12,288 for
    64 x 64 RGB images and switch the penalty off.

    Args:
        logits: (B, ...), computed from ``inputs``; several logits of a sample are summed.
        inputs: (B, ...) each, with ``requires_grad`` set before the forward pass.

    Returns:
        Tensors that can themselves be differentiated.
    """
    gradients = torch.autograd.grad(logits.float().sum(), list(inputs), create_graph=True)
    return [gradient.float().flatten(1).square().sum(1) for gradient in gradients]


class MatchingAwarePenalty(NamedTuple):
    """The penalty (scalar), and the mean gradient norms of images and of sentences, for the log."""

    penalty: Tensor
    image_norm: Tensor
    sentence_norm: Tensor


def matching_aware_penalty(
    logits: Tensor, images: Tensor, sentence: Tensor, weight: float = 2.0, power: float = 6.0
) -> MatchingAwarePenalty:
    """Matching-aware gradient penalty of DF-GAN, for real images with their own captions only.

    ``weight * mean(|| [d logit / d image ; d logit / d sentence] || ** power)``: one norm of both gradients together.
    The scale of the sentence embedding matters: an embedding half as large makes its part 64 times as large.

    Source: Tao et al. 2022 (arXiv 2008.05865), section 3.3.

    Args:
        logits: (B, ...), of real images with their own captions.
        images: (B, C, H, W), or features of them (GALIP); ``requires_grad``.
        sentence: (B, D) embeddings; ``requires_grad``.
        weight: k of the paper.
        power: p of the paper.
    """
    image, text = squared_gradients(logits, [images, sentence])
    penalty = weight * (image + text).pow(power / 2).mean()  # of the square: a root has no gradient at 0
    return MatchingAwarePenalty(penalty, image.detach().sqrt().mean(), text.detach().sqrt().mean())


def lecam_loss(real: Tensor, fake: Tensor, real_average: Tensor, fake_average: Tensor) -> Tensor:
    """``mean relu(real - fake_average)**2 + mean relu(real_average - fake)**2`` for logits of any shape.

    Source: Tseng et al. 2021 (arXiv 2104.03310), with the relu of google/lecam-gan, which the paper's formula lacks.
    """
    real, fake = real.float(), fake.float()
    return F.relu(real - fake_average).square().mean() + F.relu(real_average - fake).square().mean()


class LeCam(nn.Module):
    """Pull the logits of real and generated images towards moving averages of each other's, against overfitting.

    The averages are buffers and belong to a checkpoint. The loss is ``lecam_loss``.

    Args:
        decay: of the moving averages, which are divided by ``1 - decay**n`` after n updates, as the authors do: without
            it they would begin near 0.
    """

    averages: Tensor
    updates: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("averages", torch.zeros(2))
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Penalty of logits of any shape; in training mode the batch enters the averages first."""
        if self.training:
            means = torch.stack([real.detach().float().mean(), fake.detach().float().mean()])
            if dist.is_available() and dist.is_initialized():  # all processes follow the same averages
                dist.all_reduce(means)
                means /= dist.get_world_size()
            self.averages.lerp_(means, 1 - self.decay)
            self.updates.add_(1)
        return lecam_loss(real, fake, *self.anchors)

    @property
    def anchors(self) -> tuple[Tensor, Tensor]:
        """Average logits of real and of generated images, as the penalty reads them."""
        real, fake = self.averages / (1 - self.decay ** self.updates.clamp(min=1))
        return real, fake


def overfitting(real: Tensor) -> Tensor:
    """Mean sign of the logits of real training images, in [-1, 1]: near 0 without overfitting, 1 when it is complete.

    Karras et al. 2020 (arXiv 2006.06676) call it r_t; it is worth logging for any model.
    """
    return real.detach().float().sign().mean()


def adaptive_probability(
    probability: Tensor, overfitting: Tensor, images: int, target: float = 0.6, swing: int = 500_000
) -> Tensor:
    """One step of adaptive discriminator augmentation: the probability for the next batches, clamped to [0, 1].

    Source: Karras et al. 2020 (arXiv 2006.06676), who take a step every 4 batches.

    Args:
        probability: the current one, a scalar on any device, which is never read on the host.
        overfitting: mean of ``overfitting`` since the last step.
        images: number of images since the last step.
        target: of ``overfitting``.
        swing: number of images in which the probability can go from 0 to 1.
    """
    return (probability + (overfitting - target).sign() * (images / swing)).clamp(0, 1)


def feature_matching(real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared difference between the batch means of real and of generated features, (B, ...) each.

    Source: Salimans et al. 2016 (arXiv 1606.03498), section 3.1, which has a sum in place of the mean over features.
    """
    return F.mse_loss(fake.float().mean(0), real.detach().float().mean(0))
