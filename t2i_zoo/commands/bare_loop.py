"""The training step of a model in a loop of plain PyTorch, for benchmarks."""

from __future__ import annotations

import copy
import itertools
import sys
import time
from collections.abc import Callable

import torch

from t2i_zoo.batch import Batch
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.compiling import compile_networks


class Adam:
    """An optimizer with the model's hook before each step, which Lightning calls for its own."""

    def __init__(self, model: TextToImageGAN, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.zero_grad = optimizer.zero_grad

    def step(self) -> None:
        """Clip, if the model does, and step."""
        self.model.on_before_optimizer_step(self.optimizer)
        self.optimizer.step()


class BareLoop:
    """The model's own step in plain PyTorch: no Lightning between the batches, nor around the optimizers.

    Args:
        model: supplies the step; a copy of it is trained.
        data: supplies the batches.
        autocast: dtype of the half precision, or None.
    """

    def __init__(self, model: TextToImageGAN, data: CaptionDataModule, autocast: torch.dtype | None) -> None:
        self.model, self.autocast = copy.deepcopy(model).train(), autocast
        if model.hparams["compile"] == "networks":  # a copy is not compiled
            compile_networks(self.model.generator, self.model.discriminator, backend=model.compile_backend)
        self.adams = [Adam(self.model, optimizer) for optimizer in self.model.configure_optimizers()[0]]
        self.batches = (batch for epoch in itertools.count() for batch in data.batches("train", self.model, epoch))

    def batch(self) -> Batch:
        """The next batch on the model's device."""
        return next(self.batches)

    def step(self, lap: Callable[[str], None] = lambda part: None) -> None:
        """One batch through both optimizers; ``lap`` is told each part as it ends."""
        batch = self.batch()
        lap("data")
        with self.half():
            self.model.step(batch, *self.adams, lap=lap)

    def half(self) -> torch.autocast:
        """Half precision, if any, without the cache of weights, as in Lightning: with it, gradients round otherwise."""
        enabled = self.autocast is not None
        return torch.autocast(self.model.device.type, self.autocast, enabled=enabled, cache_enabled=False)


def now(device: torch.device) -> float:
    """Seconds, after all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device: torch.device) -> float:
    """Most memory so far in GiB: the device's own on a GPU, the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
