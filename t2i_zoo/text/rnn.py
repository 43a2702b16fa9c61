"""The recurrent text encoder of AttnGAN, MirrorGAN and their descendants: one vector per word, one per sentence.

Source: ``RNN_ENCODER`` of taoxugit/AttnGAN. ``DAMSM`` trains it together with an image encoder; a GAN uses it frozen.
Deviations: captions need not be sorted by length; of captions that are too long a GAN reads the first words, where the
authors draw a random subset of them each time (so does ``DAMSM`` in training), since each caption is encoded once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_code
from t2i_zoo.nn.recurrent import run_recurrent
from t2i_zoo.paths import find_weights
from t2i_zoo.text.features import EncoderWithWeights, TextFeatures, check_not_blank, weights_of, without_weights
from t2i_zoo.text.vocabulary import END_WORD, Words, padded

Kind = Literal["lstm", "gru"]

PREFIX = "text_network."  #: what DAMSM calls this network
_CHUNK = 256  # captions in one forward pass
_VERSION = "t2i-rnn-1"  # part of the fingerprint: a new number where the features of the same weights change


class RNNNetwork(nn.Module):
    """Word table, dropout and one recurrent layer in both directions; names of weights are those of the reference.

    Args:
        words: rows V of the word table.
        word_dim: dimension E of a word in the table.
        dim: D, the dimension of a sentence and of a word in it, both directions together.
        kind: of the recurrent layer.
        dropout: on the table's rows, in training; the reference's further dropout argument does nothing in one layer.
    """

    def __init__(self, words: int, word_dim: int = 300, dim: int = 256, kind: Kind = "lstm", dropout: float = 0.5):
        super().__init__()
        self.encoder = nn.Embedding(words, word_dim)
        self.drop = nn.Dropout(dropout)
        layer = nn.LSTM if kind == "lstm" else nn.GRU
        self.rnn = layer(word_dim, dim // 2, batch_first=True, bidirectional=True)
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)

    def forward(self, numbers: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode sentences; padding has no influence.

        Args:
            numbers: (B, T) int64, on the network's device.
            lengths: (B,) int64 from 1 to T, on the CPU.

        Returns:
            Words (B, T, D), the states of both directions, zero behind the ends; and sentences (B, D), the last state
            of each direction.
        """
        vectors = self.drop(self.encoder(numbers))
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        states, last = run_recurrent(self.rnn, packed)
        last = last[0] if isinstance(last, tuple) else last  # of an LSTM the output, not the cell
        words = pad_packed_sequence(states, batch_first=True, total_length=numbers.shape[1])[0]
        return words, last.transpose(0, 1).flatten(1)

    @torch.no_grad()
    def resize_words(self, rows: int) -> None:
        """Give the word table another number of rows, with new initial values; nothing happens where it has them."""
        former = self.encoder.weight
        if rows != len(former):
            self.encoder = nn.Embedding(rows, former.shape[1], device=former.device, dtype=former.dtype)
            nn.init.uniform_(self.encoder.weight, -0.1, 0.1)


