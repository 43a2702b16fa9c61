"""Optimizers, learning-rate schedules and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

#: options of the Trainer that belong to automatic optimization: their defaults, and what to use
NOT_FOR_TWO_OPTIMIZERS = {
    "gradient_clip_val": (None, "use --model.gradient_clip"),
    "accumulate_grad_batches": (1, "raise --data.batch_size"),
}


def adams(networks: list[nn.Module], options: Mapping[str, Any], fused: bool) -> list[torch.optim.Optimizer]:
    """Adam for each network (discriminator, generator) over its parameters that are not frozen."""
    rate, of_discriminator = options["learning_rate"], options["discriminator_learning_rate"]
    rates = (rate if of_discriminator is None else of_discriminator, rate)
    betas = (options["beta1"], options["beta2"])
    return [
        torch.optim.Adam([p for p in network.parameters() if p.requires_grad], rate, betas, fused=fused)
        for network, rate in zip(networks, rates, strict=True)
    ]


def decays(optimizers: list[torch.optim.Optimizer], options: Mapping[str, Any], first: int) -> list[Any]:
    """The learning-rate decay of the authors' code, whose first epoch has the number ``first``; Lightning's has 0."""
    factor, every = options["lr_decay"], options["lr_decay_every"]
    schedule = torch.optim.lr_scheduler.LambdaLR
    return [schedule(optimizer, lambda epoch: factor ** ((epoch + first) // every)) for optimizer in optimizers]


def ema_decay(options: Mapping[str, Any], clock: int, images: int) -> float:
    """Decay of the moving average after ``clock`` batches of ``images`` each, over all processes."""
    if half_life := options["ema_half_life"]:
        # StyleGAN2-ADA's ramp-up: never longer than 5 % of the images seen so far
        return float(0.5 ** (images / min(half_life, 0.05 * clock * images)))
    decay = float(options["ema_decay"])
    return min(decay, (1 + clock) / (10 + clock)) if options["ema_warmup"] else decay


@torch.no_grad()
def move_average(average: nn.Module, live: nn.Module, decay: float) -> None:
    """Move averaged weights towards the live ones; buffers are copied."""
    averages: list[Tensor] = list(average.parameters())
    torch._foreach_lerp_(averages, list(live.parameters()), 1.0 - decay)
    alike: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for to, buffer in zip(average.buffers(), live.buffers(), strict=True):
        for tensors, tensor in zip(alike.setdefault(buffer.dtype, ([], [])), (to, buffer), strict=True):
            tensors.append(tensor)
    for group in alike.values():  # a call with statistics and counters would copy them one by one
        torch._foreach_copy_(*group)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Compute no gradients for a network's weights; gradients still pass through it to its inputs."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def update(optimizer: Any, loss: Tensor, backward: Callable[[Tensor], Any]) -> None:
    """One optimizer step on a loss; ``backward`` computes its gradients."""
    optimizer.zero_grad()
    backward(loss)
    optimizer.step()
