"""Golden steps of DF-GAN: both networks and losses once more, in plain code from the papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain import Layers, Paper, Terms, beside, doubled, leaky
from steps import LABELS, LENGTHS, UNUSUAL, batch_of, compare, exact
from torch import Tensor

from t2i_zoo.models.dfgan import DFGAN

__all__ = ["exact"]
pytestmark = pytest.mark.usefixtures("exact")
COUNT = len(LENGTHS)
OPTIONS: dict[str, Any] = {**UNUSUAL, "text_encoder": {"kind": "hashing", "dim": 16}}


class DFGANPaper(Paper):
    """Tao et al. 2022, the paper's code or the preprint's."""

    @property
    def penalty_step(self) -> str:  # type: ignore[override]
        return "joint" if self.options["variant"] == "cvpr" else "separate"

    def draw(self, noise: Tensor, sentence: Tensor) -> Tensor:
        published = self.options["variant"] == "cvpr"
        x = self.g("project").linear(noise).reshape(len(noise), -1, 4, 4)
        condition = torch.cat([noise, sentence], 1) if published else sentence

        def affine(layers: Layers, y: Tensor) -> Tensor:
            for i in range(2):
                scale, shift = (
                    layers(f"affines.{i}.{name}.2").linear(
                        torch.relu(layers(f"affines.{i}.{name}.0").linear(condition))
                    )
                    for name in ("scale", "shift")
                )
                y = leaky(scale[:, :, None, None] * y + shift[:, :, None, None])
            return y

        for i in range(sum(self.g.has(f"blocks.{i}.first.weight") for i in range(9))):
            block = self.g(f"blocks.{i}")
            x = doubled(x) if published or i else x  # the authors double what enters a block
            y = block("first").conv(affine(block("fusions.0"), x), 1, 1)
            y = block("second").conv(affine(block("fusions.1"), y), 1, 1)
            short = block("shortcut").conv(x) if block.has("shortcut.weight") else x
            x = short + (y if published else block.get("gamma") * y)
        return torch.tanh(self.g("to_image").conv(leaky(x), 1, 1))

    def features(self, images: Tensor) -> Tensor:
        trunk = self.d("trunk")
        x = trunk("stem").conv(images, 1, 1)
        for i in range(sum(trunk.has(f"blocks.{i}.first.weight") for i in range(9))):
            block = trunk(f"blocks.{i}")
            y = leaky(block("second").conv(leaky(block("first").conv(x, 2, 1)), 1, 1))
            short = block("shortcut").conv(x) if block.has("shortcut.weight") else x
            pooled = sum(short[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)) / 4
            x = pooled + block.get("gamma") * y
        return x

    def logits(self, features: Tensor, sentence: Tensor) -> Tensor:
        joint = self.d("joint")
        return joint(2).conv(leaky(joint(0).conv(beside(features, sentence), 1, 1))).flatten()

    def fakes(self, batch: Any, rng: torch.Generator) -> Any:
        noise = torch.randn(COUNT, self.options["noise_dim"], generator=rng)
        return {"images": self.draw(noise, batch["text"].sentence)}

    def judge(self, batch: Any, fakes: Any) -> Terms:
        sentence, features = batch["text"].sentence, self.features(batch["images"][-1])
        if self.options["variant"] == "cvpr":
            pairs = [((i + 1) % COUNT, i) for i in range(COUNT)]
        else:
            pairs = [(i, i + 1) for i in range(COUNT - 1)]
        if self.options["exclude_same_class"]:
            pairs = [(i, j) for i, j in pairs if LABELS[i] != LABELS[j] or LABELS[i] < 0]
        images, captions = ([pair[side] for pair in pairs] for side in (0, 1))
        wrong, fake = (
            self.logits(features[images], sentence[captions]),
            self.logits(self.features(fakes["images"]), sentence),
        )
        real = self.logits(features, sentence)
        terms = {"real": torch.relu(1 - real).mean(), "wrong": torch.relu(1 + wrong).mean()}
        terms["fake"] = torch.relu(1 + fake).mean()
        return {**terms, "loss": terms["real"] + (terms["wrong"] + terms["fake"]) / 2}

    def penalty(self, batch: Any, fakes: Any) -> Terms:
        images = batch["images"][-1].clone().requires_grad_()
        sentence = batch["text"].sentence.clone().requires_grad_()
        logits = self.logits(self.features(images), sentence)
        by_image, by_text = torch.autograd.grad(logits.sum(), [images, sentence], create_graph=True)
        parts = [gradient.flatten(1).square().sum(1) for gradient in (by_image, by_text)]
        norm = (parts[0] + parts[1]).sqrt()
        penalty = self.options["penalty"] * (norm ** self.options["matching_power"]).mean()
        names = dict(zip(("image_norm", "sentence_norm"), (part.sqrt().mean().detach() for part in parts), strict=True))
        return {"loss": penalty, "matching": penalty, **names}

    def fool(self, batch: Any, fakes: Any, rng: torch.Generator) -> Terms:
        return {"loss": -self.logits(self.features(fakes["images"]), batch["text"].sentence).mean()}


@pytest.mark.parametrize(
    ("changed", "penalty"),
    [
        pytest.param({"variant": "cvpr", "exclude_same_class": True, "image_size": 64}, 2.0, id="cvpr"),
        pytest.param({"variant": "preprint", "matching_penalty": 1.5, "matching_power": 4.0}, 1.5, id="preprint"),
    ],
)
def test_dfgan(changed: dict[str, Any], penalty: float) -> None:
    widths = {"generator_width": 2, "discriminator_width": 2, "image_size": 32}
    model = DFGAN(**{**OPTIONS, **widths, **changed})
    batches = [batch_of(seed, (model.hparams["image_size"],), 16) for seed in (100, 200)]
    for batch in batches:
        batch["labels"] = torch.tensor(LABELS)
    compare(model, DFGANPaper, batches, penalty=penalty)
