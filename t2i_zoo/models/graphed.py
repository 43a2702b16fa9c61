"""A whole training step as one CUDA graph, which spares the host thousands of launches.

A graph replays kernels on the same memory, so everything that changes from batch to batch is a tensor that is filled in
place: the batch, the learning rates, the decay of the moving average. On a CPU the same step runs without a capture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from t2i_zoo.batch import Batch
from t2i_zoo.errors import T2IError
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.optimization import ema_decay
from t2i_zoo.text import TextFeatures

_WARM_UP = 3  # batches before the capture: cuDNN searches, and workspaces and optimizer states are allocated

#: options whose effect depends on the number of the batch, or on values that the host reads: what each must be
_FIXED = {"penalty_every": 1, "ema_overwrite_on_snapshot": False, "damsm_weight": 0, "stream_weight": 0}


class GraphedStep:
    """The adversarial step of a model on one device, on inputs that stay where they are in memory.

    Args:
        model: in training mode, on its device. Its moving average reads its decay from the device from now on.
        optimizers: of the discriminator and the generator, made capturable here: rates become tensors, which
            schedulers fill in place.
        part: a batch, or what ``finish`` makes one of, on the device. All later ones have its shapes; captions may have
            different numbers of words.
        finish: makes the batch, inside of the graph.
        autocast: entered around the step.
        wrap: what the step calls in place of each optimizer.

    Raises:
        T2IError: for options that a graph cannot hold, and batches without cached text.
    """

    def __init__(
        self,
        model: TextToImageGAN,
        optimizers: Sequence[torch.optim.Optimizer],
        part: Mapping[str, Any],
        finish: Callable[[Any], Batch] = lambda part: part,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        wrap: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: optimizer,
    ) -> None:
        for name, value in _FIXED.items():
            if model.hparams.get(name, value) != value:
                raise T2IError(f"found {name} {model.hparams[name]}, expected {value}: a CUDA graph repeats one step")
        batch = finish({**part})
        lacking = [name for name in ("text", "wrong_text")[: 1 + model.needs.wrong_text] if name not in batch]
        if model.conditional and lacking:
            raise T2IError(f"found batches without {lacking[0]}, expected cached features: a graph encodes no captions")
        self.model, self.finish, self.autocast = model, finish, autocast
        self.optimizers = [wrap(optimizer) for optimizer in optimizers]
        for optimizer in optimizers:
            make_capturable(optimizer)
        model.decay_on_device = torch.zeros((), device=model.device)
        self.inputs = _fixed(part, model.text_encoder.max_words if model.text_encoder is not None else 0)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.terms: dict[str, dict[str, Tensor]] = {}
        self._ran, self._side = 0, None if model.device.type == "cpu" else torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, part: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
        """One batch through both networks; the terms of both losses, in memory that the next call overwrites."""
        model = self.model
        for fixed, new in zip(_tensors(self.inputs), _tensors(part), strict=True):
            assert len(fixed) == len(new), "a batch of another size"
            if fixed.shape != new.shape:  # captions with fewer words: the rest is padding
                fixed.zero_()
                fixed = fixed.narrow(1, 0, new.shape[1])
            fixed.copy_(new, non_blocking=True)
        assert model.decay_on_device is not None
        model.decay_on_device.fill_(ema_decay(model.hparams, model.clock + 1, len(part["captions"])))
        if model.device.type == "cuda" and self.graph is None and self._ran >= _WARM_UP:
            self.graph = self._captured()
        self._ran += 1
        if self.graph is not None:
            self.graph.replay()
            model.clock += 1
        else:
            self.terms = self._on_a_side_stream() if model.device.type == "cuda" else self._run()
        return self.terms

    def _run(self) -> dict[str, dict[str, Tensor]]:
        with self.autocast():
            terms = self.model.step(self.finish({**self.inputs}), *self.optimizers)
        # what kept the autograd graph of a batch alive would keep its stream's nodes until the capture
        return {network: {name: x.detach() for name, x in found.items()} for network, found in terms.items()}

    def _on_a_side_stream(self) -> dict[str, dict[str, Tensor]]:
        """As torch asks of the batches before a capture."""
        usual, side = torch.cuda.current_stream(), self._side
        assert side is not None
        side.wait_stream(usual)
        with torch.cuda.stream(side):
            terms = self._run()
        usual.wait_stream(side)
        return terms

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph, clock = torch.cuda.CUDAGraph(), self.model.clock
        if self.model.rng is not None:
            graph.register_generator_state(self.model.rng)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a thread gathers and pins the next batch
            self.terms = self._run()
        self.model.clock = clock  # a capture computes nothing
        return graph


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Let an Adam read rate and step from its device, with or without state; the numbers stay the same."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["lr"], group["capturable"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device), True
        for state in (optimizer.state[p] for p in group["params"] if p in optimizer.state):
            state["step"] = state["step"].to(device)


def _fixed(value: Any, max_words: int) -> Any:
    """A copy of nested tensors; word features and masks are as long as the longest caption may be."""
    if hasattr(value, "packed"):  # a plan
        return replace(value, packed=value.packed.clone())
    if isinstance(value, TextFeatures):
        words = [x if x is None else _longest(x, max_words) for x in value[1:]]
        return TextFeatures(value.sentence.clone(), *words)
    if isinstance(value, dict):
        apart = ("words", "wrong_words")  # features and mask, before ``finish`` joins them with sentences
        return {
            key: tuple(_longest(x, max_words) for x in part) if key in apart else _fixed(part, max_words)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_fixed(part, max_words) for part in value]
    return value.clone() if isinstance(value, Tensor) else value


def _longest(x: Tensor, max_words: int) -> Tensor:
    return x.new_zeros(len(x), max(max_words, x.shape[1]), *x.shape[2:])


def _tensors(value: Any) -> Iterator[Tensor]:
    """Nested tensors, always in the same order."""
    if isinstance(value, Tensor):
        yield value
    elif hasattr(value, "packed"):
        yield value.packed
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _tensors(value[key])
