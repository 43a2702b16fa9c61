"""Skip-thought vectors (Kiros et al. 2015, arXiv 1506.06726), the text encoder of TAC-GAN.

A GRU reads a sentence and its last state is the sentence embedding, trained to predict the sentences before and after
it. *combine-skip* concatenates two such models, each normalized to length 1: uni-skip (dimension 2400) and bi-skip,
whose two GRUs (1200 each) read forwards and backwards.

Authors' code: ryankiros/skip-thoughts (Theano). Its GRU is

    r = sigmoid(x W_r + h U_r + b_r)        u = sigmoid(x W_u + h U_u + b_u)
    n = tanh(x Wx + bx + (h Ux) * r)        h' = u * h + (1 - u) * n

which is ``torch.nn.GRU`` with z = u, gates in the order r, z, n, and ``bias_hh`` zero: ``weight_ih`` is the transposed
[W, Wx], ``weight_hh`` the transposed [U, Ux], ``bias_ih`` is [b, bx] (W, U and b hold r before u). Both apply the reset
gate after the recurrent product; equation 3 of the paper applies it before.

Deviations: words are in lower case, while the authors look them up as they are written; tokens follow simple rules
instead of NLTK; unknown punctuation marks are left out, while the authors read ``UNK``; a caption is one sequence of at
most ``max_words`` tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from t2i_zoo.errors import T2IError
from t2i_zoo.nn.recurrent import run_recurrent
from t2i_zoo.text import skip_thought_files as files
from t2i_zoo.text.features import EncoderWithWeights, TextFeatures, check_not_blank, weights_of, without_weights
from t2i_zoo.text.skip_thought_words import PADDING, Vocabulary, is_word, tokens_of
from t2i_zoo.text.vocabulary import padded

_CHUNK = 256  # captions in one forward pass
_VERSION = "t2i-skip-thought-1"  # part of the fingerprint, to be raised when the features of the same weights change


class SkipThoughtNetwork(nn.Module):
    """Both encoders, each with its word table, from word numbers to sentence embeddings and states.

    Args:
        words: rows V of a word table.
        word_dim: dimension E of a word (paper: 620).
        uni_dim: units of uni-skip (paper: 2400).
        bi_dim: units of each direction of bi-skip (paper: 1200).
    """

    def __init__(self, words: int, word_dim: int, uni_dim: int, bi_dim: int) -> None:
        super().__init__()
        self.uni_words = nn.Embedding(words, word_dim, padding_idx=PADDING)
        self.bi_words = nn.Embedding(words, word_dim, padding_idx=PADDING)
        self.uni = nn.GRU(word_dim, uni_dim, batch_first=True)
        self.bi = nn.GRU(word_dim, bi_dim, batch_first=True, bidirectional=True)

    def forward(self, numbers: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode sentences; padding has no influence.

        Args:
            numbers: (B, T) int64, on the network's device.
            lengths: (B,) int64 from 1 to T, on the CPU.

        Returns:
            The last states of uni-skip (B, U) and bi-skip (B, 2 H), not normalized; and the states after each word
            (B, T, U + 2 H), zero at the padding.
        """
        states, last = [], []
        for table, network in ((self.uni_words, self.uni), (self.bi_words, self.bi)):
            packed = pack_padded_sequence(table(numbers), lengths, batch_first=True, enforce_sorted=False)
            output, final = run_recurrent(network, packed)
            states.append(pad_packed_sequence(output, batch_first=True, total_length=numbers.shape[1])[0])
            last.append(final.transpose(0, 1).flatten(1))  # each direction ends at another end of the sentence
        return last[0], last[1], torch.cat(states, dim=2)


