"""Optimizers, learning-rate schedules, micro-batches and the moving average of the weights."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch
from t2i_zoo.text import TextFeatures

#: options of the Trainer that belong to automatic optimization: their defaults, and what to use
NOT_FOR_TWO_OPTIMIZERS = {
    "gradient_clip_val": (None, "use --model.gradient_clip"),
    "accumulate_grad_batches": (1, "raise --data.batch_size, and cut each batch with --model.accumulate"),
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
def move_average(average: nn.Module, live: nn.Module, decay: float | Tensor) -> None:
    """Move averaged weights towards the live ones; buffers are copied."""
    averages, weights = list[Tensor](average.parameters()), list[Tensor](live.parameters())
    if isinstance(decay, Tensor):  # on the device: the same, in operations that do not ask the host for it
        differences = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(differences, 1.0 - decay)
        torch._foreach_add_(averages, differences)
    else:
        torch._foreach_lerp_(averages, weights, 1.0 - decay)
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


class Part(NamedTuple):
    """A micro-batch: images that one forward and backward pass holds at once.

    Attributes:
        batch: its images and captions.
        share: weight of its mean loss in that of the whole batch.
        last: whether the optimizer steps after it.
        fakes: the images generated for it.
    """

    batch: Batch
    share: float
    last: bool
    fakes: Any = None


def micro_batches(batch: Batch, count: int, least: int = 1) -> list[Part]:
    """Cut a batch into ``count`` parts of equal size within one image, or fewer where they would be below ``least``."""
    images = len(batch["captions"])
    count = max(min(count, images // least), 1)
    if count == 1:
        return [Part(batch, 1.0, True)]
    ends = [images * number // count for number in range(count + 1)]
    parts = []
    for first, end in itertools.pairwise(ends):
        rows: Any = {key: _rows(value, slice(first, end)) for key, value in batch.items()}
        parts.append(Part(rows, (end - first) / images, end == images))
    return parts


def _rows(value: Any, rows: slice) -> Any:
    """Some rows of one entry of a batch."""
    if isinstance(value, TextFeatures):
        return TextFeatures(value.sentence[rows], *(None if x is None else x[rows] for x in value[1:]))
    if isinstance(value, list) and value and isinstance(value[0], Tensor):  # a pyramid of images
        return [tensor[rows] for tensor in value]
    return value[rows]


def update(
    optimizer: Any,
    parts: Iterable[Part],
    losses: Sequence[Callable[..., dict[str, Tensor]]],
    backward: Callable[[Tensor], Any],
    hold: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, Tensor]:
    """One optimizer step on the mean loss of micro-batches, of which one at a time has a graph.

    Args:
        optimizer: of the network in its turn.
        parts: asked for one after another.
        losses: their ``loss`` terms are added; where none has any there is no step.
        backward: computes the gradients of a loss.
        hold: entered around the backward passes of all parts but the last.

    Returns:
        The terms, as means over the parts; ``loss`` is that of the first of the losses.
    """
    means: dict[str, Tensor] = {}
    for part in parts:
        found = [terms for loss in losses if (terms := loss(part.batch, part.fakes))]
        if not found:
            return {}
        loss = functools.reduce(operator.add, (terms["loss"] for terms in found))
        terms = found[0] | {key: x for further in found[1:] for key, x in further.items() if key != "loss"}
        if not means:
            optimizer.zero_grad()
        with nullcontext() if part.last else hold():
            backward(loss if part.share == 1 else loss * part.share)
        means = (
            terms if part.share == 1 else {key: means.get(key, 0) + x.detach() * part.share for key, x in terms.items()}
        )
    optimizer.step()
    return means
