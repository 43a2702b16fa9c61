"""Golden steps of StackGAN++, AttnGAN and MirrorGAN in plain code from the papers and their code."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from plain import (
    Layers,
    Paper,
    Terms,
    augmented,
    beside,
    damsm,
    divergence,
    doubled,
    gate,
    judged,
    leaky,
    likelihood,
    over_sizes,
    resized,
    softmax,
    softplus,
    still,
)
from steps import LABELS, LENGTHS, UNUSUAL, batch_of, compare, exact, eyes, filled, seen
from torch import Tensor

from t2i_zoo.models.attngan import AttnGAN
from t2i_zoo.models.damsm import DAMSM
from t2i_zoo.models.mirrorgan import MirrorGAN
from t2i_zoo.models.stackganpp import StackGANPlusPlus
from t2i_zoo.models.stream import STREAM

__all__ = ["exact"]
pytestmark = pytest.mark.usefixtures("exact")
COUNT = len(LENGTHS)
OPTIONS: dict[str, Any] = {
    **{**UNUSUAL, "text_encoder": {"kind": "hashing", "dim": 16}, "condition_dim": 5, "kl_weight": 1.7},
}


def gated(layers: Layers, x: Tensor, first: int = 0) -> Tensor:
    return gate(layers(first + 1).norm(layers(first).conv(x, 1, 1)))


class PyramidPaper(Paper):
    """What StackGAN++ and the AttnGAN family share."""

    def fakes(self, batch: Any, rng: torch.Generator) -> Any:
        o, g, text = self.options, self.g, batch["text"]
        told = o["condition_dim"] if text is not None else 0
        code = torch.randn(COUNT, o["noise_dim"] + told, generator=rng)
        condition, found = code, {}
        if told:
            z, noise = code.split([o["noise_dim"], told], 1)
            condition, mu, logvar = augmented(g("augment"), text.sentence, noise, "glu")
            code, found = torch.cat([condition, z], 1), {"mu": mu, "logvar": logvar}
        x = gate(g("first.fc.1").norm(g("first.fc.0").linear(code))).reshape(COUNT, -1, 4, 4)
        for i in range(sum(g.has(f"first.up.{i}.1.weight") for i in range(9))):
            x = gated(g(f"first.up.{i}"), doubled(x), 1)
        maps = [x]
        for i in range(o["branches"] - 1):
            stage = g(f"stages.{i}")
            x = self.join(stage, x, condition, text)
            for j in range(sum(stage.has(f"residual.{j}.block.0.weight") for j in range(9))):
                block = stage(f"residual.{j}.block")
                x = x + block(4).norm(block(3).conv(gated(block, x), 1, 1))
            x = gated(stage("up"), doubled(x), 1)
            maps.append(x)
        shown = maps[-1:] if o.get("last_only") else maps
        images = [torch.tanh(g(f"pictures.{i}.0").conv(x, 1, 1)) for i, x in enumerate(shown)]
        return {"images": images, **found}

    def join(self, stage: Layers, x: Tensor, condition: Tensor, text: Any) -> Tensor:
        raise NotImplementedError

    def features(self, i: int, images: Tensor) -> Tensor:
        """The trunk is a list of one encoder and further blocks here."""
        layers = self.d(i)("trunk")
        x, place = leaky(layers("0.0").conv(images, 2, 1)), 2
        while layers.has(f"0.{place}.weight"):
            x = leaky(layers(f"0.{place + 1}").norm(layers(f"0.{place}").conv(x, 2, 1)))
            place += 3
        for block in range(1, sum(layers.has(f"{b}.0.weight") for b in range(9))):
            halves = layers(f"{block}.0").get("weight").shape[-1] == 4
            x = leaky(layers(f"{block}.1").norm(layers(f"{block}.0").conv(x, 2 if halves else 1, 1)))
        return x

    def match(self, i: int, features: Tensor, condition: Tensor, first: bool) -> Tensor:
        heads = self.d(i)("heads")
        x = leaky(heads("joint.1").norm(heads("joint.0").conv(beside(features, condition, first), 1, 1)))
        return heads("conditional").conv(x).flatten()

    def alone(self, i: int, features: Tensor) -> Tensor:
        return self.d(i)("heads.unconditional").conv(features).flatten()


class StackGANPlusPlusPaper(PyramidPaper):
    """Zhang et al. 2018, with text or without."""

    def join(self, stage: Layers, x: Tensor, condition: Tensor, text: Any) -> Tensor:
        return gated(stage("joint"), beside(x, condition, True))

    def judge(self, batch: Any, fakes: Any) -> Terms:
        o, terms, mu = self.options, [], fakes.get("mu")
        for i, fake_images in enumerate(fakes["images"]):
            real = self.features(i, batch["images"][i])
            wrong = None if mu is None else self.features(i, batch["wrong_images"][i])
            fake = self.features(i, fake_images)
            lost = [softplus(-self.alone(i, real)).mean(), softplus(self.alone(i, fake)).mean()]
            if wrong is None:
                terms.append({"real": lost[0], "fake": lost[1], "loss": lost[0] + lost[1]})
                continue
            matched = [self.match(i, x, mu, True) for x in (real, wrong, fake)]
            u, kinds = o["uncond_weight"], ("real", "wrong", "fake")
            found = {k: softplus(x if k != "real" else -x).mean() for k, x in zip(kinds, matched, strict=True)}
            if u == 0:
                terms.append({**found, "loss": found["real"] + (found["wrong"] + found["fake"]) / 2})
                continue
            lost.insert(1, softplus(-self.alone(i, wrong)).mean())  # a real image, whatever its text
            found = {k: found[k] + u * x for k, x in zip(kinds, lost, strict=True)}
            terms.append({**found, "loss": sum(found.values())})
        return over_sizes(o["sizes"], terms)

    def fool(self, batch: Any, fakes: Any, rng: torch.Generator) -> Terms:
        o, terms, mu = self.options, {}, fakes.get("mu")
        for i, (size, images) in enumerate(zip(o["sizes"], fakes["images"], strict=True)):
            features = self.features(i, images)
            lost = softplus(-self.alone(i, features)).mean()
            if mu is not None:
                lost = o["uncond_weight"] * lost + softplus(-self.match(i, features, mu, True)).mean()
            terms[f"at_{size}"] = lost
        loss = sum(terms.values())
        if mu is not None:
            terms["kl"] = divergence(mu, fakes["logvar"])
            loss = loss + o["kl_weight"] * terms["kl"]
        if o["colour_weight"]:
            terms["colour"] = torch.zeros(())
            for low, high in pairwise(fakes["images"]):
                gaps = [a - b for a, b in zip(colours(high), colours(low.detach()), strict=True)]
                terms["colour"] = terms["colour"] + gaps[0].square().mean() + 5 * gaps[1].square().mean()
            loss = loss + o["colour_weight"] * terms["colour"]
        return {**terms, "loss": loss}


def colours(images: Tensor) -> tuple[Tensor, Tensor]:
    pixels = images.flatten(2).mT  # (B, N, 3)
    mean = pixels.mean(1)
    gaps = pixels - mean[:, None]
    return mean, (gaps[..., :, None] * gaps[..., None, :]).mean(1)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"branches": 3, "image_size": 32, "colour_weight": 0.9, "uncond_weight": 0.6}, id="text"),
        pytest.param({"branches": 2, "image_size": 16, "uncond_weight": 0.0, "residual_blocks": 0}, id="conditional"),
        pytest.param({"branches": 2, "image_size": 16, "text_encoder": "none", "colour_weight": 50.0}, id="none"),
        pytest.param({"branches": 4, "image_size": 64, "residual_blocks": 2, "late_residual_blocks": 1}, id="four"),
    ],
)
def test_stackganpp(changed: dict[str, Any]) -> None:
    widths = {"generator_width": 8, "discriminator_width": 1, "residual_blocks": 1}
    model = StackGANPlusPlus(**{**OPTIONS, **widths, **changed})
    sizes = model.needs.sizes
    batches = [batch_of(seed, sizes, 16, wrong=True) for seed in (100, 200)]
    if "text_encoder" in changed:
        for batch in batches:
            batch["text"] = None  # type: ignore[assignment]
    compare(model, StackGANPlusPlusPaper, batches, sizes=sizes)


class AttnGANPaper(PyramidPaper):
    """Xu et al. 2018, with the padding of each caption masked or the authors' mix-up, and DAMSM's losses."""

    mirrored = False

    def attended(self, projection: Layers, x: Tensor, text: Any) -> Tensor:
        words = [projection.get("weight")[:, :, 0, 0] @ one.T for one in text.words]  # (G, T) each
        return self.read(x, words, words)

    def read(self, x: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """The values of the words of one caption that each place of its map attends to."""
        side, found = x.shape[-1], []
        for b, (key, value) in enumerate(zip(keys, values, strict=True)):
            places = [(b * side**2 + place) % COUNT if self.options["legacy_mask"] else b for place in range(side**2)]
            seen = torch.tensor([[t < LENGTHS[row] for t in range(key.shape[1])] for row in places])
            powers = torch.exp(x[b].flatten(1).T @ key) * seen
            found.append(value @ (powers / powers.sum(1, keepdim=True)).T)
        return torch.stack(found).reshape(x.shape)

    def join(self, stage: Layers, x: Tensor, condition: Tensor, text: Any) -> Tensor:
        if not self.mirrored:
            return torch.cat([x, self.attended(stage("attention.project"), x, text)], 1)
        sentence = stage("whole.project").linear(condition)[:, :, None, None]
        looked = sentence * softmax(stage("whole.look").conv(x * sentence), 1)
        return stage("fuse").conv(torch.cat([x, self.attended(stage("local.project"), x, text), looked], 1))

    def judge(self, batch: Any, fakes: Any) -> Terms:
        o, terms, sentence = self.options, [], batch["text"].sentence
        order = sorted(range(COUNT), key=lambda row: -LENGTHS[row])
        for i, images in enumerate(fakes["images"]):
            real, fake = self.features(i, batch["images"][-len(fakes["images"]) :][i]), self.features(i, images)
            matched, drawn = self.match(i, real, sentence, False), self.match(i, fake, sentence, False)
            keep = None
            if o["mismatch"] == "shift":
                wrong = self.match(i, real[order[:-1]], sentence[order[1:]], False)
                if o["exclude_same_class"]:
                    keep = torch.tensor([LABELS[a] != LABELS[b] or LABELS[a] < 0 for a, b in pairwise(order)])
            else:
                wrong = self.match(i, real, batch["wrong_text"].sentence, False)
            alone = None if o["last_only"] else (self.alone(i, real), self.alone(i, fake))
            terms.append(judged(matched, wrong, drawn, alone, keep))
        return over_sizes(o["sizes"], terms)

    def fool(self, batch: Any, fakes: Any, rng: torch.Generator) -> Terms:
        o, text, terms = self.options, batch["text"], {}
        for i, (size, images) in enumerate(zip(o["sizes"], fakes["images"], strict=True)):
            features = self.features(i, images)
            lost = softplus(-self.match(i, features, text.sentence, False)).mean()
            terms[f"at_{size}"] = lost if o["last_only"] else lost + softplus(-self.alone(i, features)).mean()
        kl = divergence(fakes["mu"], fakes["logvar"])
        loss, terms["kl"] = sum(terms.values()) + o["kl_weight"] * kl, kl
        if o["damsm_weight"]:
            looks = Layers(o["damsm_state"], "image_network.")
            regions = seen(looks("backbone"), fakes["images"][-1])
            codes = looks("emb_cnn_code").linear(regions.mean((2, 3)))
            words = [text.words[b, :length] for b, length in enumerate(LENGTHS)]
            local = looks("emb_features").conv(regions)
            found = damsm(local, codes, words, text.sentence, LABELS, (3.0, 4.5, 8.0))
            loss, terms = loss + o["damsm_weight"] * (found["words"] + found["sentence"]), terms | found
        if o.get("stream_weight"):
            reader = Layers(o["stream_state"], "reader.")
            features = seen(reader("backbone"), resized(fakes["images"][-1], 7)).mean((2, 3))
            codes = still(reader("norm"), reader("linear").linear(features))
            terms["caption"] = likelihood(Layers(o["stream_state"], "writer."), codes, NUMBERS)
            loss = loss + o["stream_weight"] * terms["caption"]
        return {**terms, "loss": loss}


class MirrorGANPaper(AttnGANPaper):
    """Qiao et al. 2019."""

    mirrored = True


WORDS = {"generator_width": 4, "discriminator_width": 1, "residual_blocks": 2, "damsm_weight": 0.0}
EXTRA = {"branches": 2, "image_size": 16, "exclude_same_class": True}
CAPTIONS = ["red flower petals", "a blue one", "red", "petals of a flower", "blue blue", "flower red"]
NUMBERS = [[1, 3, 4], [2], [1], [4, 3], [2, 2], [3, 1]]  #: of the words that the writer knows


def looked(folder: Path) -> DAMSM:
    """A DAMSM on a small network, with gammas that are not the defaults."""
    gammas = {"gamma1": 3.0, "gamma2": 4.5, "gamma3": 8.0}
    found = DAMSM(backbone=eyes(folder), input_size=0, dim=16, word_dim=3, batch_norm="eval", **gammas)
    filled(found)
    return found.requires_grad_(False).eval()


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"branches": 3, "image_size": 32, "residual_blocks": 1}, id="three"),
        pytest.param({**EXTRA, "damsm_weight": 2.5}, id="damsm"),
        pytest.param({**EXTRA, "legacy_mask": True}, id="legacy"),
        pytest.param({**EXTRA, "last_only": True, "exclude_same_class": False, "mismatch": "class"}, id="last"),
    ],
)
def test_attngan(changed: dict[str, Any], tmp_path: Path) -> None:
    model = AttnGAN(**{**OPTIONS, **WORDS, **changed})
    about: dict[str, Any] = {"sizes": model.needs.sizes}
    if changed.get("damsm_weight"):
        companion = looked(tmp_path)
        model.adopt("damsm", lambda: companion)
        about["damsm_state"] = companion.state_dict()
    compare(model, AttnGANPaper, [batch_of(seed, model.needs.sizes, 16, 16) for seed in (100, 200)], **about)


@pytest.mark.parametrize("legacy", [False, True], ids=["mended", "legacy"])
def test_mirrorgan(legacy: bool, tmp_path: Path) -> None:
    options = {**OPTIONS, **WORDS, **EXTRA, "damsm_weight": 0.8, "stream_weight": 3.0, "legacy_mask": legacy}
    model, companion = MirrorGAN(**options), looked(tmp_path)
    writer = STREAM(backbone=eyes(tmp_path), input_size=7, embed_dim=4, hidden_dim=5)
    writer.know(["red", "blue", "flower", "petals"])
    filled(writer)
    model.adopt("damsm", lambda: companion)
    model.adopt("stream", lambda: writer.requires_grad_(False).eval())
    about = {"sizes": model.needs.sizes, "damsm_state": companion.state_dict(), "stream_state": writer.state_dict()}
    batches = [batch_of(seed, model.needs.sizes, 16, 16) for seed in (100, 200)]
    for batch in batches:
        batch["captions"] = CAPTIONS
    compare(model, MirrorGANPaper, batches, **about)
