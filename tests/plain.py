"""Plain code in float64 to compare the zoo with: layers of a state dict, the adversarial step, and the papers' losses.

Nothing here calls the package. A layer reads its weights from a state dict by the keys of checkpoints, batch norm and
Adam are written out, and losses are those of the papers' equations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Terms = dict[str, Tensor]


class Layers:
    """Layers of a state dict below a prefix, in training mode; running statistics are written back to it."""

    def __init__(self, state: dict[str, Tensor], prefix: str = "") -> None:
        self.state, self.prefix = state, prefix

    def __call__(self, name: str | int) -> Layers:
        return Layers(self.state, f"{self.prefix}{name}.")

    def get(self, name: str) -> Tensor:
        return self.state[self.prefix + name]

    def has(self, name: str) -> bool:
        return self.prefix + name in self.state

    def weights(self) -> tuple[Tensor, Tensor | None]:
        return self.get("weight"), self.state.get(f"{self.prefix}bias")

    def conv(self, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, *self.weights(), stride, padding)

    def transposed(self, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv_transpose2d(x, *self.weights(), stride, padding)

    def linear(self, x: Tensor) -> Tensor:
        weight, bias = self.weights()
        return x @ weight.T if bias is None else x @ weight.T + bias

    def norm(self, x: Tensor, momentum: float = 0.1, epsilon: float = 1e-5) -> Tensor:
        """Batch norm by the batch's statistics."""
        dims = (0, *range(2, x.dim()))
        shape = (1, -1, *[1] * (x.dim() - 2))
        count = x.numel() // x.shape[1]
        mean = x.sum(dims) / count
        variance = (x - mean.view(shape)).square().sum(dims) / count
        if self.has("running_mean"):
            for name, value in (("mean", mean), ("var", variance * count / (count - 1))):
                key = f"{self.prefix}running_{name}"
                self.state[key] = (1 - momentum) * self.state[key] + momentum * value.detach()
            self.state[f"{self.prefix}num_batches_tracked"] = self.get("num_batches_tracked") + 1
        normal = (x - mean.view(shape)) / (variance.view(shape) + epsilon).sqrt()
        if self.has("weight"):
            normal = normal * self.get("weight").view(shape)
        return normal + self.get("bias").view(shape) if self.has("bias") else normal


def leaky(x: Tensor, slope: float = 0.2) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def gate(x: Tensor) -> Tensor:
    first, second = x.tensor_split(2, 1)
    return first * sigmoid(second)


def augmented(layers: Layers, sentence: Tensor, noise: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    x = layers("fc").linear(sentence)
    x = gate(x) if kind == "glu" else leaky(x, {"relu": 0.0, "lrelu": 0.2}[kind])
    mu, logvar = x.tensor_split(2, 1)
    return mu + torch.exp(logvar / 2) * noise, mu, logvar


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def softmax(x: Tensor, dim: int) -> Tensor:
    powers = torch.exp(x - x.amax(dim, keepdim=True).detach())
    return powers / powers.sum(dim, keepdim=True)


def doubled(x: Tensor) -> Tensor:
    """Every pixel four times."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def beside(features: Tensor, code: Tensor, first: bool = False) -> Tensor:
    """A code at every place of a map, after its channels or before them."""
    repeated = code[:, :, None, None] * torch.ones_like(features[:, :1])
    return torch.cat([repeated, features] if first else [features, repeated], 1)


def resized(images: Tensor, side: int) -> Tensor:
    """Bilinear, the corners' centres on each other, pixel by pixel."""
    old = images.shape[-1]
    matrix = torch.zeros(side, old)
    for new in range(side):
        place = new * (old - 1) / (side - 1)
        low = min(math.floor(place), old - 2)
        matrix[new, low], matrix[new, low + 1] = 1 - (place - low), place - low
    return matrix @ images @ matrix.T


def softplus(x: Tensor) -> Tensor:
    """Binary cross-entropy of logits against 0; of minus the logits, against 1."""
    return torch.log(1 + torch.exp(x))


def cross_entropy(scores: Tensor, rows: Iterable[int]) -> Tensor:
    """Mean over the rows."""
    return -torch.stack([torch.log(softmax(s, 0)[r]) for s, r in zip(scores, rows, strict=True)]).mean()


def divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mu**2 + torch.exp(logvar) - logvar - 1).mean()


