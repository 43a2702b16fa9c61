"""The fingerprints of released versions: another one would encode every cached caption again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from t2i_zoo.text import build_text_encoder
from t2i_zoo.text.char_cnn_rnn_network import CharCNNRNNNetwork
from t2i_zoo.text.rnn import PREFIX, RNNNetwork
from t2i_zoo.text.skip_thought import SkipThoughtNetwork


def filled(network: nn.Module) -> dict[str, torch.Tensor]:
    """Weights that are the same on every machine."""
    return {name: torch.arange(v.numel()).view(v.shape) / 64 for name, v in network.state_dict().items()}


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("hashing", "f942240a6a31625c"),
        ("rnn", "4d2b9ded99c519f0"),
        ("char_cnn_rnn", "8b4377e4a7a66fa1"),
        ("precomputed", "681d3bea4764625a"),
        ("skip_thought", "72de6c1410b80450"),
    ],
)
def test_fingerprints_stay(kind: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / {"precomputed": "f.npz", "skip_thought": "f.ckpt"}.get(kind, "f.safetensors")
    if kind == "rnn":
        state = {PREFIX + name: value for name, value in filled(RNNNetwork(3, 4, 6)).items()}
        save_file(state, path, {"t2i_zoo": json.dumps({"words": ["a", "red"]})})
    elif kind == "char_cnn_rnn":
        widths = {"cnn_dim": 5, "dim": 8, "first_channels": 6, "second_channels": 7}
        save_file(filled(CharCNNRNNNetwork("gru", **widths)), path)
    elif kind == "precomputed":
        np.savez(path, sentence=np.arange(6.0).reshape(2, 3), captions=np.array(["a red flower", "blue"]))
    elif kind == "skip_thought":
        state = {f"encoder.{name}": value for name, value in filled(SkipThoughtNetwork(5, 4, 3, 2)).items()}
        torch.save({"t2i_zoo": {"words": ["a", "red"]}, "state_dict": state}, path)
    spec = {"kind": kind} if kind == "hashing" else {"kind": kind, "path": str(path)}
    encoder = build_text_encoder(spec)
    assert encoder.fingerprint() == wanted
    if kind == "hashing":  # of words that version 0.1 split otherwise
        encoder.former_words = True
        assert encoder.fingerprint() == "fb50d348d0a0e836"
