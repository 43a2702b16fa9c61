"""A text encoder without weights: words are hashed into fixed random signs, as in feature hashing.

After Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009, arXiv:0902.2206, with several
signed positions for each feature (as in sparse random projection) and the character n-grams of Bojanowski et al.,
"Enriching Word Vectors with Subword Information", 2017, arXiv:1607.04606. It knows no synonyms: use a ``transformers``
encoder for these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.text.features import TextEncoder, TextFeatures, check_not_blank
from t2i_zoo.text.tokens import words_or_names

_PERSON = b"t2i-hashing-1"  # part of every digest: another one is another encoder
# part of the fingerprint, the former way of splitting captions first: where it splits alike, the features are equal
_VERSIONS = ("t2i-hashing-1", "t2i-hashing-2")
_POSITIONS = 16  # signs of a feature: the 64 bytes of one blake2b digest are sixteen 32-bit numbers
_CHUNK = 2048  # captions summed at once: bounds the working memory near 50 MiB for dim 1024

# Weights are multiples of 1/32, so that every sum below is exact in float32 and equal on every machine.
_TRIGRAM = 0.375  # "yelow" shares four trigrams with "yellow", which makes the two similar, yet far from equal
_BIGRAM = 0.75  # which part has which colour: nearly as heavy as a word
_FUNCTION = 0.25
# "no", "not" and "without" are left out on purpose: they reverse the meaning of a caption.
_FUNCTION_WORDS = frozenset(
    "a an and are as at be but by for from has have in into is it its of on or that the their them there "  # noqa: SIM905
    "these they this those to very was were which who whose will with".split()
)

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def _signs(features: Sequence[str], dim: int) -> tuple[Integers, Floats]:
    """Positions in ``[0, dim)`` and signs, (F, 16) each; a feature has one position in each sixteenth.

    Below 16 dimensions there are as many of each as dimensions.
    """
    count = min(_POSITIONS, dim)
    digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), person=_PERSON).digest() for text in features]
    numbers = np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, _POSITIONS)[:, :count].astype(np.int64)
    edges = np.arange(count + 1) * dim // count
    return edges[:-1] + (numbers >> 1) % np.diff(edges), (1 - 2 * (numbers & 1)).astype(np.float32)


@lru_cache(maxsize=32_768)
def _word(word: str, dim: int) -> tuple[Integers, Floats]:
    """Sparse vector of one word with its character trigrams, unscaled: positions and values."""
    bounded = f"<{word}>"
    trigrams = [f"c:{bounded[i : i + 3]}" for i in range(len(bounded) - 2)]
    positions, values = _signs([f"w:{word}", *trigrams], dim)
    values[1:] *= _TRIGRAM
    return positions.ravel(), values.ravel()


def _table(tokens: list[list[str]], dim: int) -> tuple[list[str], Floats, list[list[int]]]:
    """The different words of some captions, their unscaled vectors (U, dim), and the words' rows in each caption."""
    row_of = {word: row for row, word in enumerate(dict.fromkeys(word for found in tokens for word in found))}
    parts = [_word(word, dim) for word in row_of]
    flat = [np.empty(0, np.int64), *(row * dim + positions for row, (positions, _) in enumerate(parts))]
    values = [np.empty(0, np.float32), *(values for _, values in parts)]
    table = _scatter(np.concatenate(flat), np.concatenate(values), len(parts), dim)
    return list(row_of), table, [[row_of[word] for word in found] for found in tokens]


def _scatter(flat: Integers, values: Floats, rows: int, dim: int) -> Floats:
    return np.bincount(flat, weights=values, minlength=rows * dim).reshape(rows, dim).astype(np.float32)


def _scaled(rows: Floats) -> Floats:
    """Each row divided by its root-mean-square; a row whose signs cancel, as few dimensions allow, stays zero."""
    squares = np.square(rows, dtype=np.float64).mean(axis=1, keepdims=True)
    return np.asarray(rows / np.sqrt(np.where(squares == 0, 1, squares)), dtype=np.float32)