def judged(
    real: Tensor,
    wrong: Tensor,
    fake: Tensor,
    alone: tuple[Tensor, Tensor] | None = None,
    keep: Tensor | None = None,
) -> Terms:
    """The loss of one discriminator of StackGAN and the AttnGAN family."""
    lost = softplus(wrong)
    terms = {"real": softplus(-real).mean(), "fake": softplus(fake).mean()}
    terms["wrong"] = lost.mean() if keep is None else lost[keep].sum() / max(int(keep.sum()), 1)
    if alone is None:
        return {"loss": terms["real"] + (terms["wrong"] + terms["fake"]) / 2, **terms}
    terms |= {"real_alone": softplus(-alone[0]).mean(), "fake_alone": softplus(alone[1]).mean()}
    reals = (terms["real"] + terms["real_alone"]) / 2
    return {"loss": reals + (terms["wrong"] + terms["fake"] + terms["fake_alone"]) / 3, **terms}


def over_sizes(sizes: Iterable[int], terms: list[Terms]) -> Terms:
    total = {key: sum((term[key] for term in terms), torch.zeros(())) for key in terms[0]}
    return total | {f"at_{size}": term["loss"] for size, term in zip(sizes, terms, strict=True)}


def matching(scores: Tensor, labels: list[int]) -> Tensor:
    """Cross-entropies of a table of images (rows) and captions, both directions; others of one's class left out."""
    count, total = len(labels), torch.zeros(())
    for i in range(count):
        others = [j for j in range(count) if j == i or labels[j] != labels[i] or labels[i] < 0]
        total = total - torch.log(softmax(scores[i, others], 0)[others.index(i)]) / count
        total = total - torch.log(softmax(scores[others, i], 0)[others.index(i)]) / count
    return total


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()


