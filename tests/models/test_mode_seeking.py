"""The mode-seeking loss by value: pixels as in the paper, features with a projected discriminator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from t2i_zoo.batch import Fakes
from t2i_zoo.models.aids import _shapes
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.text import TextFeatures


class Stripes(nn.Module):
    """Images that are z_0 times upright stripes, plus z_1 times level ones, plus z_2."""

    def forward(self, noise: torch.Tensor, sentence: torch.Tensor) -> torch.Tensor:
        upright = torch.tensor([1.0, -1.0]).repeat(8).expand(16, 16)
        patterns = torch.stack([upright, upright.T, torch.ones(16, 16)])
        return torch.einsum("bk,kxy->bxy", noise[:, :3], patterns)[:, None].expand(-1, 3, -1, -1)


NOISE, OTHERS = (
    torch.tensor([[0.5, 0.0, 0.25, 0.0], [0.0, 1.0, 0.0, 2.0]]),
    torch.tensor([[2.0, 0, 0, 0], [1, 0, 0, 0]]),
)
BETWEEN = (1.5 + 0.25 + 1 + 1 + 2) / 8  # mean absolute difference of the noise


def seeking(tiny_options: dict[str, Any], **options: Any) -> dict[str, torch.Tensor]:
    model = GANCLS(generator_width=8, discriminator_width=4, mode_seeking=0.5, **tiny_options, **options)
    model.generator, model.noise = Stripes(), lambda count, rng=None: OTHERS  # type: ignore[assignment, method-assign]
    text = TextFeatures(torch.zeros(2, 32))
    return model.mode_seeking(Fakes([Stripes()(NOISE, text.sentence)], text, {}, NOISE))


def test_pixels_by_hand(tiny_options: dict[str, Any]) -> None:
    terms = seeking(tiny_options)
    # 0.25 -+ 1.5 on the first image; on the second 0 or 2 where stripes are alike or differ
    moved = ((1.75 + 1.25) / 2 + 1) / 2
    assert terms["mode_seeking"].item() == pytest.approx(1 / (moved / BETWEEN + 1e-5))
    assert terms["loss"].item() == pytest.approx(0.5 / (moved / BETWEEN + 1e-5))


def test_shapes_in_features_of_a_projected_discriminator(tiny_options: dict[str, Any]) -> None:
    network = nn.Module()
    network.taps = lambda images: [images, images[:, :2]]  # type: ignore[assignment]
    projected = {"network": "efficientnet_lite0", "weights": "random", "width": 8, "channels": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GANCLS, "frozen", lambda self, name: network)
        terms = seeking(tiny_options, projected=projected)
    # brightness and contrast of the first image do not count; on half of the second, opposite unit vectors
    moved = (0 + 4 / 2) / 2
    assert terms["mode_seeking"].item() == pytest.approx(1 / (moved / BETWEEN + 1e-5), rel=1e-4)


def test_an_even_image_has_no_shapes_and_a_gradient() -> None:
    """A generator that saturates everywhere must not turn its weights to NaN."""
    images = torch.stack([torch.ones(3, 8, 8), torch.linspace(-1, 1, 192).view(3, 8, 8)]).requires_grad_()
    shapes = _shapes(images)
    assert not shapes[0].any()
    assert shapes[1, 0].std(correction=0).item() == pytest.approx(0.5, abs=1e-3)
    (gradient,) = torch.autograd.grad(shapes.square().sum() + shapes[0, 0, 0, 0], images)
    assert gradient.isfinite().all()
