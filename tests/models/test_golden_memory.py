"""Golden steps of DM-GAN in plain code from the paper: the memory, and spectral norm as its authors iterate it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain import Layers, beside, leaky, sigmoid
from steps import batch_of, compare, exact
from test_golden_pyramids import EXTRA, OPTIONS, WORDS, AttnGANPaper, looked
from torch import Tensor

from t2i_zoo.models.dmgan import DMGAN

__all__ = ["exact"]
pytestmark = pytest.mark.usefixtures("exact")


class DMGANPaper(AttnGANPaper):
    """Zhu et al. 2019."""

    def join(self, stage: Layers, x: Tensor, condition: Tensor, text: Any) -> Tensor:
        m = stage("memory")

        def layer(name: str, y: Tensor) -> Tensor:
            """A linear layer over columns, with ReLU."""
            return torch.relu(m.get(f"{name}.weight")[:, :, 0] @ y + m.get(f"{name}.bias")[:, None])

        keys, values = [], []
        for picture, words in zip(x.detach(), text.words, strict=True):
            pooled = picture.mean((1, 2))[:, None]
            write = sigmoid(m.get("gate_word.weight") @ words.T + m.get("gate_image.weight") @ pooled)  # (1, T)
            memory = layer("write_word", words.T) * write + layer("write_image", pooled) * (1 - write)
            keys.append(layer("key", memory))
            values.append(layer("value", memory))
        found = self.read(x, keys, values)
        respond = sigmoid(m("respond").conv(torch.cat([x, found], 1)))
        mixed = x + respond * (found - x)
        return torch.cat([mixed, mixed], 1)

    def spectral(self, layers: Layers, x: Tensor, stride: int) -> Tensor:
        weight, place = layers.get("parametrizations.weight.original"), f"{layers.prefix}parametrizations.weight.0."
        matrix = weight.detach().flatten(1)
        right = matrix.T @ self.state[f"{place}u"]
        right = right / right.norm()
        left = matrix @ right
        left = left / left.norm()
        self.state[f"{place}u"], self.state[f"{place}v"] = left, right
        largest = left @ weight.flatten(1) @ right
        return leaky(F.conv2d(x, weight / largest, layers.get("bias"), stride, 1))

    def features(self, i: int, images: Tensor) -> Tensor:
        layers, x = self.d(i)("trunk"), images
        for block in range(9):
            for place in range(0, 9, 2):
                key = f"{block}.{place}.parametrizations.weight.original"
                if layers.has(key):
                    x = self.spectral(layers(f"{block}.{place}"), x, 2 if layers.get(key).shape[-1] == 4 else 1)
        return x

    def match(self, i: int, features: Tensor, condition: Tensor, first: bool) -> Tensor:
        heads = self.d(i)("heads")
        return heads("conditional").conv(self.spectral(heads("joint.0"), beside(features, condition), 1)).flatten()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"branches": 3, "image_size": 32, "residual_blocks": 1, "exclude_same_class": False}, id="three"),
        pytest.param({"damsm_weight": 2.5, "legacy_mask": True}, id="damsm-legacy"),
    ],
)
def test_dmgan(changed: dict[str, Any], tmp_path: Path) -> None:
    model = DMGAN(**{**OPTIONS, **WORDS, **EXTRA, **changed})
    about: dict[str, Any] = {"sizes": model.needs.sizes}
    if changed.get("damsm_weight"):
        companion = looked(tmp_path)
        model.adopt("damsm", lambda: companion)
        about["damsm_state"] = companion.state_dict()
    compare(model, DMGANPaper, [batch_of(seed, model.needs.sizes, 16, 16) for seed in (100, 200)], **about)
