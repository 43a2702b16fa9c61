"""Where a network's feature maps of the strides 4, 8, 16 and 32 come out, for projected discriminators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


def find_taps(outputs: Sequence[tuple[str, torch.Size]], side: int) -> dict[str, int]:
    """Names of four submodules and their channels, by stride; empty where a network has no such maps.

    A tap is the last output at its stride among modules of one depth: the outermost depth that has all four. Deeper
    modules are parts of blocks, such as the expansion at the beginning of a block that halves the map.

    Args:
        outputs: names of submodules in the order in which they finish, with the shapes (B, C, H, W) of their outputs.
        side: of the images that were looked at, in pixels.
    """
    for depth in (1, 2):
        found: dict[int, tuple[str, int]] = {}
        for name, (_, channels, height, width) in outputs:
            if name.count(".") + 1 == depth and height == width:  # Swin's maps end with their channels
                found[2 ** round(math.log2(side / height))] = name, channels  # Inception's are not exact halves
        if all(stride in found for stride in STRIDES):
            return dict(found[stride] for stride in STRIDES)
    return {}


def watch(net: nn.Module, names: Sequence[str], run: Callable[[], object]) -> list[Tensor]:
    """Outputs of the named submodules of ``net`` while ``run`` calls it."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            seen[name] = output

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [seen[name] for name in names]
