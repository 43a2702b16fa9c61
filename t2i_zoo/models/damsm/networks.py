"""The image encoder of DAMSM; the text encoder is ``t2i_zoo.text.rnn.RNNNetwork``."""

from __future__ import annotations

from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import VisionNetwork
from t2i_zoo.vision.on_backbone import OnBackbone

INCEPTION, INCEPTION_REGIONS = "torchvision:inception_v3", "Mixed_6e"  #: the authors' network, and their map of regions


class ImageEncoder(OnBackbone):
    """Vectors of the regions of an image and of the whole image, in the space of words and sentences.

    Source: ``CNN_ENCODER`` of taoxugit/AttnGAN: Inception-v3, whose ``Mixed_6e`` gives 17 x 17 regions of 768
    dimensions; its 2048 pooled features stand for the image. ``emb_features`` and ``emb_cnn_code`` project them.

    Args:
        backbone: the image network.
        dim: D, the dimension of regions and images.
        trained: train the backbone too; otherwise it is frozen.
        still: keep the backbone in eval mode. The authors do not: its batch norm normalises by the batch and moves
            its running statistics even though it is frozen.

    Raises:
        T2IError: the backbone gives no map of regions.
    """

    def __init__(self, backbone: VisionNetwork, dim: int, *, trained: bool, still: bool) -> None:
        super().__init__(backbone, trained=trained, still=still)
        if not backbone.region_dim:
            raise T2IError(
                f"found --model.backbone {backbone.name}, which gives no map of regions: name a convolutional one"
            )
        self.emb_features = nn.Conv2d(backbone.region_dim, dim, 1, bias=False)
        self.emb_cnn_code = nn.Linear(backbone.feature_dim, dim)
        nn.init.uniform_(self.emb_features.weight, -0.1, 0.1)
        nn.init.uniform_(self.emb_cnn_code.weight, -0.1, 0.1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images (B, 3, S, S) in [-1, 1]; gradients reach them.

        Returns:
            Regions (B, D, H, W), codes of the images (B, D), and the backbone's pooled features (B, F) behind the
            codes.
        """
        seen = self.see(images)
        return self.emb_features(seen.regions), self.emb_cnn_code(seen.features), seen.features