class SkipThoughtEncoder(EncoderWithWeights):
    """Frozen combine-skip vectors, from the authors' published model or from your own run.

    Args:
        path: folder with the authors' files (``dictionary.txt``, ``utable.npy``, ``btable.npy``, ``uni_skip.npz``,
            ``bi_skip.npz`` and the ``.pkl`` of both), or a run of ``SkipThought``.
        max_vocabulary: the largest number of words that are kept, since they are stored in each checkpoint.
        max_words: the largest number of tokens of a caption.
        vocabulary: a text file, or a folder of .txt files, whose words are kept, the most frequent first. Required for
            the authors' dictionary, which has 930,911 words in no useful order.
        expansion: a second word table, whose additional words are mapped into the space of this one; see
            ``skip_thought_files.expand``.
        use_eos: end each sentence with ``<eos>``, as in training. By default only your own models do, since TAC-GAN and
            the authors' code do not; the authors recommend it for sentences without a full stop.
        assets: files of ``assets()``; with them no file is opened, and a state dict brings the weights.

    Raises:
        T2IError: a file cannot be read, or an argument is out of its range.
    """

    def __init__(
        self,
        path: str,
        max_vocabulary: int = 20_000,
        max_words: int = 64,
        vocabulary: str | None = None,
        expansion: str | None = None,
        use_eos: bool | None = None,
        assets: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("max_vocabulary", max_vocabulary), ("max_words", max_words)):
            if value < 1:
                raise T2IError(f"found text_encoder's {name} {value}, expected at least 1")
        self.max_words = max_words
        if assets is None:
            found = files.read(path, max_vocabulary, vocabulary)
            if expansion is not None:
                found = files.expand(found, expansion, max_vocabulary, vocabulary)
            words, end = found.words, found.end if use_eos is None else use_eos
            word_dim, uni_dim, bi_dim = _dims(found.state)
        else:
            words = assets["words.txt"].split("\n") if assets["words.txt"] else []
            options: dict[str, Any] = json.loads(assets["options.json"])
            end, word_dim, uni_dim, bi_dim = (options[k] for k in ("use_eos", "word_dim", "uni_dim", "bi_dim"))
        self.known, self.use_eos = Vocabulary(words), end
        self.network = without_weights(lambda: SkipThoughtNetwork(len(self.known), word_dim, uni_dim, bi_dim))
        if assets is None:
            self.network.load_state_dict(found.state)
        self.dim = self.word_dim = uni_dim + 2 * bi_dim
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions in float32, also under autocast, without gradients.

        Args:
            captions: B texts, none of them blank.
            words: also return the states after each token: uni-skip, bi-skip forwards and bi-skip backwards.

        Returns:
            sentence (B, dim), uni-skip and bi-skip each of length 1; words (B, T, dim), not normalized, and mask
            (B, T), where T is the longest caption of this call.

        Raises:
            T2IError: a caption is blank.
        """
        check_not_blank(captions)
        rows = [self.known.numbers(caption, self.max_words, self.use_eos) for caption in captions]
        device = self.network.uni_words.weight.device

        def read(chosen: Sequence[int]) -> TextFeatures:
            numbers, lengths = padded([rows[i] for i in chosen])
            uni, bi, states = self.network(numbers.to(device), lengths)
            mask = (torch.arange(numbers.shape[1]) < lengths[:, None]).to(device)
            return TextFeatures(torch.cat([F.normalize(uni), F.normalize(bi)], dim=1), states, mask)

        return self._encode(sorted(range(len(rows)), key=lambda i: len(rows[i])), _CHUNK, words, read)

    def tokens(self, caption: str) -> list[str]:
        """The words and punctuation marks of a caption that are read, followed by ``<eos>`` if it is used."""
        return [self.known.name(number) for number in self.known.numbers(caption, self.max_words, self.use_eos)]

    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption that the encoder reads as ``UNK``, without punctuation marks."""
        return [token for token in tokens_of(caption) if is_word(token) and token not in self.known]

    def assets(self) -> dict[str, str]:
        """The words and the dimensions of the network."""
        word_dim, uni_dim, bi_dim = _dims(self.network.state_dict())
        options = {"use_eos": self.use_eos, "word_dim": word_dim, "uni_dim": uni_dim, "bi_dim": bi_dim}
        return {"words.txt": "\n".join(self.known.words), "options.json": json.dumps(options)}

    def _identity(self) -> Iterator[bytes | memoryview]:
        yield f"{_VERSION} {self.max_words} {self.assets()}".encode()
        yield from weights_of(self.network)


def _dims(state: dict[str, Tensor]) -> tuple[int, int, int]:
    """Dimensions of a word, of uni-skip and of each direction of bi-skip."""
    uni, bi = (state[f"{network}.weight_hh_l0"] for network in ("uni", "bi"))
    return state["uni_words.weight"].shape[1], uni.shape[1], bi.shape[1]
