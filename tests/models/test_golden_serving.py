"""Golden steps of the networks that serve a GAN: DAMSM, STREAM, skip-thought, char-CNN-RNN and the classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from plain import (
    Layers,
    Terms,
    cross_entropy,
    damsm,
    gru,
    likelihood,
    lstm,
    resized,
    sigmoid,
    softmax,
)
from steps import LABELS, Watched, close, drawn, exact, eyes, filled, seen
from torch import Tensor

from t2i_zoo.commands.official_states import to_ours
from t2i_zoo.models.charcnnrnn import CharCNNRNN
from t2i_zoo.models.classifier import Classifier
from t2i_zoo.models.damsm import DAMSM
from t2i_zoo.models.serving import ServingModule
from t2i_zoo.models.skipthought import SkipThought
from t2i_zoo.models.stream import STREAM
from t2i_zoo.models.stream.networks import Writer
from t2i_zoo.nn import class_loss

__all__ = ["exact"]
pytestmark = pytest.mark.usefixtures("exact")
CAPTIONS = ["red flower petals", "a blue one", "red", "petals of a flower", "blue blue", "flower red"]
NUMBERS = [[1, 3, 4], [2], [1], [4, 3], [2, 2], [3, 1]]  # a, one and of are unknown
KNOWN = ["red", "blue", "flower", "petals"]
State = dict[str, Tensor]


def steps(
    model: ServingModule,
    ours: Callable[[Any], Terms],
    plain: Callable[[State, Any], Terms],
    update: Callable[..., Tensor],
    clipped: str = "",
    limit: float = 0.0,
) -> None:
    """Two steps of a model, which takes its terms from ``ours``, and of plain code; ``update`` moves one tensor.

    The gradients of the tensors below ``clipped`` are clipped by their joint norm.
    """
    filled(model)
    model.train()
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    for key, parameter in model.named_parameters():
        state[key].requires_grad_(parameter.requires_grad)
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    batches = [
        {"images": [drawn(seed, 6, 3, 16, 16).tanh()], "captions": CAPTIONS, "labels": torch.tensor(LABELS)}
        for seed in (1, 2)
    ]
    found = model.configure_optimizers()
    optimizer = Watched(model, found["optimizer"] if isinstance(found, dict) else found)
    memory: dict[str, Any] = {key: {} for key in trained}
    for batch in batches:
        terms, wanted = ours(batch), plain(state, batch)
        close(terms, wanted, "terms")
        optimizer.zero_grad()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        gradients = torch.autograd.grad(wanted["loss"], [state[key] for key in trained])
        close(optimizer.norms[-1], {k: g.norm() for k, g in zip(trained, gradients, strict=True)}, "gradients")
        whole = math.sqrt(sum(float(g.square().sum()) for k, g in zip(trained, gradients, strict=True) if clipped in k))
        for key, gradient in zip(trained, gradients, strict=True):
            scale = min(1.0, limit / (whole + 1e-6)) if limit and clipped in key else 1.0
            state[key] = update(state[key].detach(), scale * gradient, memory[key]).requires_grad_()
    close(dict(model.state_dict()), state, "state")


def adam(rate: float, betas: tuple[float, float] = (0.9, 0.999), decay: float = 0.0) -> Callable[..., Tensor]:
    def update(value: Tensor, gradient: Tensor, memory: dict[str, Any]) -> Tensor:
        n = memory["n"] = memory.get("n", 0) + 1
        memory["m"] = betas[0] * memory.get("m", 0) + (1 - betas[0]) * gradient
        memory["v"] = betas[1] * memory.get("v", 0) + (1 - betas[1]) * gradient**2
        move = memory["m"] / (1 - betas[0] ** n) / ((memory["v"] / (1 - betas[1] ** n)).sqrt() + 1e-8)
        return value * (1 - rate * decay) - rate * move

    return update


def by_class(layers: Layers, features: Tensor) -> Tensor:
    rows = [row for row, label in enumerate(LABELS) if label >= 0]
    return cross_entropy(layers("class_head").linear(features[rows]), [LABELS[row] for row in rows])


def both_ways(layers: Layers, read: Tensor, cell: Callable[..., Tensor]) -> Tensor:
    """States (T, 2 H) of both directions."""
    return torch.cat([cell(layers, read), cell(layers, read.flip(0), "l0_reverse").flip(0)], 1)


@pytest.mark.parametrize(
    ("kind", "cell", "chunk"), [("lstm", lstm, None), ("gru", gru, 2)], ids=["lstm", "gru-in-parts"]
)
def test_damsm(kind: Any, cell: Any, chunk: int | None, tmp_path: Path) -> None:
    rates = {"learning_rate": 0.02, "min_learning_rate": 0.001, "rnn_clip": 0.3, "text_dropout": 0.0}
    gammas = {"gamma1": 3.5, "gamma2": 4.5, "gamma3": 7.0}
    model = DAMSM(
        **{"backbone": eyes(tmp_path), "input_size": 13, "dim": 6, "word_dim": 3, "rnn": kind, "caption_chunk": chunk},
        **{"class_weight": 0.7, "num_classes": 9, **gammas, **rates},
    )
    model.know(KNOWN)

    def plain(state: State, batch: Any) -> Terms:
        layers = Layers(state)
        text, looks = layers("text_network"), layers("image_network")
        words = [both_ways(text("rnn"), text("encoder").get("weight")[row], cell) for row in NUMBERS]
        sentences = torch.stack([torch.cat([x[-1, :3], x[0, 3:]]) for x in words])
        regions = seen(looks("backbone"), resized(batch["images"][-1], 13))
        features = regions.mean((2, 3))
        codes = looks("emb_cnn_code").linear(features)
        found = damsm(looks("emb_features").conv(regions), codes, words, sentences, LABELS, (3.5, 4.5, 7.0))
        found["class"] = by_class(layers, features)
        return {**found, "loss": found["words"] + found["sentence"] + 0.7 * found["class"]}

    steps(model, lambda batch: model(batch)[0], plain, adam(0.02, (0.5, 0.999)), "text_network.", 0.3)


@pytest.mark.parametrize("end", [True, False])
def test_stream(end: bool, tmp_path: Path) -> None:
    model = STREAM(
        **{"backbone": eyes(tmp_path), "input_size": 10, "embed_dim": 4, "hidden_dim": 5, "learning_rate": 0.02},
        **{"max_words": 2, "gradient_clip": 0.2},
    )
    model.know(KNOWN)

    def ours(batch: Any) -> Terms:
        return {"loss": model(batch["images"][-1], batch["captions"], end)[0]}

    def plain(state: State, batch: Any) -> Terms:
        reader = Layers(state, "reader.")
        features = seen(reader("backbone"), resized(batch["images"][-1], 10)).mean((2, 3))
        codes = reader("norm").norm(reader("linear").linear(features), momentum=0.01)
        rows = [row[:2] + [0] * (end and len(row) <= 2) for row in NUMBERS]  # a cut caption has no end
        return {"loss": likelihood(Layers(state, "writer."), codes, rows)}

    steps(model, ours, plain, adam(0.02), "", 0.2)


def reads(model: STREAM, network: torchvision.models.ResNet, images: Tensor) -> None:
    """Compare what STREAM's reader sees with what torchvision's own network sees of images that are ready."""
    network.fc = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        found, wanted = model.eval().reader.see(drawn(1, 2, 3, 16, 16).tanh()).features, network.eval()(images)
    close({"features": found}, {"features": wanted}, "reader", 1e-6)


def test_streams_reader_normalises_as_imagenet() -> None:
    options = {"backbone": "torchvision:resnet18", "backbone_weights": "random", "train_backbone": True}
    model = STREAM(**options, input_size=40, embed_dim=3, hidden_dim=3)
    network = torchvision.models.resnet18()
    prefix = "reader.backbone.net."
    own = {k.removeprefix(prefix): value for k, value in model.state_dict().items() if k.startswith(prefix)}
    assert network.load_state_dict(own, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    images, form = (resized(drawn(1, 2, 3, 16, 16).tanh(), 40) + 1) / 2, (3, 1, 1)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    reads(model, network, (images - mean.view(form)) / deviation.view(form))


def test_a_converted_stream_reads_images_as_its_authors_gan() -> None:
    """MirrorGAN's files were trained on normalised images, and read images in [-1, 1] in the GAN."""
    network = torchvision.models.resnet18()
    layers = torch.nn.Sequential(*list(network.children())[:-1]).state_dict()
    reader = {f"resnet.{key}": value for key, value in layers.items()}
    reader |= {"linear.weight": drawn(1, 4, 512), "linear.bias": drawn(2, 4)}
    norms = ("weight", "bias", "running_mean", "running_var")
    reader |= {f"bn.{name}": drawn(3, 4) for name in norms} | {"bn.num_batches_tracked": torch.tensor(0)}
    writer = Writer(5, 4, 3).state_dict()
    hparams, state = to_ours("mirrorgan_stream", {"cnn_encoder.ckpt": reader, "rnn_decoder.ckpt": writer})
    model = STREAM(**{**hparams, "backbone_weights": "random", "train_backbone": True})
    model.load_state_dict(state)
    reads(model, network, resized(drawn(1, 2, 3, 16, 16).tanh(), 224))


