"""A linear layer over the classes of the data, on any image network; and the augmentation of its training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.vision import Seen, VisionNetwork


class ClassNetwork(VisionNetwork):
    """Features and regions of a backbone, and scores of the classes of the data.

    Images are resized as the backbone does it. The linear layer runs in float32 under any autocast, since scores in
    half precision often tie.

    Args:
        backbone: image network; its own logits, if any, are not used.
        classes: K, rows of the linear layer.
        trained: train the backbone too; otherwise it is frozen.
        still: keep the backbone in eval mode: its batch norm then uses its running statistics and leaves them alone.
    """

    head: nn.Linear

    def __init__(self, backbone: VisionNetwork, classes: int, trained: bool, still: bool) -> None:
        super().__init__(backbone.name, backbone.input_size, backbone.align_corners, backbone.antialias)
        self.still = still
        self.backbone = backbone.requires_grad_(trained)
        self.feature_dim, self.region_dim = backbone.feature_dim, backbone.region_dim
        self.reset(classes)
        self.train()  # the backbone comes in eval mode

    def reset(self, classes: int) -> None:
        """Begin with a new linear layer for this number of classes, on the device of the old one."""
        where = self.head.weight.device if hasattr(self, "head") else None
        self.head = nn.Linear(self.feature_dim, classes, device=where)
        self.num_logits = classes

    def look(self, images: Tensor) -> Seen:
        """What the backbone sees, and logits (B, K) float32."""
        seen = self.backbone.look(images)
        with torch.autocast(images.device.type, enabled=False):
            logits = self.head(seen.features.float())
        return Seen(seen.features, seen.regions, logits)

    def train(self, mode: bool = True) -> ClassNetwork:
        """Set the mode, but leave a still backbone in eval mode."""
        super().train(mode)
        if self.still:
            self.backbone.eval()
        return self


def augment(images: Tensor, colour: float, scale: float, rng: torch.Generator | None = None) -> Tensor:
    """Change colours and crop squares, independently for each image.

    Args:
        images: (B, 3, S, S) in [-1, 1].
        colour: brightness, contrast and saturation are each multiplied by 1 - colour to 1 + colour; 0 changes none.
        scale: a square of ``scale`` to 1 times the side is enlarged to the whole image; 1 does not crop.
        rng: on the device of the images.

    Returns:
        Images of the same shape and range.
    """

    def draw(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(images), 1, 1, 1, generator=rng, device=images.device)
        return low + (high - low) * drawn

    if scale < 1:
        side = draw(scale, 1.0)
        theta = torch.zeros(len(images), 2, 3, device=images.device)
        for i in range(2):
            theta[:, i, i] = side.view(-1)
            theta[:, i, 2] = ((1 - side) * draw(-1.0, 1.0)).view(-1)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
    if colour > 0:
        pixels = (images * 0.5 + 0.5) * draw(1 - colour, 1 + colour)
        mean = pixels.mean((1, 2, 3), keepdim=True)
        pixels = mean + (pixels - mean) * draw(1 - colour, 1 + colour)
        grey = pixels.mean(1, keepdim=True)
        pixels = grey + (pixels - grey) * draw(1 - colour, 1 + colour)
        images = pixels.clamp(0, 1) * 2 - 1
    return images
