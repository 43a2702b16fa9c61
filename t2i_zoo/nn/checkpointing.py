"""Gradient checkpointing: forget what lies inside a network and compute it again in the backward pass."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class _Still(AbstractContextManager[None]):
    """Batch norms of a network leave their running statistics alone; they normalise as ever.

    Whether they keep statistics at all must not change: the second forward has to save the same tensors as the first.
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
    """Run a network and keep its inputs alone: the same results as without, for one forward more.

    The network must draw no random numbers. Batch statistics count once, although they are computed twice.
    """
    return checkpoint(
        network,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _Still(network)),
    )