def test_skipthought() -> None:
    model = SkipThought(
        **{"word_dim": 3, "uni_dim": 4, "bi_dim": 2, "vocabulary_size": 9, "word_dropout": 0.0, "max_words": 4},
        **{"learning_rate": 0.02, "gradient_clip": 0.3},
    )
    model.know(KNOWN)
    rows = [
        [model.known.numbers(caption, 4, end=True) for caption in part] for part in (CAPTIONS, CAPTIONS[1:], CAPTIONS)
    ]
    sentences, before, after = rows[0], [*rows[1], rows[0][0]], rows[2][::-1]
    pairs = list(zip([*CAPTIONS[1:], CAPTIONS[0]], CAPTIONS[::-1], strict=True))

    def plain(state: State, batch: Any) -> Terms:
        layers, found = Layers(state), {}
        for name in ("uni", "bi"):
            table = layers(f"encoder.{name}_words").get("weight")
            table = torch.cat([table[:1].detach(), table[1:]])  # the row of padding is not learned
            decoders, lost = layers(f"{name}_decoders"), []
            for row, *others in zip(sentences, before, after, strict=True):
                encoder = layers(f"encoder.{name}")
                vector = gru(encoder, table[row])[-1]
                if name == "bi":
                    vector = torch.cat([vector, gru(encoder, table[row].flip(0), "l0_reverse")[-1]])
                for side, words in zip(("before", "after"), others, strict=True):
                    read = torch.cat([table[[0, *words[:-1]]], vector.expand(len(words), -1)], 1)
                    scores = decoders("vocabulary").linear(gru(decoders(side), read))[:, : len(model.known)]
                    lost += [-torch.log(softmax(one, 0)[word]) for one, word in zip(scores, words, strict=True)]
            found[name] = torch.stack(lost).mean()
        return {**found, "loss": found["uni"] + found["bi"]}

    steps(model, lambda batch: model({**batch, "neighbours": pairs})[0], plain, adam(0.02), "", 0.3)


