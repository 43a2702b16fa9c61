"""The char-CNN-RNN text encoder of GAN-CLS and StackGAN, frozen (Reed et al. 2016, arXiv 1605.05395).

Source: reedscot/cvpr2016 and reedscot/icml2016. ``CharCNNRNN`` trains one. It reads characters and has no vocabulary:
all but 70 characters are invisible to it, capital letters included, and so is everything after the 201st. The authors'
own files hold networks as Torch7 objects, which cannot be read; tables of their tensors can.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_code
from t2i_zoo.legacy import load_t7
from t2i_zoo.paths import find_weights
from t2i_zoo.text.char_cnn_rnn_network import LENGTH, NUMBERS, STEPS, STRIDES, CharCNNRNNNetwork, numbers_of
from t2i_zoo.text.features import EncoderWithWeights, TextFeatures, check_not_blank, weights_of, without_weights

PREFIX = "text_network."  #: the name of this network in CharCNNRNN
_CHUNK = 256  # captions in one forward pass
_VERSION = "t2i-char-cnn-rnn-1"  # part of the fingerprint, to be raised when the features of the same weights change
_NAMES = [f"{layer}.{part}" for layer in ("conv1", "conv2", "conv3", "recurrent.i2h", "recurrent.h2h", "linear")
          for part in ("weight", "bias")]  # fmt: skip


class CharCNNRNNEncoder(EncoderWithWeights):
    """A frozen char-CNN-RNN, from a run or from a file of weights.

    Args:
        path: a run of ``CharCNNRNN``, its .ckpt, or weights with the names of ``CharCNNRNNNetwork``: .safetensors, a
            state dict as .pth, or a Lua table of tensors as .t7. The variant and all dimensions follow from the shapes.
        lowercase: convert captions to lower case. The default is as in the run's training, and for a file of weights
            false, as in the authors' code, to which capital letters are invisible.
        assets: files of ``assets()``; with them no file is opened, and a state dict brings the weights.

    Raises:
        T2IError: the file cannot be read or holds no such weights.
    """

    def __init__(self, path: str, lowercase: bool | None = None, assets: dict[str, str] | None = None) -> None:
        super().__init__()
        if assets is None:
            found = read(path)
            shape, trained_so = found.shape, found.lowercase
        else:
            options: dict[str, Any] = json.loads(assets["options.json"])
            shape, trained_so = options["shape"], options["lowercase"]
        self.lowercase = trained_so if lowercase is None else lowercase
        self.network = without_weights(lambda: CharCNNRNNNetwork(**shape))
        if assets is None:
            self.network.load_state_dict(found.state)
        self._shape = shape
        self.dim, self.word_dim, self.max_words = shape["dim"], shape["cnn_dim"], STEPS[shape["variant"]]
        self.eval()

    def encode(self, captions: Sequence[str], *, words: bool = False) -> TextFeatures:
        """Encode captions in float32, also under autocast, without gradients.

        Args:
            captions: B texts, none of them blank.
            words: also return the states of the recurrent layer; see ``tokens``.

        Returns:
            sentence (B, dim); words (B, S, word_dim) and mask (B, S), where S is the number of steps of the longest
            caption of this call; the mask is true at the steps that start before the caption's end. The sentence
            embedding is the mean over all steps.

        Raises:
            T2IError: a caption is blank.
        """
        check_not_blank(captions)
        device = self.network.linear.weight.device

        def read(chosen: Sequence[int]) -> TextFeatures:
            texts = [captions[i] for i in chosen]
            states, sentence = self.network(numbers_of(texts, self.lowercase).to(device))
            counts = torch.tensor([len(self.tokens(text)) for text in texts])
            mask = (torch.arange(int(counts.max())) < counts[:, None]).to(device)
            return TextFeatures(sentence, states[:, : mask.shape[1]], mask)

        return self._encode(range(len(captions)), _CHUNK, words, read)

    def tokens(self, caption: str) -> list[str]:
        """The pieces of a caption where each step starts: 18 characters long in the variant ``rnn``, 9 in ``gru``."""
        stride = STRIDES[self._shape["variant"]]
        text = caption[: min(LENGTH, stride * self.max_words)]
        return [text[start : start + stride] for start in range(0, len(text), stride)]

    def unknown_words(self, caption: str) -> list[str]:
        """Words with a character that is invisible to the encoder."""
        text = caption.lower() if self.lowercase else caption
        return [word for word in text.split() if not all(character in NUMBERS for character in word)]

    def assets(self) -> dict[str, str]:
        """The shape of the network, and whether captions are converted to lower case."""
        return {"options.json": json.dumps({"shape": self._shape, "lowercase": self.lowercase})}

    def _identity(self) -> Iterator[bytes | memoryview]:
        yield f"{_VERSION} {self.assets()}".encode()
        yield from weights_of(self.network)


class Found(NamedTuple):
    """Everything that makes an encoder.

    Attributes:
        shape: arguments of ``CharCNNRNNNetwork``.
        state: the network's state dict, float32.
        lowercase: whether it was trained on captions in lower case.
    """

    shape: dict[str, Any]
    state: dict[str, Tensor]
    lowercase: bool


def read(path: str | Path) -> Found:
    """The network of a run, a checkpoint or a file of weights.

    Raises:
        T2IError: the file is missing, damaged or holds something else.
    """
    place = find_weights(path)
    try:
        tensors, lowercase = _tensors(place)
    except T2IError:
        raise
    except Exception as error:  # torch.load and safetensors raise many kinds
        refuse_code(place, error)
        raise T2IError(
            f"cannot read {place} as weights of char_cnn_rnn ({type(error).__name__}): set text_encoder's path to a "
            "run of CharCNNRNN, a .safetensors, a state dict as .pth, or a table of tensors as .t7"
        ) from error
    own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    state = own or tensors
    if missing := [name for name in _NAMES if name not in state]:
        raise T2IError(
            f"{place} has no {missing[0]}, expected {len(_NAMES)} tensors from {_NAMES[0]} to {_NAMES[-1]}: set "
            "text_encoder's path to a run of CharCNNRNN, or name the weights as docs/text.md does"
        )
    state = {name: state[name].float() for name in _NAMES}
    shape = _shape_of(state)
    with torch.device("meta"):
        wanted = CharCNNRNNNetwork(**shape).state_dict()
    for name in _NAMES:
        if state[name].shape != wanted[name].shape:
            raise T2IError(
                f"{place} has {name} of shape {tuple(state[name].shape)}, expected {tuple(wanted[name].shape)} beside "
                "its other weights: use the weights of one char_cnn_rnn, with the shapes in docs/text.md"
            )
    return Found(shape, state, lowercase)


def _tensors(place: Path) -> tuple[dict[str, Tensor], bool]:
    """All tensors of a file by name, and whether they were trained on captions in lower case."""
    if place.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(place), False
    if place.suffix == ".t7":
        return {name: _from_lua(name, torch.tensor(array)) for name, array in load_t7(place).items()}, False
    mapped = zipfile.is_zipfile(place)  # files of torch before 1.6 are no zip archives and cannot be mapped
    found: dict[str, Any] = torch.load(place, map_location="cpu", weights_only=True, mmap=mapped)
    tensors = {name: value for name, value in found.get("state_dict", found).items() if isinstance(value, Tensor)}
    return tensors, bool(found.get("hyper_parameters", {}).get("lowercase", False))


def _from_lua(name: str, tensor: Tensor) -> Tensor:
    """Torch7's ``TemporalConvolution`` stores (outputs, width * inputs), one position of the window after another."""
    if name.startswith("conv") and tensor.dim() == 2:
        return tensor.view(len(tensor), 4, -1).mT.contiguous()
    return tensor


def _shape_of(state: dict[str, Tensor]) -> dict[str, Any]:
    """Dimensions according to the biases; the shapes of all weights are compared with them afterwards."""
    width = state["conv3.bias"].numel()
    return {
        "variant": "rnn" if state["recurrent.h2h.bias"].numel() == width else "gru",
        "cnn_dim": width,
        "dim": state["linear.bias"].numel(),
        "first_channels": state["conv1.bias"].numel(),
        "second_channels": state["conv2.bias"].numel(),
    }
