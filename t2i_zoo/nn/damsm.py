"""The matching losses of DAMSM (Xu et al. 2018, arXiv 1711.10485, section 3.2) between a batch's images and captions.

Source: taoxugit/AttnGAN, ``miscc/losses.py`` and ``GlobalAttention.py``, which run over the captions one by one; here
all pairs are computed at once, with the same numbers. Letters in shapes: I images, J captions, T words, R regions of
an image, D dimension of regions and words. Everything is computed in float32, even under autocast: ``exp`` of ten times
a cosine is too coarse in half precision.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_LEAST = 1e-8  # of a product of two norms, as in the authors' cosine
_GROUP = 12  # captions at a time on a CPU: their intermediate values stay in its cache


class PairLosses(NamedTuple):
    """Both directions of one matching loss, float32 scalars.

    Attributes:
        image_to_text: cross-entropy of each image's own caption among all captions.
        text_to_image: cross-entropy of each caption's own image among all images.
    """

    image_to_text: Tensor
    text_to_image: Tensor


def words_loss(
    regions: Tensor,
    words: Tensor,
    lengths_or_mask: Tensor,
    class_ids: Tensor | None,
    gamma1: float = 4.0,
    gamma2: float = 5.0,
    gamma3: float = 10.0,
    chunk: int | None = None,
) -> PairLosses:
    """Match words with regions (equations 7 to 12); row i of both belongs to one pair.

    Args:
        regions: (B, D, H, W) or (B, D, R).
        words: (B, T, D).
        lengths_or_mask: (B,) int64 numbers of words, or (B, T) bool, true at words; at least one per caption.
        class_ids: (B,) int64; other images and captions of the same class are left out, -1 is no class. None leaves
            nothing out.
        gamma1: sharpness of a word's attention to regions; the paper says 5, the authors' configs 4.
        gamma2: sharpness of the sum over words.
        gamma3: sharpness of the sum over pairs.
        chunk: captions at a time, whose intermediate values are computed again in the backward pass; None keeps all of
            them, about five tensors of B * B * T * R numbers. A CPU always works on a few captions of similar length at
            a time, and skips their padding.
    """
    return pair_losses(gamma3 * word_scores(regions, words, lengths_or_mask, gamma1, gamma2, chunk), class_ids)


def sentence_loss(codes: Tensor, sentences: Tensor, class_ids: Tensor | None, gamma3: float = 10.0) -> PairLosses:
    """Match codes of whole images (B, D) with sentence embeddings (B, D) by their cosine; see ``words_loss``."""
    return pair_losses(gamma3 * sentence_scores(codes, sentences), class_ids)


def word_scores(
    regions: Tensor,
    words: Tensor,
    lengths_or_mask: Tensor,
    gamma1: float = 4.0,
    gamma2: float = 5.0,
    chunk: int | None = None,
) -> Tensor:
    """R(Q, D) of equation 10 for all pairs: (I, J) float32, from regions of I images and words of J captions."""
    with torch.autocast(regions.device.type, enabled=False):
        regions, words = regions.flatten(2).float(), words.float()
        mask = _mask(lengths_or_mask, words)
        if (
            words.device.type == "cpu"
        ):  # lengths are on the host, so padding can be skipped without waiting for a device
            order = mask.sum(1).argsort()
            groups = [(rows, _end(mask[rows])) for rows in torch.split(order, min(chunk or _GROUP, _GROUP))]
        else:
            order = torch.arange(len(words), device=words.device)
            groups = [(rows, words.shape[1]) for rows in torch.split(order, chunk or len(words))]
        columns = []
        for rows, end in groups:
            part = (regions, words[rows, :end], mask[rows, :end], gamma1, gamma2)
            if chunk is None:
                columns.append(_pair_scores(*part))
            else:
                columns.append(checkpoint(_pair_scores, *part, use_reentrant=False, preserve_rng_state=False))
        return torch.cat(columns, 1)[:, order.argsort()]


def sentence_scores(codes: Tensor, sentences: Tensor) -> Tensor:
    """Cosines (I, J) float32 of codes (I, D) and sentence embeddings (J, D)."""
    with torch.autocast(codes.device.type, enabled=False):
        codes, sentences = codes.float(), sentences.float()
        lengths: Tensor = torch.linalg.vector_norm(codes, dim=1)[:, None] * torch.linalg.vector_norm(sentences, dim=1)
        return codes @ sentences.T / lengths.clamp_min(_LEAST)


def word_attention(
    regions: Tensor, words: Tensor, lengths_or_mask: Tensor, gamma1: float = 4.0
) -> tuple[Tensor, Tensor]:
    """The regions of its own image that each word attends to (equations 8 and 9).

    Args:
        regions: (B, D, H, W).
        words: (B, T, D), of the captions of these images.
        lengths_or_mask: as in ``words_loss``.
        gamma1: as in ``words_loss``.

    Returns:
        Contexts (B, T, D), and the attention (B, T, H, W) float32, which sums to 1 over the places; after a caption's
        end it is uniform and means nothing.
    """
    with torch.autocast(regions.device.type, enabled=False):
        flat, words = regions.flatten(2).float(), words.float()
        attention = _attend(words @ flat + _padding(_mask(lengths_or_mask, words)), gamma1)  # (B, T, R)
        return attention @ flat.mT, attention.view(*attention.shape[:2], *regions.shape[2:])


def pair_losses(scores: Tensor, class_ids: Tensor | None) -> PairLosses:
    """Cross-entropies of the diagonal of scores (B, B), by rows (images) and by columns (captions)."""
    if class_ids is not None:
        same = (class_ids[:, None] == class_ids) & (class_ids >= 0)
        same &= ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(same, float("-inf"))
    own = torch.arange(len(scores), device=scores.device)
    return PairLosses(F.cross_entropy(scores, own), F.cross_entropy(scores.T, own))


def _mask(lengths_or_mask: Tensor, words: Tensor) -> Tensor:
    """(J, T) bool on the device of the words."""
    given = lengths_or_mask.to(words.device)
    return given if given.dtype == torch.bool else torch.arange(words.shape[1], device=words.device) < given[:, None]


def _end(mask: Tensor) -> int:
    """Number of words of the longest caption."""
    return int(mask.any(0).nonzero()[-1]) + 1


def _padding(mask: Tensor) -> Tensor:
    """What is added to products of words (..., T, 1): 0, and -inf after a caption's end."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))[..., None]


