"""Initial weights of the papers' networks; use with ``network.apply(dcgan_init)``."""

from __future__ import annotations

from torch import nn


def dcgan_init(module: nn.Module) -> None:
    """Initialise one layer as DCGAN does.

    Convolutions get N(0, 0.02) weights and zero biases, batch norms N(1, 0.02) weights and zero biases; linear layers
    keep PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which is Torch7's too.

    Source: Radford et al. 2015 (arXiv 1511.06434), and the ``weights_init`` of every reference in this family.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    norm_init(module)


def orthogonal_init(module: nn.Module) -> None:
    """Initialise one layer as StackGAN++ and the AttnGAN family do.

    Weights of convolutions and linear layers are orthogonal with gain 1 (Saxe et al. 2014, arXiv 1312.6120), batch
    norms are as in DCGAN; linear biases are 0, and those of convolutions keep PyTorch's default.
    """
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
        nn.init.orthogonal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    norm_init(module)


def norm_init(module: nn.Module) -> None:
    """Initialise a batch norm with N(1, 0.02) weights and zero biases; other layers are left alone."""
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
