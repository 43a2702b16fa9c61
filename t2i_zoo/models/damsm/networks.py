"""The picture encoder of DAMSM; the text encoder is ``t2i_zoo.text.rnn.RNNNetwork``."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import build_vision

INCEPTION, INCEPTION_REGIONS = "torchvision:inception_v3", "Mixed_6e"  #: the authors' network, and their map of regions


class ImageEncoder(nn.Module):
    """Vectors of a picture's regions and of the whole picture, in the space of words and sentences.

    Source: ``CNN_ENCODER`` of taoxugit/AttnGAN: Inception-v3, of which ``Mixed_6e`` gives 17 x 17 regions of 768
    numbers, and the pooled 2048 numbers the whole; ``emb_features`` and ``emb_cnn_code`` project them.

    Args:
        backbone: picture network by name, as ``build_vision`` takes it.
        weights: of a torchvision network: ``pretrained``, ``random``, or the path of a state dict; None is random too.
        layer: of a torchvision network, whose output is the map; None is ``Mixed_6e`` of Inception-v3, and of any other
            network its last map.
        dim: D, numbers of a region and of a picture.
        input_size: side that pictures are resized to; None is the network's own, 0 leaves them.
        align_corners: of the resize; PyTorch had it so up to 0.3, in which the published weights were trained.
        trained: train the backbone too; else it is frozen.
        batch_norm: of the backbone in training mode: ``train`` normalises by the batch and moves the running statistics
            (also of a frozen one, the authors' way), ``eval`` uses and keeps those of its own training.

    Raises:
        T2IError: for a network that has no regions, a file's network that is to be trained, and all that
            ``build_vision`` refuses.
    """

    def __init__(
        self,
        backbone: str = INCEPTION,
        weights: str | None = "pretrained",
        layer: str | None = None,
        dim: int = 256,
        input_size: int | None = None,
        align_corners: bool = True,
        trained: bool = False,
        batch_norm: Literal["train", "eval"] = "train",
    ) -> None:
        super().__init__()
        if not backbone.startswith(("torchvision:", "file:")):
            raise T2IError(f"found --model.backbone {backbone}, expected torchvision:NAME or file:PATH")
        if trained and backbone.startswith("file:"):
            raise T2IError(
                f"found --model.train_backbone with {backbone}, which stays frozen: leave out the former, or name a "
                "torchvision network"
            )
        self.batch_norm = batch_norm
        self.backbone = build_vision(
            backbone,
            weights=None if weights == "pretrained" else weights or "random",
            layer=INCEPTION_REGIONS if layer is None and backbone == INCEPTION else layer,
            input_size=input_size,
            align_corners=align_corners,
            antialias=False,
            logits=False,
        )
        if not self.backbone.region_dim:
            raise T2IError(
                f"found --model.backbone {backbone}, which gives no map of regions: name a convolutional one"
            )
        self.backbone.requires_grad_(trained)
        self.emb_features = nn.Conv2d(self.backbone.region_dim, dim, 1, bias=False)
        self.emb_cnn_code = nn.Linear(self.backbone.feature_dim, dim)
        nn.init.uniform_(self.emb_features.weight, -0.1, 0.1)
        nn.init.uniform_(self.emb_cnn_code.weight, -0.1, 0.1)
        self.train()  # the backbone comes in eval mode

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look at pictures (B, 3, S, S) in [-1, 1]; gradients reach them.

        Returns:
            Regions (B, D, H, W), codes (B, D), and the backbone's pooled features (B, F) that these come from.
        """
        seen = self.backbone(images)
        return self.emb_features(seen.regions), self.emb_cnn_code(seen.features), seen.features

    def train(self, mode: bool = True) -> ImageEncoder:
        """Leave the backbone in eval mode where its batch norm is to stay."""
        super().train(mode)
        if self.batch_norm == "eval":
            self.backbone.eval()
        return self
