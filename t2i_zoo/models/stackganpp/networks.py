"""StackGAN++'s further stages; first stage, generator and discriminators are in ``t2i_zoo.nn``.

Authors' code: hanzhanggit/StackGAN-v2. Shapes: B batch, C dimension of the condition, which is conditioning
augmentation's or, without text, the noise itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.nn import glu_block, glu_residuals, glu_up


def convolve_with_code(conv: nn.Conv2d, code: Tensor, features: Tensor) -> Tensor:
    """A 3 x 3 convolution of a code at every place together with the features, without repeating the code.

    Each of the nine taps adds the same to every place, except at the edge where it is outside of the map. So the code
    costs nine small products, where repeated it would be most of the convolution's channels.

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

    Args:
        condition_dim: C.
        width: channels of the features; the next ones have half as many.
        residual_blocks: ``R_NUM``.
    """

    def __init__(self, condition_dim: int, width: int, residual_blocks: int) -> None:
        super().__init__()
        self.joint = glu_block(condition_dim + width, width)
        self.residual = glu_residuals(width, residual_blocks)
        self.up = glu_up(width, width // 2)

    def forward(self, features: Tensor, condition: Tensor) -> tuple[Tensor, None]:
        """From (B, width, H, H) and (B, C) to (B, width / 2, 2 H, 2 H); there is no attention."""
        conv, norm, gate = self.joint
        assert isinstance(conv, nn.Conv2d)
        joined = gate(norm(convolve_with_code(conv, condition, features)))
        return self.up(self.residual(joined)), None
