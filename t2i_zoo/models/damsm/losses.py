"""The loss of DAMSM (Xu et al. 2018, section 3.2) as a function of both encoders' outputs.

The matching losses themselves are ``t2i_zoo.nn.damsm``, since GANs have them too.
"""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.nn import class_loss
from t2i_zoo.nn.damsm import sentence_loss, words_loss
from t2i_zoo.text import TextFeatures

__all__ = ["class_loss", "matching_loss"]


def matching_loss(
    regions: Tensor,
    codes: Tensor,
    text: TextFeatures,
    labels: Tensor | None,
    gammas: tuple[float, float, float],
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Both matching losses in both directions, float32 scalars; ``loss`` is the sum of the four, as in the paper.

    Args:
        regions: (B, D, H, W).
        codes: (B, D).
        text: sentence (B, D), words (B, T, D) and their mask.
        labels: (B,) int64; pairs of two images of one class are left out, -1 is no class. None leaves nothing out.
        gammas: gamma 1, 2 and 3.
        chunk: captions at a time; see ``t2i_zoo.nn.damsm.words_loss``.
    """
    assert text.words is not None
    assert text.mask is not None
    words = words_loss(regions, text.words, text.mask, labels, *gammas, chunk)
    sentence = sentence_loss(codes, text.sentence, labels, gammas[2])
    found = {"words": words.image_to_text + words.text_to_image}
    found["sentence"] = sentence.image_to_text + sentence.text_to_image
    return {"loss": found["words"] + found["sentence"], **found}
