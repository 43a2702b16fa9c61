"""Initial weights: their mean, deviation and form, as DCGAN and StackGAN++ have them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from t2i_zoo.nn import dcgan_init, norm_init, orthogonal_init


def made(layer: nn.Module, init: Callable[[nn.Module], None]) -> nn.Module:
    torch.manual_seed(0)
    init(layer)
    return layer


@pytest.mark.parametrize("layer", [nn.Conv2d(40, 50, 4), nn.ConvTranspose2d(40, 50, 4)], ids=["conv", "transposed"])
def test_dcgan(layer: nn.Conv2d) -> None:
    nn.init.ones_(layer.bias)  # type: ignore[arg-type]
    made(layer, dcgan_init)
    assert float(layer.weight.detach().mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_dcgan_leaves_linear_layers_alone() -> None:
    layer = nn.Linear(5, 7)
    former = [parameter.clone() for parameter in layer.parameters()]
    made(layer, dcgan_init)
    assert all(torch.equal(a, b) for a, b in zip(former, layer.parameters(), strict=True))


@pytest.mark.parametrize("init", [dcgan_init, orthogonal_init, norm_init])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_norms(init: Callable[[nn.Module], None], norm: type[nn.BatchNorm2d]) -> None:
    layer = norm(20_000)
    nn.init.ones_(layer.bias)
    made(layer, init)
    assert float(layer.weight.detach().mean()) == pytest.approx(1.0, abs=1e-3)
    assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    assert not layer.bias.any()


@pytest.mark.parametrize("layer", [nn.Linear(9, 6), nn.Conv2d(3, 6, 3), nn.Conv1d(3, 6, 3)])
def test_orthogonal(layer: nn.Linear) -> None:
    nn.init.ones_(layer.bias)
    made(layer, orthogonal_init)
    rows = layer.weight.detach().flatten(1)
    assert torch.allclose(rows @ rows.T, torch.eye(6), atol=1e-5)
    assert bool(layer.bias.any()) == (not isinstance(layer, nn.Linear))
