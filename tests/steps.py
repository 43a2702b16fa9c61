"""The golden step: two batches through a model in float64, and through plain code, compared to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from golden import recipe
from plain import Layers, Paper, gan_steps
from torch import Tensor, nn

from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.text import TextFeatures

LENGTHS = [3, 5, 2, 4, 1, 5]  #: words of the captions of each batch, neither sorted nor equal
LABELS = [7, 2, 7, 0, -1, 2]  #: two images of one class, and one without any
#: of every model: nothing is the default, and each network has a rate of its own
UNUSUAL: dict[str, Any] = {
    **{"noise_dim": 3, "learning_rate": 0.013, "discriminator_learning_rate": 0.007, "beta1": 0.3, "beta2": 0.95},
    **{"ema_decay": 0.17, "gradient_clip": 0.6},
}


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in float64, also where the package computes losses in float32 under mixed precision."""
    former = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(former)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(model: nn.Module, skipped: str = "backbone") -> None:
    """Give each tensor of a network distinct values that follow from its key."""
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and skipped not in key and not key.startswith("text_encoder."):
                tensor.copy_(recipe(key, tuple(tensor.shape)))


def batch_of(seed: int, sizes: tuple[int, ...], dim: int, words: int = 0, wrong: bool = False) -> dict[str, Any]:
    """One batch of six images, captions as features."""
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    table = drawn(seed + 1, *mask.shape, words) * mask[..., None] if words else None
    text = TextFeatures(drawn(seed, len(LENGTHS), dim), table, mask if words else None)
    count, labels = len(LENGTHS), torch.tensor(LABELS)
    batch = {"captions": ["a"] * count, "text": text, "labels": labels, "wrong_labels": labels.roll(1)}
    batch["wrong_text"] = TextFeatures(drawn(seed + 2, count, dim))
    batch["images"] = [drawn(seed + 3 + size, count, 3, size, size).tanh() for size in sizes]
    if wrong:
        batch["wrong_images"] = [drawn(seed + 500 + size, count, 3, size, size).tanh() for size in sizes]
    return batch


class Watched:
    """An optimizer as Lightning calls it, clipping included, that keeps the gradient norms of each update."""

    def __init__(self, model: ZooModule, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.zero_grad, self.norms = optimizer.zero_grad, list[dict[str, float]]()

    def step(self) -> None:
        own = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        named = [(key, p) for key, p in self.model.named_parameters() if id(p) in own and p.grad is not None]
        self.norms.append({key: float(p.grad.norm()) for key, p in named})  # type: ignore[union-attr]
        self.model.on_before_optimizer_step(self.optimizer)
        self.optimizer.step()


def close(found: dict[str, Any], wanted: dict[str, Any], about: str, tolerance: float = 1e-8) -> None:
    """Raise where names differ, or a tensor or number does by more than rounding."""
    assert found.keys() == wanted.keys(), (about, found.keys() ^ wanted.keys())
    for key, value in found.items():
        ours, theirs = (torch.as_tensor(x).detach().double() for x in (value, wanted[key]))
        assert ours.shape == theirs.shape, (about, key)
        gap = float((ours - theirs).abs().max()) if ours.numel() else 0.0
        assert gap <= tolerance * max(1.0, float(theirs.abs().max())), (about, key, gap)


def compare(model: TextToImageGAN, paper: type[Paper], batches: list[dict[str, Any]], **about: Any) -> None:
    """Train a model on two batches, and plain code on the same; all terms, gradients, weights and averages agree."""
    filled(model)
    model.train()
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    trained: dict[str, list[str]] = {"discriminator": [], "generator": []}
    for key, parameter in model.named_parameters():
        network = key.split(".")[0]
        if parameter.requires_grad and network in trained:
            trained[network].append(key)
            state[key].requires_grad_()
    averaged = {key for key, _ in model.named_parameters() if key.startswith("generator.")}
    plain = paper(state, {**model.hparams, **about}, averaged)
    rng = torch.Generator().manual_seed(11)
    history, wanted_norms = gan_steps(state, trained, dict(model.hparams), batches, rng, plain)
    model.rng = torch.Generator().manual_seed(11)
    optimizers = [Watched(model, one) for one in model.configure_optimizers()[0]]
    for number, batch in enumerate(batches):
        found = model.step(batch, *optimizers)
        for network, terms in found.items():
            close(terms, history[number][network], f"terms of {network} in step {number}")
    for network, optimizer in zip(("discriminator", "generator"), optimizers, strict=True):
        assert len(optimizer.norms) == len(wanted_norms[network]) >= 2
        for number, norms in enumerate(optimizer.norms):
            wanted = wanted_norms[network][number]
            close(dict.fromkeys(wanted, 0.0) | norms, wanted, f"gradients of {network}, update {number}")
    close(dict(model.state_dict()), state, "state")


class Eyes(nn.Module):
    """An image network that plain code can repeat: one convolution, tanh, and the mean of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        regions = torch.tanh(self.conv(images))
        features = regions.mean((2, 3))
        return features, features, regions


def eyes(folder: Path) -> str:
    """The name of a file with it."""
    torch.manual_seed(3)
    path = folder / "eyes.pt"
    torch.jit.trace(Eyes(), torch.zeros(2, 3, 16, 16)).save(str(path))  # type: ignore[no-untyped-call]
    return f"file:{path}"


def seen(layers: Layers, images: Tensor) -> Tensor:
    """Its map of an image, in plain code."""
    return torch.tanh(layers("net.conv").conv(images, 3))
