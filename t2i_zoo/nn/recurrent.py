"""Recurrent layers under mixed precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


def run_recurrent(layer: nn.Module, inputs: Tensor | PackedSequence, state: Any = None) -> Any:
    """Run a recurrent layer; on a CPU in the precision of its weights, even under autocast.

    PyTorch's bfloat16 kernels of LSTM and GRU exist only for CPUs with such instructions. On any other, ``bf16-mixed``
    would end with "could not create a primitive descriptor". On a GPU, autocast decides.

    Args:
        layer: ``nn.LSTM``, ``nn.GRU``, or another layer called in the same way.
        inputs: what the layer reads.
        state: the initial state; the layer's own by default.

    Returns:
        What the layer returns.
    """
    given = () if state is None else (state,)
    if inputs.data.device.type != "cpu":
        return layer(inputs, *given)
    with torch.autocast("cpu", enabled=False):
        return layer(inputs.to(next(layer.parameters()).dtype), *given)
