"""Image networks by name: what they see, where gradients go, and what they refuse."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import VisionNetwork, build_vision, check_backbone

IMAGES = torch.rand(2, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def resnet() -> VisionNetwork:
    torch.manual_seed(0)
    return build_vision("torchvision:resnet18", weights="random", input_size=64)


def test_a_torchvision_network_gives_features_regions_and_logits(resnet: VisionNetwork) -> None:
    seen = resnet(IMAGES)
    assert seen.regions is not None
    assert seen.logits is not None
    assert (seen.features.shape, seen.regions.shape, seen.logits.shape) == ((2, 512), (2, 512, 2, 2), (2, 1000))
    assert (resnet.feature_dim, resnet.region_dim, resnet.num_logits) == (512, 512, 1000)
    assert torch.allclose(seen.features, seen.regions.mean((2, 3)), atol=1e-5)  # ResNet pools its last map
    assert torch.equal(seen.logits, resnet.net.fc(seen.features))


def test_images_are_resized_and_normalised_as_torchvision_does(resnet: VisionNetwork) -> None:
    resized = F.interpolate(IMAGES, (64, 64), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = resnet.net((resized / 2 + 0.5 - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    assert torch.allclose(resnet(IMAGES).logits, expected, atol=1e-5)


def test_gradients_reach_images_and_weights(resnet: VisionNetwork) -> None:
    images = IMAGES.clone().requires_grad_()
    resnet(images).features.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert resnet.net.conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_looks_with_its_own_weights(resnet: VisionNetwork, way: str) -> None:
    before = resnet(IMAGES).features
    copied = copy.deepcopy(resnet) if way == "deepcopy" else pickle.loads(pickle.dumps(resnet))
    assert torch.equal(copied(IMAGES).features, before)
    with torch.no_grad():
        copied.net.conv1.weight.zero_()
    assert not torch.equal(copied(IMAGES).features, before)
    assert torch.equal(resnet(IMAGES).features, before)


def test_inception_gives_the_map_that_damsm_reads_and_nothing_superfluous() -> None:
    options = {"weights": "random", "layer": "Mixed_6e", "logits": False, "input_size": 107}
    network = build_vision("torchvision:inception_v3", **options)  # type: ignore[arg-type]
    seen = network(IMAGES)
    assert seen.logits is None
    assert seen.regions is not None
    assert seen.regions.shape == (2, 768, 5, 5)
    # the published image encoder without its heads
    assert sum(p.numel() for p in network.parameters()) == 22_506_720 - 721_152
    sum_of_all = seen.features.sum() + seen.regions.sum()
    sum_of_all.backward()
    assert all(p.grad is not None for p in network.parameters())


def test_features_do_not_depend_on_dropout() -> None:
    network = build_vision("torchvision:mobilenet_v2", weights="random", input_size=32).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert torch.equal(network(IMAGES).features, network(IMAGES).features)


def test_weights_from_a_file_and_their_fingerprint(resnet: VisionNetwork, tmp_path: Path) -> None:
    torch.save(resnet.net.state_dict(), tmp_path / "net.pth")
    again = build_vision("torchvision:resnet18", weights=str(tmp_path / "net.pth"), input_size=64)
    assert torch.equal(again(IMAGES).features, resnet(IMAGES).features)
    assert again.fingerprint == resnet.fingerprint
    other = build_vision("torchvision:resnet18", weights="random", input_size=64)
    assert other.fingerprint != resnet.fingerprint
    assert build_vision("torchvision:resnet18", weights=str(tmp_path / "net.pth")).fingerprint != resnet.fingerprint


def graph_file(path: Path, **changes: str) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    tensors = {
        **{"0.weight": torch.randn(8, 3, 3, 3, generator=rng), "0.bias": torch.randn(8, generator=rng)},
        **{"1.weight": torch.randn(8, 1, 3, 3, generator=rng), "1.bias": torch.randn(8, generator=rng)},
        **{"2.weight": torch.randn(5, 8, 1, 1, generator=rng), "2.bias": torch.randn(5, generator=rng)},
    }
    graph = [
        {"op": "conv", "layer": 0, "stride": 2, "relu6": True, "src": 0, "dst": 1},
        {"op": "conv", "layer": 1, "groups": 8, "src": 1, "dst": 2},
        {"op": "add", "src": 1, "src2": 2, "dst": 3},
        {"op": "pool", "src": 3, "dst": 4},
        {"op": "conv", "layer": 2, "src": 4, "dst": 5},
    ]
    save_file(tensors, path, {"input": "0", "graph": json.dumps(graph), **changes})
    return tensors


def test_a_safetensors_file_brings_its_graph(tmp_path: Path) -> None:
    tensors = graph_file(tmp_path / "net.safetensors")
    network = build_vision(f"file:{tmp_path / 'net.safetensors'}", input_size=32)
    assert (network.feature_dim, network.region_dim, network.num_logits) == (8, 8, 5)
    x = F.interpolate(IMAGES, (32, 32), mode="bilinear", antialias=True)
    # stride 2 on 32 px: SAME pads one pixel, after
    first = F.conv2d(F.pad(x, (0, 1, 0, 1)), tensors["0.weight"], tensors["0.bias"], stride=2).clamp(0, 6)
    grid = first + F.conv2d(first, tensors["1.weight"], tensors["1.bias"], padding=1, groups=8)
    seen = network(IMAGES)
    assert torch.allclose(seen.regions, grid, atol=1e-5)
    assert torch.allclose(seen.features, grid.mean((2, 3)), atol=1e-5)
    logits = seen.features @ tensors["2.weight"].flatten(1).T + tensors["2.bias"]
    assert torch.allclose(seen.logits, logits, atol=1e-5)


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = images.mean((2, 3))
        return features, features * 2


class Map(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


def test_a_torchscript_file(tmp_path: Path) -> None:
    torch.jit.trace(Pair(), IMAGES).save(str(tmp_path / "net.pt"))
    network = build_vision(f"file:{tmp_path / 'net.pt'}")
    seen = network(IMAGES)
    assert torch.allclose(seen.features, IMAGES.mean((2, 3)))
    assert torch.equal(seen.logits, seen.features * 2)
    assert (network.feature_dim, network.region_dim, network.num_logits) == (3, 0, 3)


def test_the_fingerprint_knows_the_code_of_a_file(tmp_path: Path) -> None:
    prints = []
    for number, net in enumerate((Pair(), nn.Sequential(Pair()))):  # no weights in either
        torch.jit.trace(net, IMAGES).save(str(tmp_path / f"{number}.pt"))
        (tmp_path / "net.pt").write_bytes((tmp_path / f"{number}.pt").read_bytes())
        prints.append(build_vision(f"file:{tmp_path / 'net.pt'}").fingerprint)
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {}, "unknown image network 'resnet18': name one of torchvision:NAME"),
        ("torchvision:resnt18", {}, "no classifier named 'resnt18': did you mean resnet18"),
        ("torchvision:squeezenet1_1", {"weights": "random"}, "has no linear layer"),
        ("torchvision:resnet18", {"weights": "random", "layer": "layer5"}, "no layer 'layer5': name one such as layer"),
        ("torchvision:resnet18", {"weights": "random", "layer": "fc"}, "'fc' of torchvision:resnet18 gives no map"),
        ("torchvision:resnet18", {"weights": "nowhere.pth"}, "found no weights file nowhere.pth"),
        ("torchvision:resnet18", {"align_corners": True}, "both true, expected at most one"),
        ("file:nowhere.pt", {}, "found no network file nowhere.pt"),
        ("file:nowhere.pt", {"layer": "x"}, "no named layers: leave layer out"),
    ],
)
def test_refusals(name: str, options: dict, message: str) -> None:
    with pytest.raises(T2IError, match=message):
        build_vision(name, **options)


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(T2IError, match="as TorchScript: save it with"):
        build_vision(f"file:{tmp_path / 'text.pt'}")
    (tmp_path / "text.safetensors").write_text("no network")
    with pytest.raises(T2IError, match="as safetensors"):
        build_vision(f"file:{tmp_path / 'text.safetensors'}")
    graph_file(tmp_path / "plain.safetensors", graph="[]")
    with pytest.raises(T2IError, match="hold no graph of conv, add and pool"):
        build_vision(f"file:{tmp_path / 'plain.safetensors'}")
    graph_file(tmp_path / "odd.safetensors", graph='[{"op": "pool", "src": 7, "dst": 1}]')
    with pytest.raises(T2IError, match=r"odd.safetensors fails on images of 224 px"):
        build_vision(f"file:{tmp_path / 'odd.safetensors'}")
    torch.jit.trace(Map(), IMAGES).save(str(tmp_path / "map.pt"))
    with pytest.raises(T2IError, match=r"features \(B, D\): return them first"):
        build_vision(f"file:{tmp_path / 'map.pt'}")


def test_weights_of_another_network_name_both_sides(resnet: VisionNetwork, tmp_path: Path) -> None:
    state = resnet.net.state_dict()
    state["fc.weight"] = torch.zeros(7, 512)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(T2IError, match=r"fc.weight is \(7, 512\) in the file and \(1000, 512\) in the network"):
        build_vision("torchvision:resnet18", weights=str(tmp_path / "net.pth"))
    torch.save({"model": state}, tmp_path / "whole.pth")
    with pytest.raises(T2IError, match="holds no state dict"):
        build_vision("torchvision:resnet18", weights=str(tmp_path / "whole.pth"))


def test_offline_the_message_says_where_the_weights_belong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(T2IError, match=rf"put the file https://.*resnet18.* at {tmp_path}/hub/checkpoints/resnet18"):
        build_vision("torchvision:resnet18")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("file:net.pt", None, True), "train_backbone with file:net.pt, which stays frozen"),
        (("torchvision:resnet18", "random", False), "random with a frozen backbone, whose features would mean nothing"),
        (("torchvision:resnet18", "random", False, True), None),
        (("torchvision:resnet18", "random", True), None),
        (("torchvision:resnet18", "pretrained", False), None),
        (("file:net.pt", "random", False), None),
    ],
)
def test_options_of_a_backbone_that_do_not_go_together(options: tuple, message: str | None) -> None:
    with pytest.raises(T2IError, match=message) if message else contextlib.nullcontext():
        check_backbone(*options)