def _attend(similarity: Tensor, gamma1: float) -> Tensor:
    """Attention (..., T, R) of words to regions: a softmax over words, then another over regions, by design.

    Args:
        similarity: (..., T, R), products of words and regions, -inf after a caption's end.
        gamma1: sharpness of the second softmax.
    """
    return (gamma1 * similarity.softmax(-2)).softmax(-1)


def _pair_scores(regions: Tensor, words: Tensor, mask: Tensor, gamma1: float, gamma2: float) -> Tensor:
    """Scores (I, J) from regions (I, D, R), words (J, T, D) and their mask (J, T)."""
    # All words times the regions of each image: a few large products instead of many small ones.
    pairs = (len(regions), *mask.shape)  # I, J, T
    every_word = words.flatten(0, 1).expand(len(regions), -1, -1)
    similarity = torch.baddbmm(_padding(mask).view(1, -1, 1), every_word, regions).view(*pairs, -1)  # (I, J, T, R)
    attention = _attend(similarity, gamma1)
    context = torch.bmm(attention.flatten(1, 2), regions.mT).view(*pairs, -1)  # (I, J, T, D)
    lengths: Tensor = torch.linalg.vector_norm(context, dim=-1) * torch.linalg.vector_norm(words, dim=-1)
    cosine = (context * words).sum(-1) / lengths.clamp_min(_LEAST)  # (I, J, T)
    return (gamma2 * cosine).masked_fill(~mask, float("-inf")).logsumexp(-1)
