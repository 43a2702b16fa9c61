"""What a text encoder gives to a model, and what every encoder promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.text.tokens import words_of


class TextFeatures(NamedTuple):
    """Features of a batch of captions.

    Attributes:
        sentence: (B, D) float, one vector a caption.
        words: (B, T, W) float, one vector a token, zeros where ``mask`` is false; None where nobody asked for words.
        mask: (B, T) bool, true at real tokens; None together with ``words``.
    """

    sentence: Tensor
    words: Tensor | None = None
    mask: Tensor | None = None


class TextEncoder(nn.Module):
    """A frozen text encoder. Subclasses set the three attributes and write ``encode`` and ``fingerprint``.

    Attributes:
        dim: length D of a sentence vector.
        word_dim: length W of a word vector.
        max_words: the most tokens T that are kept of one caption.
    """

    dim: int
    word_dim: int
    max_words: int

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions on the encoder's own device, without gradients; ``words`` asks for word vectors too."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change whenever the features of any caption could change."""
        raise NotImplementedError

    def tokens(self, caption: str) -> list[str]:
        """What the rows of ``words`` stand for in one caption, in order."""
        return words_of(caption)[: self.max_words]

    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption that the encoder itself cannot tell apart from other unknown words."""
        return []

    def assets(self) -> dict[str, str]:
        """Text files (name to content) that, with the state dict, rebuild the encoder where its source is gone."""
        return {}

    def train(self, mode: bool = True) -> TextEncoder:
        """Stay in eval mode: a frozen encoder has no training behaviour."""
        return super().train(False)


def check_not_blank(captions: Sequence[str]) -> None:
    """Raise where a caption has no letter to encode."""
    for number, caption in enumerate(captions):
        if not caption.strip():
            raise T2IError(
                f"Caption {number} of {len(captions)} is {caption!r}, which has no word to encode: "
                "give it at least one word or remove it from the captions."
            )
