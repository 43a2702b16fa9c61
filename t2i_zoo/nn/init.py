"""Weight initialisation shared by the DCGAN family."""

from __future__ import annotations

from torch import nn


def dcgan_init(module: nn.Module) -> None:
    """Initialise one layer as DCGAN does; use with ``network.apply(dcgan_init)``.

    Convolutions get N(0, 0.02) weights and zero biases, batch norms N(1, 0.02) weights and zero biases; linear layers
    keep PyTorch's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), which is Torch7's too.

    Source: Radford et al. 2015 (arXiv 1511.06434), and the ``weights_init`` of every reference in this family.
    """
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
