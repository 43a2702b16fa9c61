"""Skip-thought vectors (Kiros et al. 2015, arXiv 1506.06726), the text encoder of TAC-GAN.

A GRU reads a sentence, and its last state is the sentence's vector, trained to predict the sentences before and after
it. *combine-skip* joins two such models, each part scaled to length 1: uni-skip (2400 numbers) and bi-skip, whose two
GRUs (1200 each) read forwards and backwards.

Authors' code: ryankiros/skip-thoughts (Theano). Its GRU is

    r = sigmoid(x W_r + h U_r + b_r)        u = sigmoid(x W_u + h U_u + b_u)
    n = tanh(x Wx + bx + (h Ux) * r)        h' = u * h + (1 - u) * n

which is ``torch.nn.GRU`` with z = u, its gates in the order r, z, n, and ``bias_hh`` zero: ``weight_ih`` is the
transposed [W, Wx], ``weight_hh`` the transposed [U, Ux], ``bias_ih`` is [b, bx] (W, U and b hold r before u). The reset
gate stands behind the recurrent product in both; the paper's equation 3 has it before.

Deviations: words are in lower case, where the authors look them up as they are written; tokens follow simple rules in
place of NLTK; of unknown marks nothing is seen, where the authors see ``UNK``; one caption is one sequence, of at most
``max_words`` tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from t2i_zoo.errors import T2IError
from t2i_zoo.nn.recurrent import run_recurrent
from t2i_zoo.text import skip_thought_files as files
from t2i_zoo.text.features import TextEncoder, TextFeatures, check_not_blank
from t2i_zoo.text.skip_thought_words import PADDING, Vocabulary, is_word, padded, tokens_of

_CHUNK = 256  # captions in one forward pass
_VERSION = "t2i-skip-thought-1"  # part of the fingerprint: a new number where the features of the same weights change


class SkipThoughtNetwork(nn.Module):
    """Both encoders, each with its word table: word numbers to sentence vectors and states.

    Args:
        words: rows V of a word table.
        word_dim: numbers E of a word (paper: 620).
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
        """Encode sentences; what lies behind their ends has no influence.

        Args:
            numbers: (B, T) int64, on the network's device.
            lengths: (B,) int64 from 1 to T, on the CPU.

        Returns:
            Vectors of uni-skip (B, U) and bi-skip (B, 2 H), the last states, not normalised; and the states behind each
            word (B, T, U + 2 H), zero behind the ends.
        """
        states, last = [], []
        for table, network in ((self.uni_words, self.uni), (self.bi_words, self.bi)):
            packed = pack_padded_sequence(table(numbers), lengths, batch_first=True, enforce_sorted=False)
            output, final = run_recurrent(network, packed)
            states.append(pad_packed_sequence(output, batch_first=True, total_length=numbers.shape[1])[0])
            last.append(final.transpose(0, 1).flatten(1))  # each direction ends at its own end of the sentence
        return last[0], last[1], torch.cat(states, dim=2)


