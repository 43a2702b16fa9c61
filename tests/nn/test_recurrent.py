"""Recurrent layers compute in float32 on a CPU, where bfloat16 kernels of them may not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.models.skipthought.networks import Decoders
from t2i_zoo.models.stream.networks import Writer
from t2i_zoo.nn.recurrent import run_recurrent
from t2i_zoo.text.char_cnn_rnn_network import CharCNNRNNNetwork, numbers_of
from t2i_zoo.text.rnn import RNNNetwork
from t2i_zoo.text.skip_thought import SkipThoughtNetwork

NUMBERS, LENGTHS = torch.tensor([[1, 2, 3], [2, 1, 0]]), torch.tensor([3, 2])
RECURRENT = ("FixedGRU", "FixedRNN", "GRU", "LSTM")


def two_tables() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 4), torch.randn(2, 3, 4)


CALLS: dict[str, Callable[[], Any]] = {
    "lstm encoder": lambda: (RNNNetwork(5, 4, 6, "lstm"), lambda net: net(NUMBERS, LENGTHS)),
    "gru encoder": lambda: (RNNNetwork(5, 4, 6, "gru"), lambda net: net(NUMBERS, LENGTHS)),
    "skip-thought": lambda: (SkipThoughtNetwork(5, 4, 6, 3), lambda net: net(NUMBERS, LENGTHS)),
    "decoders": lambda: (
        Decoders(5, 4, 6), lambda net: net(torch.randn(2, 6), two_tables(), (LENGTHS, LENGTHS), 5),
    ),
    "char-CNN-RNN": lambda: (CharCNNRNNNetwork("rnn", 4, 5, 6, 7), lambda net: net(numbers_of(["red", "a blue"]))),
    "char-CNN-GRU": lambda: (CharCNNRNNNetwork("gru", 4, 5, 6, 7), lambda net: net(numbers_of(["red", "a blue"]))),
    "caption loss": lambda: (Writer(5, 4, 6), lambda net: net(torch.randn(2, 4).bfloat16(), NUMBERS, LENGTHS)),
    "captions": lambda: (Writer(5, 4, 6), lambda net: net.write(torch.randn(2, 4).bfloat16(), 3, beam=2)),
}  # fmt: skip


@pytest.mark.parametrize("build", CALLS.values(), ids=CALLS)
def test_autocast_on_a_cpu_leaves_recurrent_layers_in_float32(build: Any) -> None:
    network, call = build()
    seen: list[tuple[bool, torch.dtype]] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.append((torch.is_autocast_enabled("cpu"), inputs[0].data.dtype))

    layers = [layer for layer in network.modules() if type(layer).__name__ in RECURRENT]
    for layer in layers:
        layer.register_forward_pre_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        call(network)
    assert len(seen) >= len(layers) > 0
    assert set(seen) == {(False, torch.float32)}


def test_a_network_in_bfloat16_keeps_its_precision() -> None:
    layer = nn.Linear(2, 3).bfloat16()  # stands for a recurrent layer, which not every CPU has in bfloat16
    assert run_recurrent(layer, torch.randn(1, 2)).dtype == torch.bfloat16
