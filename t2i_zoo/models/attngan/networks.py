"""AttnGAN's further stages; generator, attention and discriminators are in ``t2i_zoo.nn``, as MirrorGAN's.

Authors' code: taoxugit/AttnGAN. Shapes: B batch, T words, W dimension of a word embedding, C of the condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t2i_zoo.nn import WordAttention, glu_residuals, glu_up


class NextStage(nn.Module):
    """Join the features with the words that each place attends to, refine them and double their side.

    Args:
        word_dim: W.
        width: channels of the features, and of the next ones.
        residual_blocks: ``R_NUM``.
        legacy_mask: as in ``WordAttention``.
    """

    def __init__(self, word_dim: int, width: int, residual_blocks: int, legacy_mask: bool) -> None:
        super().__init__()
        self.attention = WordAttention(word_dim, width, legacy_mask)
        self.residual = glu_residuals(2 * width, residual_blocks)
        self.up = glu_up(2 * width, width)

    def forward(self, features: Tensor, condition: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, width, 2 H, 2 H) and attention (B, T, H, H); the condition is unused, as in the code."""
        context, attention = self.attention(features, words, mask)
        return self.up(self.residual(torch.cat([features, context], 1))), attention
