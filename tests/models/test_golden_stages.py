"""Golden steps of both stages of StackGAN in plain code from the paper and its PyTorch code."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from plain import Layers, Paper, Terms, augmented, beside, divergence, doubled, judged, leaky, softplus
from steps import LABELS, LENGTHS, UNUSUAL, batch_of, compare, exact
from torch import Tensor

from t2i_zoo.models.stackgan import StackGAN

__all__ = ["exact"]
pytestmark = pytest.mark.usefixtures("exact")
COUNT = len(LENGTHS)
OPTIONS: dict[str, Any] = {
    **{**UNUSUAL, "text_encoder": {"kind": "hashing", "dim": 16}, "condition_dim": 5, "kl_weight": 1.7},
}


def trunk(layers: Layers, images: Tensor, size: int) -> Tensor:
    """The discriminators' encoder, whose layers are numbered through."""
    x, place = leaky(layers(0).conv(images, 2, 1)), 2
    while layers.has(f"{place}.weight"):
        halves = layers(place).get("weight").shape[-1] == 4
        x = leaky(layers(place + 1).norm(layers(place).conv(x, 2 if halves else 1, 1)))
        place += 3
    assert x.shape[-1] == 4, size
    return x


class StackGANPaper(Paper):
    """Zhang et al. 2017, the PyTorch code."""

    def first(self, layers: Layers, z: Tensor, sentence: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        condition, mu, logvar = augmented(layers("ca"), sentence, noise, self.options["ca_activation"])
        x = torch.relu(layers("fc.1").norm(layers("fc.0").linear(torch.cat([z, condition], 1))))
        return self.grown(layers, x.reshape(COUNT, -1, 4, 4)), mu, logvar

    def grown(self, layers: Layers, x: Tensor) -> Tensor:
        for i in range(sum(layers.has(f"ups.{i}.1.weight") for i in range(9))):
            x = torch.relu(layers(f"ups.{i}.2").norm(layers(f"ups.{i}.1").conv(doubled(x), 1, 1)))
        return torch.tanh(layers("image.0").conv(x, 1, 1))

    def fakes(self, batch: Any, rng: torch.Generator) -> Any:
        o, sentence = self.options, batch["text"].sentence
        dims = [o["noise_dim"]] + [o["condition_dim"]] * o["stage"]
        z, *noises = torch.randn(COUNT, sum(dims), generator=rng).split(dims, 1)
        if o["stage"] == 1:
            return dict(zip(("images", "mu", "logvar"), self.first(self.g, z, sentence, noises[0]), strict=True))
        g, small = self.g, self.first(self.g("stage1"), z, sentence, noises[0])[0].detach()
        condition, mu, logvar = augmented(g("ca"), sentence, noises[1], o["ca_activation"])
        x = torch.relu(g("encoder.0").conv(small, 1, 1))
        for place in (2, 5):
            x = torch.relu(g(f"encoder.{place + 1}").norm(g(f"encoder.{place}").conv(x, 2, 1)))
        x = torch.relu(g("joint.1").norm(g("joint.0").conv(beside(x, condition), 1, 1)))
        for i in range(o["residual_blocks"]):
            block = g(f"residual.{i}.layers")
            y = torch.relu(block(1).norm(block(0).conv(x, 1, 1)))
            x = torch.relu(x + block(4).norm(block(3).conv(y, 1, 1)))
        return {"images": self.grown(g, x), "mu": mu, "logvar": logvar}

    def match(self, features: Tensor, condition: Tensor) -> Tensor:
        joint = self.d("joint")
        return joint(3).conv(leaky(joint(1).norm(joint(0).conv(beside(features, condition), 1, 1)))).flatten()

    def alone(self, features: Tensor) -> Tensor:
        return self.d("alone.0").conv(features).flatten()

    def judge(self, batch: Any, fakes: Any) -> Terms:
        o, mu = self.options, fakes["mu"]
        real, fake = (trunk(self.d("encode"), x, o["image_size"]) for x in (batch["images"][-1], fakes["images"]))
        matched, keep = self.match(real, mu), None
        if o["mismatch"] == "shift":
            wrong = self.match(real[:-1], mu[1:])
            if o["exclude_same_class"]:
                keep = torch.tensor([a != b or a < 0 for a, b in pairwise(LABELS)])
        else:
            other = augmented(self.g("ca"), batch["wrong_text"].sentence, torch.zeros_like(mu), o["ca_activation"])[1]
            wrong = self.match(real, other.detach())
        alone = (self.alone(real), self.alone(fake)) if o["stage"] == 2 else None
        return judged(matched, wrong, self.match(fake, mu), alone, keep)

    def fool(self, batch: Any, fakes: Any, rng: torch.Generator) -> Terms:
        o, features = self.options, trunk(self.d("encode"), fakes["images"], self.options["image_size"])
        terms = {"adversarial": softplus(-self.match(features, fakes["mu"].detach())).mean()}
        if o["stage"] == 2:
            terms["alone"] = softplus(-self.alone(features)).mean()
        kl = divergence(fakes["mu"], fakes["logvar"])
        return {**terms, "kl": kl, "loss": sum(terms.values()) + o["kl_weight"] * kl}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"image_size": 32, "ca_activation": "relu", "exclude_same_class": True}, id="stage1"),
        pytest.param({"image_size": 16, "mismatch": "class", "ca_activation": "glu"}, id="stage1-class"),
        pytest.param({"stage": 2, "image_size": 64, "residual_blocks": 2, "ca_activation": "lrelu"}, id="stage2"),
    ],
)
def test_stackgan(changed: dict[str, Any]) -> None:
    widths = {"generator_width": 2, "discriminator_width": 2, "least_channels": 3}
    model = StackGAN(**{**OPTIONS, **widths, **changed}, stage1="untrained" if "stage" in changed else None)
    compare(model, StackGANPaper, [batch_of(seed, (model.hparams["image_size"],), 16) for seed in (100, 200)])
