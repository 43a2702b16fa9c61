"""Feature maps at four strides: which modules give them, and networks that have none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import build_vision

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "modules", "channels"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"], (64, 128, 256, 512)),
        ("mobilenet_v2", [f"features.{i}" for i in (3, 6, 13, 18)], (24, 32, 96, 1280)),
        ("shufflenet_v2_x0_5", ["maxpool", "stage2", "stage3", "conv5"], (24, 48, 96, 1024)),
        ("vgg11", [f"features.{i}" for i in (9, 14, 19, 20)], (256, 512, 512, 512)),  # not its pooling to 7 x 7
    ],
)
def test_a_tap_is_the_last_block_at_its_stride(name: str, modules: list[str], channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = build_vision(f"torchvision:{name}", weights="random", input_size=0)
    assert network.tap_channels == channels
    images = IMAGES.clone().requires_grad_()
    taps = network.taps(images)
    assert [tuple(tap.shape[1:]) for tap in taps] == [(c, s, s) for c, s in zip(channels, (16, 8, 4, 2), strict=True)]
    outputs: list[Tensor] = []
    for module in modules:
        network.net.get_submodule(module).register_forward_hook(lambda m, i, output: outputs.append(output))
    network(images)
    assert all(torch.equal(tap, output) for tap, output in zip(taps, outputs, strict=True))
    assert sum(len(module._forward_hooks) for module in network.modules()) == 4 + 1  # ours, and that of the regions
    sum(tap.square().mean() for tap in taps).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_taps_are_of_resized_images() -> None:
    network = build_vision("torchvision:shufflenet_v2_x0_5", weights="random", input_size=128)
    assert [tap.shape[-1] for tap in network.taps(IMAGES)] == [32, 16, 8, 4]


class Pooled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_networks_without_taps_say_so(tmp_path: Path) -> None:
    torch.jit.trace(Pooled(), IMAGES).save(str(tmp_path / "net.pt"))
    for name in (f"file:{tmp_path / 'net.pt'}", "torchvision:vit_b_32", "torchvision:swin_t"):
        network = build_vision(name, **({} if name.startswith("file:") else {"weights": "random"}))  # type: ignore[arg-type]
        assert network.tap_channels == ()
        with pytest.raises(T2IError, match="has no feature maps at the strides 4, 8, 16 and 32: name efficientnet_l"):
            network.taps(IMAGES)
