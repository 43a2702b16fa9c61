"""The image side of char-CNN-RNN; the text side is ``t2i_zoo.text.char_cnn_rnn_network``."""

from __future__ import annotations

from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import VisionNetwork
from t2i_zoo.vision.on_backbone import OnBackbone


class ImageFeatures(OnBackbone):
    """Pooled features of images, as they are or projected into the space of captions.

    The authors use the 1024 features of a fixed GoogLeNet as they are; ``torchvision:googlenet`` has as many.

    Args:
        backbone: the image network.
        dim: D, the dimension of a caption vector.
        projected: put a trained linear layer on the features.
        trained: train the backbone too; otherwise it is frozen and stays in eval mode.

    Raises:
        T2IError: features and captions differ in dimension, and there is no projection.
    """

    def __init__(self, backbone: VisionNetwork, dim: int, projected: bool, trained: bool) -> None:
        super().__init__(backbone, trained=trained, still=not trained)
        if backbone.feature_dim != dim and not projected:
            raise T2IError(
                f"{backbone.name} gives {backbone.feature_dim} features and captions have {dim}, expected equal "
                f"numbers: set --model.dim to {backbone.feature_dim}, or --model.image_projection true"
            )
        self.projection = nn.Linear(backbone.feature_dim, dim) if projected else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (B, 3, S, S) in [-1, 1].

        Returns:
            Their vectors (B, D), and the backbone's features (B, F) that the vectors come from.
        """
        features = self.see(images).features
        return self.projection(features), features
