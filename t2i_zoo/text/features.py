"""What a text encoder gives to a model, and what every encoder guarantees."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence, Sized
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.text.tokens import words_of

Network = TypeVar("Network", bound=nn.Module)


class TextFeatures(NamedTuple):
    """Features of a batch of captions.

    Attributes:
        sentence: (B, D) float, the sentence embeddings.
        words: (B, T, W) float, one vector for each token, zeros where ``mask`` is false; None if not asked for.
        mask: (B, T) bool, true at real tokens; None if ``words`` is None.
    """

    sentence: Tensor
    words: Tensor | None = None
    mask: Tensor | None = None


class TextEncoder(nn.Module):
    """A frozen text encoder. Subclasses set the three attributes and implement ``encode`` and ``fingerprint``.

    Attributes:
        dim: dimension D of a sentence embedding.
        word_dim: dimension W of a word vector.
        max_words: the largest number T of tokens that are kept of a caption.
        former_words: whether captions are split as version 0.1 did, for models that were trained with them.
    """

    dim: int
    word_dim: int
    max_words: int
    former_words: bool = False

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions on the encoder's own device, without gradients; ``words`` asks for word vectors too."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change whenever the features of any caption could change."""
        raise NotImplementedError

    def tokens(self, caption: str) -> list[str]:
        """The tokens of a caption that the rows of ``words`` belong to, in order."""
        return words_of(caption, self.former_words)[: self.max_words]

    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption that the encoder itself cannot tell apart from other unknown words."""
        return []

    def assets(self) -> dict[str, str]:
        """Text files (name to content) that rebuild the encoder together with its state dict, without its source."""
        return {}

    def train(self, mode: bool = True) -> TextEncoder:
        """Stay in eval mode: a frozen encoder has no training behaviour."""
        return super().train(False)


class EncoderWithWeights(TextEncoder):
    """Base of the encoders that have weights: subclasses implement ``_identity``, and may encode with ``_encode``."""

    def __init__(self) -> None:
        super().__init__()
        self._fingerprint: str | None = None
        self.register_load_state_dict_post_hook(_forget_fingerprint)  # type: ignore[no-untyped-call]

    def _identity(self) -> Iterator[bytes | memoryview]:
        """All that the features depend on: a version of the code, options, assets and weights, but no path."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of options, assets and weights, not of the path; computed once."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(digest_size=8)
            for part in self._identity():
                digest.update(part)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def _encode(
        self, order: Sequence[int], size: int, words: bool, read: Callable[[Sequence[int]], TextFeatures]
    ) -> TextFeatures:
        """Read ``size`` captions at a time in float32, also under autocast, and return them in their own order.

        Args:
            order: the indices of all captions; if neighbours are of similar length, little is padded.
            size: of one forward pass.
            words: whether to return word vectors.
            read: features of the captions with the given indices, word vectors included.
        """
        device = next(self.parameters()).device
        sentence = torch.zeros(len(order), self.dim, device=device)
        parts: list[tuple[Sequence[int], Tensor, Tensor]] = []
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                sentence[chosen], states, mask = read(chosen)
                if words and states is not None and mask is not None:
                    parts.append((chosen, states, mask))
        if not words:
            return TextFeatures(sentence)
        longest = max((mask.shape[1] for _, _, mask in parts), default=0)
        found = torch.zeros(len(order), longest, self.word_dim, device=device)
        real = torch.zeros(len(order), longest, dtype=torch.bool, device=device)
        for chosen, states, mask in parts:
            found[chosen, : mask.shape[1]] = states * mask[..., None]
            real[chosen, : mask.shape[1]] = mask
        return TextFeatures(sentence, found, real)


def _forget_fingerprint(encoder: nn.Module, _: object) -> None:
    encoder._fingerprint = None  # type: ignore[assignment]


def weights_of(network: nn.Module) -> Iterator[bytes | memoryview]:
    """Names and values of all weights, for ``_identity``."""
    for name, tensor in sorted(network.state_dict().items()):
        yield f"\0{name}\0".encode()
        yield tensor.detach().cpu().contiguous().numpy().data


def without_weights(build: Callable[[], Network]) -> Network:
    """A frozen network whose weights come from elsewhere: none are drawn, and the random state stays as it is."""
    with torch.device("meta"):
        network = build()
    return network.to_empty(device="cpu").requires_grad_(False)


def check_not_blank(captions: Sequence[str], words: Sequence[Sized] | None = None) -> None:
    """Raise for a blank caption; ``words`` are what is read of each, where blanks are not the only mistake."""
    for number, (caption, found) in enumerate(zip(captions, words or [c.strip() for c in captions], strict=True), 1):
        if not len(found):
            raise T2IError(
                f"Caption {number} of {len(captions)} is {caption!r}, which has no word to encode: give it a word."
            )
