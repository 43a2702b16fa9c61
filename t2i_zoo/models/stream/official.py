"""The weight files of MirrorGAN's caption writer: ``cnn_encoder.ckpt`` and ``rnn_decoder.ckpt``.

The numbers of its word table are those of the ``captions.pickle`` that it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.models.official import Official, State, count_keys

#: places of torchvision's ResNet in the authors' ``Sequential``
_RESNET = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
#: blocks of three of its four groups, and whether they have three convolutions each
_SIZES = {
    ((2, 2, 2), False): "resnet18",
    ((3, 4, 6), False): "resnet34",
    ((3, 4, 6), True): "resnet50",
    ((3, 4, 23), True): "resnet101",
    ((3, 8, 36), True): "resnet152",
}


def identify(state: State) -> str | None:
    """``"reader"``, ``"writer"``, or None."""
    if {"resnet.0.weight", "linear.weight", "bn.weight"} <= set(state):
        return "reader"
    return "writer" if {"embed.weight", "lstm.weight_ih_l0", "linear.weight"} <= set(state) else None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Backbone and widths from the shapes; images are not normalised by ImageNet's mean, as in MirrorGAN's training."""
    found: dict[str, Any] = {"backbone_weights": None, "imagenet_norm": False}
    if state := networks.get("reader", {}):
        first, second, third = (count_keys(state, f"resnet.{i}.{{}}.conv1.weight", first=0) for i in (4, 5, 6))
        name = _SIZES.get(((first, second, third), "resnet.4.0.conv3.weight" in state))
        if name is None:
            raise ValueError(f"a ResNet of {first}, {second}, {third} blocks")
        found |= {"backbone": f"torchvision:{name}", "embed_dim": state["linear.weight"].shape[0]}
    if state := networks.get("writer", {}):
        found |= {"embed_dim": state["embed.weight"].shape[1], "hidden_dim": state["lstm.weight_hh_l0"].shape[1]}
        found |= {"vocabulary_size": state["embed.weight"].shape[0], "ascii_words": True}
    return found


def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours."""
    if path == "writer":
        return [(name, name) for name in ("embed.", "lstm.", "linear.")]
    pairs = [(f"resnet.{theirs}.", f"backbone.net.{ours}.") for theirs, ours in _RESNET.items()]
    return [*pairs, ("linear.", "linear."), ("bn.", "norm.")]


def files(hparams: Mapping[str, Any]) -> dict[str, str]:
    """As MirrorGAN's config names them."""
    return {"reader": "cnn_encoder.ckpt", "writer": "rnn_decoder.ckpt"}


LOOSE = ("vocabulary_size", "backbone_weights", "imagenet_norm", "ascii_words")
OFFICIAL = {"mirrorgan_stream": Official("stream", identify, options, prefixes, files, loose=LOOSE, words=True)}
