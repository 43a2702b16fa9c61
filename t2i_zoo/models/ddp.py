"""Several processes, each with a batch of its own: the strategy ``gan_ddp``.

One step of a GAN trains one network. DistributedDataParallel wraps the whole module: it exchanges the gradients of both
networks in each step, searches the graph for parameters without one, and broadcasts every buffer. Here each optimizer
has a ``Reducer``, which does nothing while the other network is trained.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.overrides.distributed import _sync_module_states
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor, nn

from t2i_zoo.errors import T2IError

_ALIGNED = 4  # float32 numbers in 16 bytes, which fused optimizers read at once


class _Bucket:
    """Gradients that travel together: views of one flat tensor, then statistics, then a mark for each parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter], statistics: Sequence[Tensor]) -> None:
        places = [0, *itertools.accumulate(-(-t.numel() // _ALIGNED) * _ALIGNED for t in (*parameters, *statistics))]
        self.flat = parameters[0].new_zeros(places[-1] + len(parameters))
        views = [
            # the strides of the parameter, as autograd has them: a fused step reads both in one order
            self.flat.as_strided(t.size(), t.stride(), place)
            for t, place in zip((*parameters, *statistics), places[:-1], strict=True)
        ]
        self.views = dict(zip(parameters, views[: len(parameters)], strict=True))
        self.statistics, self.copies = list(statistics), views[len(parameters) :]
        self.marks = self.flat[places[-1] :]  #: of each parameter, the share of the processes that have a gradient


class Reducer:
    """Averages the gradients of some parameters over all processes, in buckets, while their backward pass goes on.

    A bucket leaves once its last gradient is there, in the same order in all processes. Gradients are views of the
    buckets. A parameter that no process has a gradient of has none here either, so that its optimizer skips it.

    Args:
        parameters: float32, on one device, in the order of the forward pass: the last ones leave first.
        statistics: tensors that are averaged with the gradients, such as running means of batch norms.
        bucket_mib: size of a bucket in MiB.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], statistics: Sequence[Tensor], bucket_mib: float) -> None:
        self.held = False  #: whether gradients of further micro-batches are still to come
        self._buckets: list[_Bucket] = []
        part: list[nn.Parameter] = []
        for number, parameter in enumerate(reversed(parameters), 1):
            part.append(parameter)
            if sum(p.nbytes for p in part) >= bucket_mib * 2**20 or number == len(parameters):
                self._buckets.append(_Bucket(part, statistics if number == len(parameters) else ()))
                part = []
        self._of = {parameter: bucket for bucket in self._buckets for parameter in bucket.views}
        hooked: Any = parameters
        self._hooks = [parameter.register_post_accumulate_grad_hook(self._arrived) for parameter in hooked]
        self._begin()

    def _begin(self) -> None:
        self._used: set[nn.Parameter] = set()
        self._works: list[Any] = []  # of the buckets that have left
        self._awaited = {bucket: set(bucket.views) for bucket in self._buckets}

    def _arrived(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        bucket = self._of[parameter]
        if parameter.grad is not bucket.views[parameter]:
            assert parameter.grad is not None
            parameter.grad = bucket.views[parameter].copy_(parameter.grad)
        self._used.add(parameter)
        if self.held:
            return
        self._awaited[bucket].discard(parameter)
        while len(self._works) < len(self._buckets) and not self._awaited[self._buckets[len(self._works)]]:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[len(self._works)]
        bucket.marks.fill_(1)
        for mark, (parameter, view) in zip(bucket.marks, bucket.views.items(), strict=True):
            if parameter not in self._used:
                view.zero_()
                mark.zero_()
        if bucket.statistics:
            torch._foreach_copy_(bucket.copies, bucket.statistics)
        self._works.append(dist.all_reduce(bucket.flat.div_(dist.get_world_size()), async_op=True))

    def finish(self) -> None:
        """Wait until the gradients of a backward pass are averaged; nothing where it was another network's."""
        if self.held or not self._used:
            return
        while len(self._works) < len(self._buckets):
            self._send()
        for work in self._works:
            work.wait()
        for bucket in self._buckets:
            if bucket.statistics:
                torch._foreach_copy_(bucket.statistics, bucket.copies)
            if self._used.issuperset(bucket.views):
                continue
            for elsewhere, (parameter, view) in zip(bucket.marks.tolist(), bucket.views.items(), strict=True):
                parameter.grad = view if elsewhere else None
        self._begin()

    def remove(self) -> None:
        """Leave the parameters as they were."""
        for hook in self._hooks:
            hook.remove()


class GANDDPStrategy(DDPStrategy):
    """``--trainer.strategy gan_ddp``: each optimizer's gradients are averaged over the processes, once per step.

    Weights are broadcast once, at the start. Running statistics of batch norms are averaged with the gradients of the
    last optimizer, so all processes end each batch with the same model.

    Args:
        bucket_mib: size in MiB of the buckets that gradients travel in.
        options: of ``DDPStrategy``, such as ``timeout``.
    """

    def __init__(self, bucket_mib: float = 25.0, **options: Any) -> None:
        super().__init__(**options)
        self.bucket_mib = bucket_mib
        self.reducers: list[Reducer] = []

    def configure_ddp(self) -> None:
        """Begin with the same weights; the module is not wrapped."""
        assert isinstance(self.model, nn.Module)
        _sync_module_states(self.model)

    def on_train_start(self) -> None:
        """Make a reducer for each optimizer, now that every module has its mode and its memory format."""
        assert isinstance(self.model, nn.Module)
        trained = [module for module in self.model.modules() if module.training]
        found = [getattr(module, name, None) for module in trained for name in ("running_mean", "running_var")]
        statistics = [tensor for tensor in found if isinstance(tensor, Tensor)]
        for optimizer in self.optimizers:
            parameters = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            last = optimizer is self.optimizers[-1]
            self.reducers.append(Reducer(parameters, statistics if last else (), self.bucket_mib))

    def post_backward(self, closure_loss: Tensor) -> None:
        """Wait for the averaged gradients, ahead of clipping and of the optimizer's step."""
        for reducer in self.reducers:
            reducer.finish()

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Keep the gradients of a backward pass here: those of further micro-batches will be added to them."""
        for reducer in self.reducers:
            reducer.held = True
        try:
            yield
        finally:
            for reducer in self.reducers:
                reducer.held = False

    def teardown(self) -> None:
        """Leave the module as it was."""
        for reducer in self.reducers:
            reducer.remove()
        self.reducers = []
        super().teardown()


def check_strategy(strategy: Any) -> None:
    """Raise for Lightning's own DDP where it would crash in the second backward pass of a step."""
    stock = isinstance(strategy, DDPStrategy) and not isinstance(strategy, GANDDPStrategy)
    if stock and not strategy._ddp_kwargs.get("find_unused_parameters"):
        raise T2IError(
            "found Lightning's own DDP, which expects all parameters in each step, but a GAN trains one network at a "
            "time: use --trainer.strategy gan_ddp"
        )


def exchanged(model: Any, images: int) -> tuple[Callable[[Tensor], Any], Callable[[], AbstractContextManager[Any]]]:
    """The backward pass of a batch of ``images`` whose gradients are exchanged, and what holds the exchange back.

    Data modules give all processes the same number of images. Where loaders of your own do not, the loss of a process
    is weighted, so that the average over the processes is the mean over all images.
    """
    trainer, backward = model.trainer, model.manual_backward
    hold = getattr(trainer.strategy, "block_backward_sync", nullcontext)
    if model.data_module is not None or trainer.world_size == 1:
        return backward, hold
    count = torch.full((), float(images), device=model.device)
    weight = count / trainer.strategy.reduce(count.clone(), reduce_op="mean")
    return lambda loss: backward(loss * weight), hold


StrategyRegistry.register(
    "gan_ddp", GANDDPStrategy, description="DDP that exchanges the gradients of one network at a time"
)
