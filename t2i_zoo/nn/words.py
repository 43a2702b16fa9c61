"""The generator of AttnGAN and MirrorGAN: stages that look at the words of the caption, place by place.

Source: taoxugit/AttnGAN. Letters: B batch, T words, Q places of a map, G its channels, W length of a word vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.nn.checkpointing import checkpointed
from t2i_zoo.nn.conditioning import ConditioningAugmentation
from t2i_zoo.nn.glu import FirstStage, orthogonal_init, to_image


class WordAttention(nn.Module):
    """For each place of a map, the mean of the words that it attends to (Xu et al. 2018, equation 3).

    Args:
        word_dim: W.
        width: channels of the map and of the result.
        legacy_mask: mask padding as the authors' code does, which gives place q of caption b the mask of caption
            ``(b * Q + q) mod B``; so captions of a batch touch each other. For weights that were trained so.
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
            mask: (B, T) bool, true at words; at least one a caption.

        Returns:
            Contexts (B, width, H, H), and the attention (B, T, H, H), which sums to 1 over the words of each place.
        """
        words_bgt = self.project(words.mT.unsqueeze(3)).squeeze(3)
        scores_bqt = torch.bmm(features.flatten(2).mT, words_bgt)
        batch, places = scores_bqt.shape[:2]
        if self.legacy_mask:
            rows = torch.arange(batch * places, device=mask.device) % batch
            seen = mask[rows].view(batch, places, -1)
        else:
            seen = mask[:, None]
        attention_bqt = scores_bqt.float().masked_fill(~seen, float("-inf")).softmax(2)
        contexts_bgq = torch.bmm(words_bgt, attention_bqt.mT.to(words_bgt.dtype))
        height, width = features.shape[2:]
        return contexts_bgq.view(batch, -1, height, width), attention_bqt.mT.reshape(batch, -1, height, width)


class WordGenerator(nn.Module):
    """Noise, sentence and words to a pyramid of pictures in [-1, 1], smallest first.

    Args:
        sentence_dim: D, length of a sentence vector.
        noise_dim: z.
        condition_dim: C, the length of the augmented condition.
        width: channels of every stage's features (``GF_DIM``).
        size: side S of the first stage's map.
        stages: the further stages, each of which doubles the side: (features, condition (B, C), words (B, T, W), mask
            (B, T)) to the next features and the attention (B, T, H, H) over the map that it began with.
        last_only: a picture of the last stage alone, as in AttnGAN's DCGAN variant.
        checkpointing: keep only what passes between the stages, and compute the rest again in the backward pass.
    """

    def __init__(
        self,
        sentence_dim: int,
        noise_dim: int,
        condition_dim: int,
        width: int,
        size: int,
        stages: Sequence[nn.Module],
        *,
        last_only: bool = False,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.last_only = last_only
        self.checkpointing = checkpointing
        self.augment = ConditioningAugmentation(sentence_dim, condition_dim, "glu")
        self.first = FirstStage(condition_dim + noise_dim, width, size)
        self.stages = nn.ModuleList(stages)
        self.pictures = nn.ModuleList(to_image(width) for _ in range(1 if last_only else len(stages) + 1))
        self.apply(orthogonal_init)

    def forward(
        self, noise: Tensor, sentence: Tensor, words: Tensor, mask: Tensor, augmentation: Tensor
    ) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
        """Draw pictures.

        Args:
            noise: (B, z).
            sentence: (B, D).
            words: (B, T, W).
            mask: (B, T) bool, true at words.
            augmentation: (B, C) normal noise of conditioning augmentation; 0 makes the condition its mean.

        Returns:
            The pictures; ``mu`` and ``logvar`` (B, C) of the condition; the attention of each stage but the
            first.
        """
        condition, mu, logvar = self.augment(sentence, augmentation)
        features = self._run(self.first, torch.cat([condition, noise], dim=1))
        maps, attention = [features], []
        for stage in self.stages:
            features, weights = self._run(stage, features, condition, words, mask)
            maps.append(features)
            attention.append(weights)
        shown = maps[-1:] if self.last_only else maps
        images = [picture(one) for picture, one in zip(self.pictures, shown, strict=True)]
        return images, {"mu": mu, "logvar": logvar}, attention

    def _run(self, part: nn.Module, *inputs: Tensor) -> Any:
        return checkpointed(part, *inputs) if self.checkpointing else part(*inputs)
