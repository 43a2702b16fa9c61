"""MirrorGAN's further stages (GLAM); generator, attention and discriminators are in ``t2i_zoo.nn``, as AttnGAN's.

Authors' code: qiaott/MirrorGAN. Shapes: B batch, T words, W dimension of a word embedding, C of the condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t2i_zoo.nn import WordAttention, glu_residuals, glu_up, tile


class SentenceAttention(nn.Module):
    """The condition, projected and weighted at each place by its attention (Qiao et al. 2019, equation 5).

    Args:
        condition_dim: C.
        width: channels of the map and of the result.
    """

    def __init__(self, condition_dim: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(condition_dim, width)
        self.look = nn.Conv2d(width, width, 1, bias=False)  # the code has it, the paper has not

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """From features (B, width, H, H) and a condition (B, C) to (B, width, H, H)."""
        sentence = tile(self.project(condition), features)
        # Over the channels of each place: the authors leave the axis to the framework, which takes axis 1 for maps.
        weights: Tensor = self.look(features * sentence).softmax(dim=1)
        return sentence * weights


class NextStage(nn.Module):
    """Join the features with words and sentence as each place attends to them, refine them and double their side.

    Args:
        word_dim: W.
        condition_dim: C.
        width: channels of the features, and of the next ones.
        residual_blocks: ``R_NUM``.
        legacy_mask: as in ``WordAttention``.
    """

    def __init__(self, word_dim: int, condition_dim: int, width: int, residual_blocks: int, legacy_mask: bool) -> None:
        super().__init__()
        self.local = WordAttention(word_dim, width, legacy_mask)
        self.whole = SentenceAttention(condition_dim, width)
        self.fuse = nn.Conv2d(3 * width, 2 * width, 1, bias=False)
        self.residual = glu_residuals(2 * width, residual_blocks)
        self.up = glu_up(2 * width, width)

    def forward(self, features: Tensor, condition: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, width, 2 H, 2 H) and the words' attention (B, T, H, H)."""
        context, attention = self.local(features, words, mask)
        joined = torch.cat([features, context, self.whole(features, condition)], 1)
        return self.up(self.residual(self.fuse(joined))), attention
