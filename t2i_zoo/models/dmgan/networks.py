"""DM-GAN's further stages, which refine features with a memory; first stage and discriminators are in ``t2i_zoo.nn``.

Authors' code: MinfengZhu/DM-GAN. Shapes: B batch, T words, W dimension of a word embedding, G channels of the features,
H their side, C of the condition.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t2i_zoo.nn import attend, glu_residuals, glu_up, laid_out_as


class DynamicMemory(nn.Module):
    """Write the words into a memory as the image needs them, and let each place read it (Zhu et al. 2019, 3.1 to 3.3).

    Args:
        word_dim: W.
        width: G.
        legacy_mask: as in ``t2i_zoo.nn.attend``.
    """

    def __init__(self, word_dim: int, width: int, legacy_mask: bool = False) -> None:
        super().__init__()
        self.legacy_mask = legacy_mask
        self.gate_word = nn.Linear(word_dim, 1, bias=False)
        self.gate_image = nn.Linear(width, 1, bias=False)
        self.write_word = nn.Conv1d(word_dim, 2 * width, 1)
        self.write_image = nn.Conv1d(width, 2 * width, 1)
        self.key = nn.Conv1d(2 * width, width, 1)
        self.value = nn.Conv1d(2 * width, width, 1)
        self.respond = nn.Conv2d(2 * width, 1, 1)

    def forward(self, features: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Refine a map.

        Args:
            features: (B, G, H, H).
            words: (B, T, W).
            mask: (B, T) bool, true at words; padding is written too, but never read.

        Returns:
            The features (B, G, H, H), and the attention (B, T, H, H), which sums to 1 over the words at each place.
        """
        # Detached as in the authors' code: the memory moves the map only through what is read.
        pooled_bg1 = features.detach().mean((2, 3)).unsqueeze(2)
        gate_b1t = (self.gate_word(words) + self.gate_image(pooled_bg1.mT)).sigmoid().mT
        memory = self.write_word(words.mT).relu() * gate_b1t + self.write_image(pooled_bg1).relu() * (1 - gate_b1t)
        attention_bqt = attend(features, self.key(memory).relu(), mask, self.legacy_mask)
        values_bgt = self.value(memory).relu()
        read_bgq = torch.bmm(values_bgt, attention_bqt.mT.to(values_bgt.dtype))
        read = laid_out_as(features, read_bgq.view_as(features))
        gate_b1hh = self.respond(torch.cat([features, read], 1)).sigmoid()
        mixed = (1 - gate_b1hh) * features + gate_b1hh * read
        return mixed, attention_bqt.mT.reshape(*attention_bqt.mT.shape[:2], *features.shape[2:])


class NextStage(nn.Module):
    """Refine the features with the memory and with residual blocks, and double their side.

    Args:
        word_dim: W.
        width: G, of the next features too.
        residual_blocks: ``R_NUM``.
        legacy_mask: as in ``t2i_zoo.nn.attend``.
    """

    def __init__(self, word_dim: int, width: int, residual_blocks: int, legacy_mask: bool) -> None:
        super().__init__()
        self.memory = DynamicMemory(word_dim, width, legacy_mask)
        self.residual = glu_residuals(2 * width, residual_blocks)
        self.up = glu_up(2 * width, width)

    def forward(self, features: Tensor, condition: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, G, 2 H, 2 H) and attention (B, T, H, H); the condition is unused, as in the code."""
        mixed, attention = self.memory(features, words, mask)
        # The same map twice, where AttnGAN joins two: so the authors' weights expect it.
        return self.up(self.residual(torch.cat([mixed, mixed], 1))), attention
