"""Attention over the words of a caption, place by place, as AttnGAN, MirrorGAN and DM-GAN have it.

Source: taoxugit/AttnGAN. Letters: B batch, T words, Q places of a map, G its channels, W dimension of a word embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from t2i_zoo.nn.layout import laid_out_as


def attend(features: Tensor, keys: Tensor, mask: Tensor, legacy_mask: bool = False) -> Tensor:
    """How much each place of a map attends to each word: the softmax over words of products with their keys.

    Args:
        features: (B, G, H, W).
        keys: (B, G, T).
        mask: (B, T) bool, true at words; at least one per caption.
        legacy_mask: mask padding as the authors' code does, which gives place q of caption b the mask of caption
            ``(b * Q + q) mod B``, so that the captions of a batch affect each other; for weights trained that way.

    Returns:
        (B, Q, T), float32; sums to 1 over the words.
    """
    scores_bqt = torch.bmm(features.flatten(2).mT, keys)
    batch, places = scores_bqt.shape[:2]
    if legacy_mask:
        rows = torch.arange(batch * places, device=mask.device) % batch
        seen = mask[rows].view(batch, places, -1)
    else:
        seen = mask[:, None]
    # In float32: half precision is too coarse for a softmax of unscaled products.
    return scores_bqt.float().masked_fill(~seen, float("-inf")).softmax(2)


class WordAttention(nn.Module):
    """For each place of a map, the mean of the words it attends to (Xu et al. 2018, equation 3).

    Args:
        word_dim: W.
        width: channels of the map and of the result.
        legacy_mask: as in ``attend``.
    """

    def __init__(self, word_dim: int, width: int, legacy_mask: bool = False) -> None:
        super().__init__()
        self.legacy_mask = legacy_mask
        self.project = nn.Conv2d(word_dim, width, 1, bias=False)

    def forward(self, features: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            features: (B, width, H, H).
            words: (B, T, W).
            mask: (B, T) bool, true at words; at least one per caption.

        Returns:
            Contexts (B, width, H, H), and the attention (B, T, H, H), which sums to 1 over the words at each place.
        """
        words_bgt = self.project(words.mT.unsqueeze(3)).squeeze(3)
        attention_bqt = attend(features, words_bgt, mask, self.legacy_mask)
        contexts_bgq = torch.bmm(words_bgt, attention_bqt.mT.to(words_bgt.dtype))
        maps_bthw = attention_bqt.mT.reshape(*attention_bqt.mT.shape[:2], *features.shape[2:])
        return laid_out_as(features, contexts_bgq.view_as(features)), maps_bthw
