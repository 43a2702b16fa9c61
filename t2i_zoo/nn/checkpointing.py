"""Gradient checkpointing: drop a network's intermediate results and compute them again in the backward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class _Still(AbstractContextManager[None]):
    """Keep the running statistics of a network's batch norms as they are, for the second forward.

    Whether they track statistics at all must not change: the second forward has to save the same tensors as the first.
    """

    def __init__(self, network: nn.Module) -> None:
        self.norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def checkpointed(network: nn.Module, *inputs: Tensor | None) -> Any:
    """Run a network and keep only its inputs for the backward pass: the same results for one more forward.

    The network must draw no random numbers. Batch statistics are counted once, although they are computed twice.
    """
    return checkpoint(
        network,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _Still(network)),
    )
