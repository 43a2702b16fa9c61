"""The mode-seeking loss by value: pixels as in the paper, features with a projected discriminator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from t2i_zoo.batch import Fakes
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.text import TextFeatures


class Table(nn.Module):
    """A generator whose images are its noise: every pixel of channel c is z_c."""

    def forward(self, noise: torch.Tensor, sentence: torch.Tensor) -> torch.Tensor:
        return noise[:, :3, None, None].expand(-1, 3, 16, 16)


def seeking(tiny_options: dict[str, Any], **options: Any) -> dict[str, torch.Tensor]:
    model = GANCLS(generator_width=8, discriminator_width=4, mode_seeking=0.5, **tiny_options, **options)
    noise, other = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 2.0]]), torch.zeros(2, 4)
    other[:, 2] = 0.25
    model.generator, model.noise = Table(), lambda count, rng=None: other  # type: ignore[assignment, method-assign]
    text = TextFeatures(torch.zeros(2, 32))
    return model.mode_seeking(Fakes([Table()(noise, text.sentence)], text, {}, noise))


def test_pixels_by_hand(tiny_options: dict[str, Any]) -> None:
    terms = seeking(tiny_options)
    moved = (0.5 + 0.25 + 1 + 0.25) / 6  # of images: two images with three channels
    noise = (0.5 + 0.25 + 1 + 0.25 + 2) / 8
    assert terms["mode_seeking"].item() == pytest.approx(1 / (moved / noise + 1e-5))
    assert terms["loss"].item() == pytest.approx(0.5 / (moved / noise + 1e-5))


def test_features_of_a_projected_discriminator(tiny_options: dict[str, Any]) -> None:
    network = nn.Module()
    network.taps = lambda images: [images, images[:, :2]]  # type: ignore[assignment]
    projected = {"network": "efficientnet_lite0", "weights": "random", "width": 8, "channels": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GANCLS, "frozen", lambda self, name: network)
        terms = seeking(tiny_options, projected=projected)
    # unit vectors: the first tap has e1 and e2 against e3 (squared distance 2); the second e1 and e2 against none (1)
    moved, noise = (2 + 1) / 2, (0.5 + 0.25 + 1 + 0.25 + 2) / 8
    assert terms["mode_seeking"].item() == pytest.approx(1 / (moved / noise + 1e-5), rel=1e-5)