class SkipThoughtEncoder(TextEncoder):
    """Frozen combine-skip vectors, of the authors' published model or of one that was trained here.

    Args:
        path: folder with the authors' files (``dictionary.txt``, ``utable.npy``, ``btable.npy``, ``uni_skip.npz``,
            ``bi_skip.npz`` and the ``.pkl`` of both), or a run of ``SkipThought``.
        max_vocabulary: the most words that are kept, since they travel in each checkpoint.
        max_words: the most tokens of one caption.
        vocabulary: a text file, or a folder of .txt files, whose words are kept, the most frequent first. The authors'
            dictionary needs it: it has 930,911 words in no useful order.
        expansion: a second word table, whose further words are mapped into this one's space; see ``expand``.
        use_eos: end each sentence with ``<eos>``, as in training. By default only models trained here do, since TAC-GAN
            and the authors' code do without; the authors advise it for sentences that lack a full stop.
        assets: files of ``assets()``; where given, no file is opened and a state dict brings the weights.

    Raises:
        T2IError: where a file cannot be read, or an argument is out of its range.
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
            word_dim, uni_dim, bi_dim = _widths(found.state)
        else:
            words = assets["words.txt"].split("\n") if assets["words.txt"] else []
            options: dict[str, Any] = json.loads(assets["options.json"])
            end, word_dim, uni_dim, bi_dim = (options[k] for k in ("use_eos", "word_dim", "uni_dim", "bi_dim"))
        self.known, self.use_eos = Vocabulary(words), end
        with torch.device("meta"):  # the weights come from elsewhere: draw none and leave the seed alone
            network = SkipThoughtNetwork(len(self.known), word_dim, uni_dim, bi_dim)
        self.network = network.to_empty(device="cpu").requires_grad_(False)
        if assets is None:
            self.network.load_state_dict(found.state)
        self.dim = self.word_dim = uni_dim + 2 * bi_dim
        self._fingerprint: str | None = None
        self.register_load_state_dict_post_hook(_forget_fingerprint)  # type: ignore[no-untyped-call]
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions in float32, also under autocast, without gradients.

        Args:
            captions: B texts, none of them blank.
            words: also give a state for each token: of uni-skip, and of bi-skip forwards and backwards.

        Returns:
            sentence (B, dim), uni-skip and bi-skip each of length 1; words (B, T, dim), not normalised, and mask (B, T)
            with T the longest caption of this call.

        Raises:
            T2IError: where a caption is blank.
        """
        check_not_blank(captions)
        rows = [self.known.numbers(caption, self.max_words, self.use_eos) for caption in captions]
        device = self.network.uni_words.weight.device
        longest = max(map(len, rows), default=0)
        sentence = torch.zeros(len(rows), self.dim, device=device)
        states = torch.zeros(len(rows), longest if words else 0, self.dim, device=device)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # captions of like length share a pass
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for start in range(0, len(order), _CHUNK):
                chosen = order[start : start + _CHUNK]
                numbers, lengths = padded([rows[i] for i in chosen])
                uni, bi, hidden = self.network(numbers.to(device), lengths)
                sentence[chosen] = torch.cat([F.normalize(uni), F.normalize(bi)], dim=1)
                if words:
                    states[chosen, : hidden.shape[1]] = hidden
        if not words:
            return TextFeatures(sentence)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64, device=device)
        return TextFeatures(sentence, states, torch.arange(longest, device=device) < lengths[:, None])

    def tokens(self, caption: str) -> list[str]:
        """Words and marks of one caption that are seen, the last one its end where sentences are ended."""
        numbers = self.known.numbers(caption, self.max_words, self.use_eos)
        return [self.known.name(number) for number in numbers]

    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption that are ``UNK`` to the encoder; marks do not count."""
        return [token for token in tokens_of(caption) if is_word(token) and token not in self.known]

    def assets(self) -> dict[str, str]:
        """The words, and the widths of the network."""
        word_dim, uni_dim, bi_dim = _widths(self.network.state_dict())
        options = {"use_eos": self.use_eos, "word_dim": word_dim, "uni_dim": uni_dim, "bi_dim": bi_dim}
        return {"words.txt": "\n".join(self.known.words), "options.json": json.dumps(options)}

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of words, weights and length, not path; taken once."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(f"{_VERSION} {self.max_words} {self.assets()}".encode(), digest_size=8)
            for name, tensor in sorted(self.network.state_dict().items()):
                digest.update(f"\0{name}\0".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def _widths(state: dict[str, Tensor]) -> tuple[int, int, int]:
    """Numbers of a word, units of uni-skip and of each direction of bi-skip."""
    uni, bi = (state[f"{network}.weight_hh_l0"] for network in ("uni", "bi"))
    return state["uni_words.weight"].shape[1], uni.shape[1], bi.shape[1]


def _forget_fingerprint(encoder: nn.Module, _: Any) -> None:
    encoder._fingerprint = None  # type: ignore[assignment]
