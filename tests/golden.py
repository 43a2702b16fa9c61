"""How weights and inputs of the golden values are made, and how values are compared with them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.models.official import Official
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.text.rnn import RNNNetwork
from t2i_zoo.text.vocabulary import padded

LENGTHS = [9, 7, 5, 3]  #: words of the captions of all golden values of AttnGAN and its descendants


def recipe(key: str, shape: tuple[int, ...]) -> Tensor:
    """The value of one tensor of the reference, from its key alone."""
    draw = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("running_var"):
        draw = 1 + 0.5 * np.abs(draw)
    elif len(shape) >= 2:
        draw /= math.sqrt(math.prod(shape[1:]))  # in place: the largest has 300 MB
    else:
        draw = 1 + 0.1 * draw if key.endswith(".weight") else 0.1 * draw
    return torch.from_numpy(np.asarray(draw, np.float32))


def inputs(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def numbers() -> tuple[Tensor, Tensor]:
    """Those captions as numbers of words, longest first, and their lengths."""
    drawn = np.random.RandomState(7).randint(1, 5450, (4, 18))
    return padded([row[:length].tolist() for row, length in zip(drawn, LENGTHS, strict=True)])


def read_text() -> tuple[Tensor, Tensor, Tensor]:
    """Sentence (4, 256), words (4, 9, 256) and mask (4, 9) of them, by the reference's text encoder."""
    network = RNNNetwork(5450).eval()
    for key, tensor in network.state_dict().items():
        tensor.copy_(recipe(key, tuple(tensor.shape)))
    table, lengths = numbers()
    with torch.no_grad():
        words, sentence = network(table, lengths)
    return sentence, words, table > 0


def official_names(official: Official, model: ZooModule, network: str) -> dict[str, str]:
    """Our keys below one network, by the reference's."""
    own = {key: value for key, value in model.state_dict().items() if key.startswith(f"{network}.")}
    return official.names(network, model.hparams, own)


def fill(official: Official, model: ZooModule, network: str) -> nn.Module:
    """Give one network of a model without memory its memory, and the recipe's values."""
    found = model.get_submodule(network).to_empty(device="cpu")
    state = found.state_dict()
    for theirs, ours in official_names(official, model, network).items():  # one by one: the largest takes 300 MB
        tensor = state[ours.removeprefix(f"{network}.")]
        tensor.copy_(recipe(theirs, tensor.shape) if tensor.ndim else torch.tensor(0))
    return found


def checksum(values: Tensor) -> float:
    """A sum that depends on the place of each value, so that a permutation changes it."""
    flat = values.detach().double().flatten()
    return float((flat * torch.arange(1, len(flat) + 1, dtype=torch.float64).sin()).sum() / len(flat) ** 0.5)


def agrees(
    values: Tensor,
    mean: float,
    std: float,
    first: Sequence[float] | None = None,
    last: float | None = None,
    placed: float | None = None,
) -> bool:
    """Whether mean, unbiased deviation and, where they are known, the first and last values agree to 1e-5.

    ``placed`` is the ``checksum``, which has to agree too. It was computed by our networks once they agreed with the
    authors' classes in every value, whereas the other numbers were measured by running those.
    """
    found = values.detach().double().flatten()
    numbers, wanted = [found.mean(), found.std()], [mean, std]
    if first is not None and last is not None:
        numbers, wanted = [*numbers, *found[: len(first)], found[-1]], [*wanted, *first, last]
    agree = [float(number) for number in numbers] == pytest.approx(wanted, rel=0, abs=1e-5)
    return agree and (placed is None or checksum(found) == pytest.approx(placed, rel=0, abs=1e-5))