def damsm(
    regions: Tensor,
    codes: Tensor,
    words: list[Tensor],
    sentences: Tensor,
    labels: list[int],
    gammas: tuple[float, float, float],
) -> Terms:
    """Both matching losses of AttnGAN (section 3.2), pair by pair; each of ``words`` has one caption's (T, D)."""
    count = len(codes)
    by_words, by_sentence = torch.zeros(count, count), torch.zeros(count, count)
    for i in range(count):
        map_dr = regions[i].flatten(1)
        for j in range(count):
            attention = softmax(gammas[0] * softmax(words[j] @ map_dr, 0), 1)
            similar = cosine(attention @ map_dr.T, words[j])
            by_words[i, j] = torch.log(torch.exp(gammas[1] * similar).sum())
            by_sentence[i, j] = cosine(codes[i], sentences[j])
    return {"words": matching(gammas[2] * by_words, labels), "sentence": matching(gammas[2] * by_sentence, labels)}


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) on entries of a state dict, after clipping their joint norm."""

    def __init__(
        self, state: dict[str, Tensor], keys: list[str], rate: float, betas: tuple[float, float], clip: float | None
    ) -> None:
        self.state, self.keys, self.rate, self.betas, self.clip, self.count = state, keys, rate, betas, clip, 0
        self.moments = {key: (torch.zeros_like(state[key]), torch.zeros_like(state[key])) for key in keys}
        self.norms: list[dict[str, float]] = []

    def step(self, loss: Tensor) -> None:
        found = torch.autograd.grad(loss, [self.state[key] for key in self.keys], allow_unused=True, retain_graph=True)
        # A second derivative that is zero everywhere has no graph here; PyTorch's layers give Adam a zero.
        gradients = {
            key: torch.zeros_like(self.state[key]) if g is None else g for key, g in zip(self.keys, found, strict=True)
        }
        self.norms.append({key: float(g.square().sum().sqrt()) for key, g in gradients.items()})
        whole = math.sqrt(sum(norm**2 for norm in self.norms[-1].values()))
        scale = min(1.0, self.clip / (whole + 1e-6)) if self.clip else 1.0
        self.count += 1
        first, second = self.betas
        for key, gradient in gradients.items():
            g = gradient * scale
            m, v = self.moments[key]
            m, v = first * m + (1 - first) * g, second * v + (1 - second) * g**2
            self.moments[key] = m, v
            move = (m / (1 - first**self.count)) / ((v / (1 - second**self.count)).sqrt() + 1e-8)
            self.state[key] = (self.state[key].detach() - self.rate * move).requires_grad_()


def gan_steps(
    state: dict[str, Tensor],
    trained: dict[str, list[str]],
    options: dict[str, Any],
    batches: list[Any],
    rng: torch.Generator,
    paper: Any,
) -> tuple[list[dict[str, Terms]], dict[str, list[dict[str, float]]]]:
    """Steps of both networks on a state dict, which is changed in place.

    Args:
        state: weights and buffers of the model.
        trained: keys of the ``discriminator`` and the ``generator``.
        options: rates, betas, clip and average.
        batches: one for each step.
        rng: what the model draws from.
        paper: with methods ``fakes(batch, rng)``, ``again(batch, fakes)`` for further generator steps, ``judge(batch,
            fakes)`` and ``fool(batch, fakes, rng)`` for terms with their ``loss``, and ``penalty(batch, fakes)``.

    Returns:
        The terms of each step, and by network the gradient norms of each update.
    """
    betas, clip = (options["beta1"], options["beta2"]), options["gradient_clip"]
    rates = {"discriminator": options["discriminator_learning_rate"], "generator": options["learning_rate"]}
    adams = {name: Adam(state, trained[name], rates[name], betas, clip) for name in trained}
    history: list[dict[str, Terms]] = []
    for number, batch in enumerate(batches, 1):
        fakes = paper.fakes(batch, rng)
        cut = {key: [x.detach() for x in v] if isinstance(v, list) else v.detach() for key, v in fakes.items()}
        terms = {"discriminator": paper.judge(batch, cut)}
        loss = terms["discriminator"]["loss"]
        if paper.penalty_step == "separate":
            adams["discriminator"].step(loss)
        if penalty := paper.penalty(batch, cut):
            extra = penalty.pop("loss")
            loss = extra if paper.penalty_step == "separate" else loss + extra
            terms["discriminator"] |= {f"penalty_{name}": value for name, value in penalty.items()}
        adams["discriminator"].step(loss)
        for repeat in range(paper.generator_steps):
            fakes = paper.again(batch, fakes) if repeat else fakes
            terms["generator"] = paper.fool(batch, fakes, rng)
            adams["generator"].step(terms["generator"]["loss"])
        decay = min(options["ema_decay"], (1 + number) / (10 + number))
        for key in [key for key in state if key.startswith("generator_ema.")]:
            live = state[key.replace("generator_ema.", "generator.", 1)].detach()
            learned = key.replace("generator_ema.", "generator.", 1) in paper.averaged
            state[key] = decay * state[key] + (1 - decay) * live if learned else live
        history.append(terms)
    return history, {name: adam.norms for name, adam in adams.items()}


class Paper:
    """What ``gan_steps`` asks, with the usual answers."""

    penalty_step, generator_steps = "joint", 1

    def __init__(self, state: dict[str, Tensor], options: dict[str, Any], averaged: set[str]) -> None:
        self.state, self.options, self.averaged = state, options, averaged
        self.g, self.d = Layers(state, "generator."), Layers(state, "discriminator.")

    def again(self, batch: Any, fakes: Any) -> Any:
        raise NotImplementedError

    def penalty(self, batch: Any, fakes: Any) -> Terms:
        return {}


def lstm(layers: Layers, rows: Tensor, suffix: str = "l0") -> Tensor:
    """States (T, H) of one sequence (T, E), in PyTorch's order of gates."""
    w, u, b = (layers.get(f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih"))
    b = b + layers.get(f"bias_hh_{suffix}")
    h = c = torch.zeros(u.shape[1])
    states = []
    for x in rows:
        i, f, g, o = (w @ x + u @ h + b).tensor_split(4)
        c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
        h = sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


def gru(layers: Layers, rows: Tensor, suffix: str = "l0") -> Tensor:
    """The same of a GRU."""
    w, u, b, d = (layers.get(f"{name}_{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = torch.zeros(u.shape[1])
    states = []
    for x in rows:
        (r, z, n), (s, y, m) = (w @ x + b).tensor_split(3), (u @ h + d).tensor_split(3)
        update = sigmoid(z + y)
        h = update * h + (1 - update) * torch.tanh(n + sigmoid(r + s) * m)
        states.append(h)
    return torch.stack(states)


def still(layers: Layers, x: Tensor) -> Tensor:
    """Batch norm of vectors by running statistics."""
    normal = (x - layers.get("running_mean")) / (layers.get("running_var") + 1e-5).sqrt()
    return normal * layers.get("weight") + layers.get("bias")


def likelihood(layers: Layers, codes: Tensor, rows: list[list[int]]) -> Tensor:
    """STREAM's loss: mean over all words of all captions of how unlikely each is after the words before."""
    lost = []
    for code, row in zip(codes, rows, strict=True):
        read = torch.cat([code[None], layers("embed").get("weight")[row[:-1]]])
        scores = layers("linear").linear(lstm(layers("lstm"), read))
        lost += [-torch.log(softmax(one, 0)[word]) for one, word in zip(scores, row, strict=True)]
    return torch.stack(lost).mean()
