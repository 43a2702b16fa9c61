"""Golden steps of GAN-CLS and TAC-GAN: both networks and losses once more, in plain code from the papers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain import Layers, Paper, Terms, beside, cross_entropy, doubled, leaky, softplus
from steps import LABELS, LENGTHS, UNUSUAL, batch_of, compare, exact
from torch import Tensor

from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.models.tacgan import TACGAN

__all__ = ["exact"]
pytestmark = pytest.mark.usefixtures("exact")
COUNT = len(LENGTHS)
OPTIONS: dict[str, Any] = {**UNUSUAL, "text_encoder": {"kind": "hashing", "dim": 16}}


def projected(layers: Layers, sentence: Tensor) -> Tensor:
    x = layers(0).linear(sentence)
    return leaky(layers(1).norm(x) if layers.has("1.weight") else x)


def bottleneck(layers: Layers, x: Tensor, slope: float) -> Tensor:
    layers = layers("layers")
    y = leaky(layers(1).norm(layers(0).conv(x)), slope)
    y = leaky(layers(4).norm(layers(3).conv(y, 1, 1)), slope)
    return x + layers(7).norm(layers(6).conv(y, 1, 1))


class GANCLSPaper(Paper):
    """Reed et al. 2016, with the authors' or the port's networks, or the light ones."""

    def draw(self, noise: Tensor, sentence: Tensor) -> Tensor:
        g, kind = self.g, self.options["architecture"]
        text = projected(g("project"), sentence)
        code = torch.cat([text, noise] if kind == "dcgan" else [noise, text], 1)
        if kind == "light":
            x = g("start").linear(noise).reshape(len(code), -1, 4, 4)
            for i in range(sum(g.has(f"convs.{i}.weight") for i in range(9))):
                gain, bias = g(f"norms.{i}.modulate").linear(code)[:, :, None, None].tensor_split(2, 1)
                x = leaky(g(f"norms.{i}.norm").norm(g(f"convs.{i}").conv(doubled(x), 1, 1)) * (1 + gain) + bias)
            return torch.tanh(g("to_image").conv(x, 1, 1))
        layers, place = g("layers"), 1
        x = layers(0).transposed(code[:, :, None, None])
        for size in (4, 8, 16, 32, 64)[: {16: 2, 32: 3, 64: 4}[self.options["image_size"]]]:
            x, place = layers(place).norm(x), place + 1
            if kind == "residual" and size < 16:
                for _ in range(2 if self.options["large"] else 1):
                    x, place = bottleneck(layers(place), x, 0.0), place + 1
            x = layers(place + 1).transposed(torch.relu(x), 2, 1)
            place += 2
        return torch.tanh(x)

    def features(self, images: Tensor) -> Tensor:
        if self.options["light_discriminator"]:
            return self.light_features(images)
        layers, residual = self.d("image"), self.options["architecture"] != "dcgan"
        x, place = leaky(layers(0).conv(images, 2, 1)), 2
        halvings = {16: 2, 32: 3, 64: 4}[self.options["image_size"]]
        for number in range(2, halvings + 1):
            x, place = layers(place + 1).norm(layers(place).conv(x, 2, 1)), place + 2
            if (number < halvings or not residual) and (number != 3 or self.options["third_activation"]):
                x, place = leaky(x), place + 1
        return leaky(bottleneck(layers(place), x, 0.2)) if residual else x

    def light_features(self, images: Tensor) -> Tensor:
        layers = self.d("image")
        x = layers(0).conv(images, 2, 1)
        for number in range(1, {16: 2, 32: 3, 64: 4}[self.options["image_size"]]):
            smaller = (x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]) / 4
            block = layers(number)
            x = (block("conv").conv(leaky(x), 2, 1) + block("shortcut").conv(smaller)) / 2**0.5
        x = leaky(x)
        # six images are no multiple of four: one group
        spread = ((x - x.mean(0)).square().mean(0) + 1e-8).sqrt().mean(0)
        x = torch.cat([x, spread * torch.ones_like(x[:, :1])], 1)
        return leaky(self.d("last").conv(x)).flatten(1)

    def alone(self, features: Tensor) -> Tensor | None:
        return self.d("realism").linear(features).flatten() if self.options["light_discriminator"] else None

    def logits(self, features: Tensor, sentence: Tensor) -> Tensor:
        if self.options["light_discriminator"]:
            return (features * self.d("project").linear(sentence)).sum(1) / features.shape[1] ** 0.5
        joined, joint = beside(features, projected(self.d("project"), sentence)), self.d("joint")
        if joint.has("weight"):
            return joint.conv(joined).flatten()
        return joint(3).conv(leaky(joint(1).norm(joint(0).conv(joined)))).flatten()

    def fakes(self, batch: Any, rng: torch.Generator) -> Any:
        sentence = batch["text"].sentence
        if self.options["interpolation_weight"]:
            first, second = sentence[: COUNT // 2], sentence[COUNT // 2 :]
            share = torch.full((COUNT // 2, 1), 0.5)
            if self.options["interpolation"] == "random":
                share = 2 * torch.rand(COUNT // 2, 1, generator=rng) - 0.5
            sentence = torch.cat([sentence, (1 - share) * first + share * second])
        noise = torch.randn(len(sentence), self.options["noise_dim"], generator=rng)
        return {"images": self.draw(noise, sentence), "sentence": sentence}

    def judge(self, batch: Any, fakes: Any) -> Terms:
        o, sentence = self.options, batch["text"].sentence
        features = self.features(batch["images"][-1])
        real = self.logits(features, sentence)
        s, w = o["label_smoothing"], o["mismatch_weight"]
        terms = {"real": ((1 - s) * softplus(-real) + s * softplus(real)).mean()}
        if o["mismatch"] == "text":
            wrong = self.logits(features, batch["wrong_text"].sentence)
        else:
            wrong = self.logits(self.features(batch["wrong_images"][-1]), sentence)
        drawn = self.features(fakes["images"][:COUNT])
        terms |= {"wrong": softplus(wrong).mean(), "fake": softplus(self.logits(drawn, sentence)).mean()}
        f = 1 - w if o["fake_weight"] is None else o["fake_weight"]
        loss = terms["real"] + w * terms["wrong"] + f * terms["fake"]
        if (alone := self.alone(features)) is not None:
            terms |= {"real_alone": softplus(-alone).mean(), "fake_alone": softplus(self.alone(drawn)).mean()}
            loss = loss + terms["real_alone"] + terms["fake_alone"]
        return {**terms, "loss": loss}

    def fool(self, batch: Any, fakes: Any, rng: torch.Generator) -> Terms:
        o = self.options
        fakes = self.fakes(batch, rng) if o["redraw_noise"] else fakes
        features = self.features(fakes["images"])
        lost = softplus(-self.logits(features, fakes["sentence"]))
        if (alone := self.alone(features)) is not None:
            lost = lost + softplus(-alone)
        if not o["interpolation_weight"]:
            terms = {"loss": lost.mean()}
        else:
            terms = {"matched": lost[:COUNT].mean(), "interpolated": lost[COUNT:].mean()}
            terms["loss"] = (lost[:COUNT].sum() + o["interpolation_weight"] * lost[COUNT:].sum()) / len(lost)
        if o["feature_matching_weight"]:
            target = self.features(batch["images"][-1])
            self.logits(target, batch["text"].sentence)  # the port judges them, which moves running statistics
            gap = features[:COUNT].mean(0) - target.mean(0).detach()
            terms["feature_matching"] = gap.square().mean()
            terms["loss"] = terms["loss"] + o["feature_matching_weight"] * terms["feature_matching"]
        if o["pixel_weight"]:
            terms["pixel"] = (fakes["images"][:COUNT] - batch["images"][-1]).abs().mean()
            terms["loss"] = terms["loss"] + o["pixel_weight"] * terms["pixel"]
        return terms


AUTHORS = {"generator_width": 4, "discriminator_width": 4, "projection_dim": 5}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"image_size": 64, "generator_width": 2, "discriminator_width": 2}, id="residual"),
        pytest.param(
            {
                **{"image_size": 64, "generator_width": 2, "discriminator_width": 2, "large": True},
                **{"third_activation": False, "text_norm": True, "redraw_noise": True, "mismatch_weight": 0.4},
                **{"interpolation_weight": 0.7, "interpolation": "random"},
            },
            id="large-int",
        ),
        pytest.param(
            {
                **{"image_size": 32, "architecture": "dcgan", "mismatch": "image", "label_smoothing": 0.15},
                **{"fake_weight": 0.8, "feature_matching_weight": 3.0, "pixel_weight": 2.0},
            },
            id="dcgan",
        ),
        pytest.param({"image_size": 16, "architecture": "light", "interpolation_weight": 1.5}, id="light"),
        pytest.param({"image_size": 32, "architecture": "light", "light_discriminator": True}, id="light-pair"),
    ],
)
def test_gancls(changed: dict[str, Any]) -> None:
    model = GANCLS(**{**OPTIONS, **AUTHORS, **changed})
    wrong = changed.get("mismatch") == "image"
    batches = [batch_of(seed, (model.hparams["image_size"],), 16, wrong=wrong) for seed in (100, 200)]
    compare(model, GANCLSPaper, batches)


class TACGANPaper(Paper):
    """Dash et al. 2017, with TensorFlow's padding and batch norm."""

    generator_steps = 3

    def norm(self, layers: Layers, x: Tensor) -> Tensor:
        y = layers.norm(x, epsilon=1e-3) if not layers.has("running_mean") else None
        if y is not None:
            return y
        mean = x.mean((0, 2, 3))
        variance = (x - mean[:, None, None]).square().mean((0, 2, 3))
        for name, value in (("running_mean", mean), ("running_var", variance)):
            key = layers.prefix + name
            self.state[key] = 0.999 * self.state[key] + 0.001 * value.detach()
        normal = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-3).sqrt()
        return normal + layers.get("bias")[:, None, None]

    def draw(self, noise: Tensor, sentence: Tensor) -> Tensor:
        side = self.options["image_size"] // 16
        code = self.g("first").linear(torch.cat([noise, leaky(self.g("project.0").linear(sentence))], 1))
        x, layers = code.reshape(len(code), side, side, -1).permute(0, 3, 1, 2), self.g("layers")
        for place in (0, 3, 6, 9):
            x = torch.relu(self.norm(layers(place), x))
            full, end = layers(place + 2).transposed(x, 2), 2 * x.shape[-1] + 1
            x = full[:, :, 1:end, 1:end]  # what TensorFlow's SAME cuts: one row before, two after
        return torch.tanh(x)

    def fakes(self, batch: Any, rng: torch.Generator) -> Any:
        noise = 2 * torch.rand(COUNT, self.options["noise_dim"], generator=rng) - 1
        return {"images": self.draw(noise, batch["text"].sentence), "noise": noise}

    def again(self, batch: Any, fakes: Any) -> Any:
        return {**fakes, "images": self.draw(fakes["noise"], batch["text"].sentence)}

    def look(self, images: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
        layers, x = self.d("image"), (images + 1) / 2
        for place in (0, 2, 5, 8):
            wide = torch.zeros(*x.shape[:2], x.shape[2] + 3, x.shape[3] + 3)
            wide[:, :, 1:-2, 1:-2] = x
            x = layers(place).conv(wide, 2)
            x = leaky(self.norm(layers(place + 1), x) if place else x)
        x = beside(x, leaky(self.d("project.0").linear(sentence)))
        x = leaky(self.norm(self.d("joint.1"), self.d("joint.0").conv(x)))
        numbers = x.permute(0, 2, 3, 1).reshape(len(x), -1)
        return self.d("matching").linear(numbers).flatten(), self.d("classes").linear(numbers)

    def by_class(self, scores: Tensor, labels: Tensor) -> Tensor:
        if self.options["class_loss"] == "softmax":
            return cross_entropy(scores, labels.tolist())
        wanted = (torch.arange(scores.shape[1]) == labels[:, None]).double()
        return (wanted * softplus(-scores) + (1 - wanted) * softplus(scores)).mean()

    def judge(self, batch: Any, fakes: Any) -> Terms:
        terms: Terms = {}
        for name, images, sign in (
            ("real", batch["images"][-1], -1),
            ("wrong", batch["wrong_images"][-1], 1),
            ("fake", fakes["images"], 1),
        ):
            logits, scores = self.look(images, batch["text"].sentence)
            terms[name] = softplus(sign * logits).mean()
            terms[f"class_{name}"] = self.by_class(scores, batch["wrong_labels" if name == "wrong" else "labels"])
        return {**terms, "loss": torch.stack(list(terms.values())).sum()}

    def fool(self, batch: Any, fakes: Any, rng: torch.Generator) -> Terms:
        logits, scores = self.look(fakes["images"], batch["text"].sentence)
        terms = {"fake": softplus(-logits).mean(), "class_fake": self.by_class(scores, batch["labels"])}
        return {**terms, "loss": terms["fake"] + terms["class_fake"]}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"discriminator_widths": [1, 3, 2, 3, 2]}, id="sigmoid"),
        pytest.param(
            {"class_loss": "softmax", "batch_stats": "tracked", "discriminator_widths": "paper_era"}, id="soft"
        ),
    ],
)
def test_tacgan(changed: dict[str, Any]) -> None:
    widths = {"projection_dim": 5, "generator_width": 2, "discriminator_width": 2, "num_classes": 9}
    model = TACGAN(**{**OPTIONS, **widths, "image_size": 32, "generator_steps": 3, **changed})
    batches = [batch_of(seed, (32,), 16, wrong=True) for seed in (100, 200)]
    for batch in batches:
        batch["labels"] = torch.tensor([label % 9 for label in LABELS])
        batch["wrong_labels"] = batch["labels"].roll(1)
    compare(model, TACGANPaper, batches)
