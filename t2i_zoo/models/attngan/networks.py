"""AttnGAN's further stages; trunk, attention and discriminators are ``t2i_zoo.nn``'s, since MirrorGAN has them too.

Authors' code: taoxugit/AttnGAN. Shapes: B batch, T words, W length of a word vector, C length of the condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t2i_zoo.nn import GLUResidual, WordAttention, glu_up


class NextStage(nn.Module):
    """Join the features with the words that each place attends to, refine them and double their side.

    Args:
        word_dim: W.
        width: channels that come in and out.
        residual_blocks: ``R_NUM``.
        legacy_mask: as of ``WordAttention``.
    """

    def __init__(self, word_dim: int, width: int, residual_blocks: int, legacy_mask: bool) -> None:
        super().__init__()
        self.attention = WordAttention(word_dim, width, legacy_mask)
        self.residual = nn.Sequential(*(GLUResidual(2 * width) for _ in range(residual_blocks)))
        self.up = glu_up(2 * width, width)

    def forward(self, features: Tensor, condition: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, width, 2 H, 2 H) and attention (B, T, H, H); the condition is not looked at."""
        context, attention = self.attention(features, words, mask)
        return self.up(self.residual(torch.cat([features, context], 1))), attention