class HashingEncoder(TextEncoder):
    """Word, word-pair and character-trigram features under fixed random signs; the default, which needs no download.

    Every vector has root mean square 1, that is, unit variance in each dimension, as the networks expect of their
    condition. Function words have a quarter of the weight and are skipped when pairs of neighbours are formed, so "red
    petals and a yellow centre" has the pairs (red, petals), (petals, yellow) and (yellow, centre). The result is the
    same, bit for bit, on every machine, operating system, Python version and process. A caption without a word, such as
    an emoji or ``"!!!"``, is read as the Unicode names of its characters.

    Args:
        dim: dimension of sentence embeddings and word vectors; below 16, different words soon look alike.
        max_words: the largest number of word vectors of a caption; the sentence embedding always covers all words.

    Raises:
        T2IError: ``dim`` or ``max_words`` is too small.
    """

    def __init__(self, dim: int = 1024, max_words: int = 32) -> None:
        super().__init__()
        if dim < 1:
            raise T2IError(f"The hashing text encoder got dim={dim} and needs at least 1: raise its dim.")
        if max_words < 1:
            raise T2IError(f"The hashing text encoder got max_words={max_words} and needs at least 1: raise max_words.")
        self.dim = self.word_dim = dim
        self.max_words = max_words
        # A module without parameters does not know its device.
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions.

        Args:
            captions: B texts, none of them blank.
            words: also give a vector for each of the first ``max_words`` words.

        Returns:
            sentence (B, dim), words (B, T, dim) and mask (B, T), where T is the longest caption of this call; each
            vector of a real word has root mean square 1.

        Raises:
            T2IError: a caption is blank.
        """
        tokens = [words_or_names(caption, self.former_words) for caption in captions]
        check_not_blank(captions, tokens)
        sentence = np.empty((len(tokens), self.dim), dtype=np.float32)
        for start in range(0, len(tokens), _CHUNK):
            chunk = tokens[start : start + _CHUNK]
            sentence[start : start + _CHUNK] = _scaled(self._sums(chunk))
        device = self.get_buffer("_anchor").device
        if not words:
            return TextFeatures(torch.from_numpy(sentence).to(device))
        vectors, mask = self._words([found[: self.max_words] for found in tokens])
        return TextFeatures(torch.from_numpy(sentence).to(device), vectors.to(device), mask.to(device))

    def tokens(self, caption: str) -> list[str]:
        """The words of a caption or, where it has none, of its characters' names."""
        return words_or_names(caption, self.former_words)[: self.max_words]

    def _sums(self, chunk: list[list[str]]) -> Floats:
        names, table, rows = _table(chunk, self.dim)
        table *= np.array([_FUNCTION if word in _FUNCTION_WORDS else 1 for word in names], np.float32)[:, None]
        sums: Floats = np.stack([table[found].sum(axis=0) for found in rows])
        content = [[word for word in found if word not in _FUNCTION_WORDS] for found in chunk]
        pairs = [f"b:{left} {right}" for found in content for left, right in pairwise(found)]
        if not pairs:
            return sums
        owner = np.repeat(np.arange(len(chunk)), [max(len(found) - 1, 0) for found in content])
        positions, signs = _signs(pairs, self.dim)
        flat = (owner[:, None] * self.dim + positions).ravel()
        sums += np.float32(_BIGRAM) * _scatter(flat, signs.ravel(), len(chunk), self.dim)
        return sums

    def _words(self, tokens: list[list[str]]) -> tuple[Tensor, Tensor]:
        names, table, rows = _table(tokens, self.dim)
        index = np.full((len(rows), max(map(len, rows), default=0)), len(names))
        for row, found in zip(index, rows, strict=True):
            row[: len(found)] = found
        padded = np.concatenate([_scaled(table), np.zeros((1, self.dim), np.float32)])
        return torch.from_numpy(padded[index]), torch.from_numpy(index < len(names))

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of the version of this code and its arguments."""
        text = f"{_VERSIONS[not self.former_words]} dim={self.dim} max_words={self.max_words}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