def rms(value: Tensor, gradient: Tensor, memory: dict[str, Any]) -> Tensor:
    memory["v"] = 0.99 * memory.get("v", 0) + 0.01 * gradient**2
    return value - 0.02 * gradient / (memory["v"].sqrt() + 1e-8)


@pytest.mark.parametrize(("variant", "symmetric"), [("rnn", True), ("gru", False)])
def test_charcnnrnn(variant: Any, symmetric: bool, tmp_path: Path) -> None:
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789 ,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
    model = CharCNNRNN(
        **{
            "variant": variant,
            "cnn_dim": 3,
            "dim": 4,
            "first_channels": 3,
            "second_channels": 4,
            "symmetric": symmetric,
        },
        **{"backbone": eyes(tmp_path), "input_size": 0, "image_projection": True, "margin": 0.3, "learning_rate": 0.02},
        **{"class_weight": 0.4, "num_classes": 9, "gradient_clip": 0.3},
    )

    def read(layers: Layers, caption: str) -> Tensor:
        x = torch.zeros(1, 70, 201)
        for place, letter in enumerate(caption):
            x[0, alphabet.rindex(letter), place] = 1
        for name in ("conv1", "conv2"):
            x = F.max_pool1d(torch.relu(F.conv1d(x, *layers(name).weights())), 3)
        x = torch.relu(F.conv1d(x, *layers("conv3").weights()))
        x = F.max_pool1d(x, 3, 2) if variant == "rnn" else x
        into, over, states = layers("recurrent.i2h"), layers("recurrent.h2h"), list[Tensor]()
        w, b = over.weights()
        assert b is not None
        for step in into.linear(x[0].T):
            if variant == "rnn":
                states.append(torch.relu(step + (over.linear(states[-1]) if states else 0)))
                continue
            if not states:
                states.append(torch.tanh(step[6:]))
                continue
            h = states[-1]
            z, r = sigmoid(step[:3] + w[:3] @ h + b[:3]), sigmoid(step[3:6] + w[3:6] @ h + b[3:6])
            states.append(z * torch.tanh(step[6:] + w[6:] @ (r * h) + b[6:]) + (1 - z) * h)
        return layers("linear").linear(torch.stack(states).mean(0))

    def plain(state: State, batch: Any) -> Terms:
        layers, zero = Layers(state), torch.zeros(())
        features = seen(layers("image_network.backbone"), batch["images"][-1]).mean((2, 3))
        images = layers("image_network.projection").linear(features)
        texts = [read(layers("text_network"), caption) for caption in CAPTIONS]
        found = {"image_to_text": zero, "text_to_image": zero}
        for i, mine in enumerate(LABELS):
            for j, theirs in enumerate(LABELS):
                if i != j and (mine != theirs or mine < 0):
                    for name, other in (
                        ("image_to_text", images[i] @ texts[j]),
                        ("text_to_image", images[j] @ texts[i]),
                    ):
                        found[name] = found[name] + torch.relu(0.3 + other - images[i] @ texts[i]) / 36
        found["class"] = by_class(layers, features)
        loss = found["image_to_text"] + (found["text_to_image"] if symmetric else 0)
        return {**found, "loss": loss + 0.4 * found["class"]}

    steps(model, lambda batch: model(batch)[0], plain, rms, "", 0.3)


def test_classifier(tmp_path: Path) -> None:
    options = {"cosine_decay": False, "learning_rate": 0.02, "weight_decay": 0.3, "num_classes": 9}
    model = Classifier(backbone=eyes(tmp_path), input_size=0, **options)

    def ours(batch: Any) -> Terms:
        return {"loss": class_loss(model(batch["images"][-1]), model.row_of[batch["labels"]], 0.2)}

    def plain(state: State, batch: Any) -> Terms:
        layers = Layers(state, "network.")
        scores = layers("head").linear(seen(layers("backbone"), batch["images"][-1]).mean((2, 3)))
        lost = [
            -(0.8 * torch.log(softmax(one, 0)[label]) + 0.2 * torch.log(softmax(one, 0)).mean())
            for one, label in zip(scores, LABELS, strict=True)
            if label >= 0
        ]
        return {"loss": torch.stack(lost).mean()}

    steps(model, ours, plain, adam(0.02, decay=0.3))
