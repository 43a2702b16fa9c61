"""What image encoders, caption writers and projections put their layers on: a backbone, frozen or trained."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from t2i_zoo.vision.network import Seen, VisionNetwork


class OnBackbone(nn.Module):
    """Base of networks with layers on a backbone.

    Args:
        backbone: the image network.
        trained: train the backbone too; otherwise it is frozen.
        still: keep the backbone in eval mode: its batch norm then uses its running statistics and leaves them alone.
    """

    def __init__(self, backbone: VisionNetwork, *, trained: bool, still: bool) -> None:
        super().__init__()
        self.trained, self.still = trained, still
        self.backbone = backbone.requires_grad_(trained)
        self.train()  # the backbone comes in eval mode

    def see(self, images: Tensor) -> Seen:
        """What the backbone sees in images (B, 3, S, S) in [-1, 1].

        Through a frozen backbone, gradients flow only if the images ask for them.
        """
        idle = not (self.trained or images.requires_grad)
        with torch.no_grad() if idle else nullcontext():
            seen: Seen = self.backbone(images)
        return seen

    def train(self, mode: bool = True) -> OnBackbone:
        """Set the mode, but leave a still backbone in eval mode."""
        super().train(mode)
        if self.still:
            self.backbone.eval()
        return self


def initial_weights(weights: str | None, initialized: bool) -> str | None:
    """What ``build_vision`` is told by a model's option ``backbone_weights``, in which None is random.

    Args:
        weights: the option.
        initialized: whether the model starts from weights of its own, so that pretrained ones need not be fetched.
    """
    if weights == "pretrained":
        return "random" if initialized else None
    return weights or "random"
