"""The picture side of char-CNN-RNN; the text side is ``t2i_zoo.text.char_cnn_rnn_network``."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import build_vision


class ImageFeatures(nn.Module):
    """Pooled features of pictures, as they are or projected into the space of captions.

    The authors have 1024 features of a GoogLeNet, which stay as they are; ``torchvision:googlenet`` has as many.

    Args:
        backbone: picture network by name, as ``build_vision`` takes it.
        weights: of a torchvision network: ``pretrained``, ``random``, or the path of a state dict; None is random too.
        dim: D, numbers of a caption.
        projected: put a linear layer, which is trained, behind the features.
        input_size: side that pictures are resized to; None is the network's own, 0 leaves them.
        trained: train the backbone too; else it is frozen and stays in eval mode.

    Raises:
        T2IError: for features of another width than captions have, a file's network that is to be trained, and all that
            ``build_vision`` refuses.
    """

    def __init__(
        self,
        backbone: str = "torchvision:googlenet",
        weights: str | None = "pretrained",
        dim: int = 1024,
        projected: bool = False,
        input_size: int | None = None,
        trained: bool = False,
    ) -> None:
        super().__init__()
        if not backbone.startswith(("torchvision:", "file:")):
            raise T2IError(f"found --model.backbone {backbone}, expected torchvision:NAME or file:PATH")
        if trained and backbone.startswith("file:"):
            raise T2IError(
                f"found --model.train_backbone with {backbone}, which stays frozen: leave out the former, or name a "
                "torchvision network"
            )
        self.trained = trained
        self.backbone = build_vision(
            backbone,
            weights=None if weights == "pretrained" else weights or "random",
            input_size=input_size,
            logits=False,
        )
        features = self.backbone.feature_dim
        if features != dim and not projected:
            raise T2IError(
                f"{backbone} has {features} features and captions have {dim} numbers, expected as many: set "
                f"--model.dim to {features}, or --model.image_projection true"
            )
        self.backbone.requires_grad_(trained)
        self.projection = nn.Linear(features, dim) if projected else nn.Identity()
        self.train()  # the backbone comes in eval mode

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Look at pictures (B, 3, S, S) in [-1, 1].

        Returns:
            Their vectors (B, D), and the backbone's features (B, F) that these come from.
        """
        idle = not (self.trained or images.requires_grad)
        with torch.no_grad() if idle else nullcontext():
            features = self.backbone(images).features
        return self.projection(features), features

    def train(self, mode: bool = True) -> ImageFeatures:
        """Leave a frozen backbone in eval mode."""
        super().train(mode)
        if not self.trained:
            self.backbone.eval()
        return self