class RNNEncoder(EncoderWithWeights):
    """The frozen text encoder of a ``DAMSM`` that was trained here or converted from published weights.

    Args:
        path: a run of ``DAMSM``, its .ckpt, or a .safetensors file of ``t2i-zoo convert --from attngan_damsm``.
        max_words: the first words of a caption that are read; AttnGAN has 18 on birds and 12 on COCO in training.
        assets: files of ``assets()``; where given, no file is opened and a state dict brings the weights.

    Raises:
        T2IError: where the file cannot be read or holds no such encoder, or ``max_words`` is below 1.
    """

    def __init__(self, path: str, max_words: int = 18, assets: dict[str, str] | None = None) -> None:
        super().__init__()
        if max_words < 1:
            raise T2IError(f"found text_encoder's max_words {max_words}, expected at least 1")
        self.max_words = max_words
        if assets is None:
            found = read(path)
            words, shape = found.words, found.shape
        else:
            words = assets["words.txt"].split("\n") if assets["words.txt"] else []
            shape = json.loads(assets["shape.json"])
        self._shape = dict(shape)
        self.known = Words(words, shape.pop("ascii_words", False))
        self.network = without_weights(lambda: RNNNetwork(len(self.known), **shape))
        if assets is None:
            self.network.load_state_dict(found.state)
        self.dim = self.word_dim = shape["dim"]
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions in float32, also under autocast, without gradients.

        Args:
            captions: B texts, none of them blank.
            words: also give a vector for each known word.

        Returns:
            sentence (B, dim); words (B, T, dim) and mask (B, T) with T the longest caption of this call.

        Raises:
            T2IError: where a caption is blank.
        """
        check_not_blank(captions)
        rows = [self.known.numbers(caption)[: self.max_words] for caption in captions]
        device = self.network.encoder.weight.device

        def read(chosen: Sequence[int]) -> TextFeatures:
            numbers, lengths = padded([rows[i] for i in chosen])
            states, sentence = self.network(numbers.to(device), lengths)
            return TextFeatures(sentence, states, (torch.arange(numbers.shape[1]) < lengths[:, None]).to(device))

        return self._encode(sorted(range(len(rows)), key=lambda i: len(rows[i])), _CHUNK, words, read)

    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption that the encoder leaves out."""
        return self.known.unknown(caption)

    def tokens(self, caption: str) -> list[str]:
        """The words that ``encode`` gives vectors of, in order."""
        return self.known.known(caption)[: self.max_words] or [END_WORD]

    def assets(self) -> dict[str, str]:
        """The words, and the shape of the network, with ``ascii_words`` if they are the authors'."""
        return {"words.txt": "\n".join(self.known.words), "shape.json": json.dumps(self._shape)}

    def _identity(self) -> Iterator[bytes | memoryview]:
        yield f"{_VERSION} {self.max_words} {self.assets()}".encode()
        yield from weights_of(self.network)


class Found(NamedTuple):
    """What an encoder is made of.

    Attributes:
        words: known words in the order of the table's rows, from row 1 on.
        shape: further arguments of ``RNNNetwork``; and ``ascii_words`` where the model has that option on.
        state: the network's state dict.
    """

    words: list[str]
    shape: dict[str, Any]
    state: dict[str, Tensor]


def read(path: str | Path) -> Found:
    """The text encoder in a run, a checkpoint or a converted file of ``DAMSM``.

    Raises:
        T2IError: names the file, what is wrong with it, and the remedy.
    """
    place = find_weights(path)
    try:
        words, hparams, tensors = _safetensors(place) if place.suffix == ".safetensors" else _checkpoint(place)
        state = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
        shape = _shape_of(state) | ({"ascii_words": True} if hparams.get("ascii_words") else {})
    except Exception as error:  # torch.load raises many kinds
        refuse_code(place, error)
        raise T2IError(
            f"{place} holds no text encoder of DAMSM ({type(error).__name__}): set text_encoder's path to a run of "
            "DAMSM, or to a .safetensors file of t2i-zoo convert --from attngan_damsm"
        ) from error
    rows = len(state["encoder.weight"])
    if rows != 1 + len(words):
        raise T2IError(
            f"{place} holds {len(words)} words and a word table of {rows} rows, expected {rows - 1} words: convert the "
            "weights together with the captions.pickle that they were trained with"
        )
    return Found(words, shape, state)


def _checkpoint(path: Path) -> tuple[list[str], dict[str, Any], dict[str, Tensor]]:
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    hparams = checkpoint.get("hyper_parameters", {})
    return list(checkpoint["t2i_zoo"]["words"]), hparams, checkpoint["state_dict"]


def _safetensors(path: Path) -> tuple[list[str], dict[str, Any], dict[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})["t2i_zoo"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return list(about["words"]), about.get("hparams", {}), tensors


def _shape_of(state: dict[str, Tensor]) -> dict[str, Any]:
    gates, units = state["rnn.weight_hh_l0"].shape
    kind: Kind = "lstm" if gates == 4 * units else "gru"
    return {"word_dim": state["encoder.weight"].shape[1], "dim": 2 * units, "kind": kind}
