"""The option ``compile``: which parts of the networks ``torch.compile`` takes, and when they run without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from t2i_zoo.nn import ConditionalDiscriminator


def compile_networks(*networks: nn.Module, backend: str) -> None:
    """Compile networks in place, each part when it is first called: names and weights in a state dict stay the same.

    Shapes are static: another batch size is compiled again.
    """
    # All parts count as one function of Lightning's and torch's making, of which each mode of each part is a variant.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for part in (part for network in networks for part in parts(network)):
        if not compiled(part):
            part.compile(backend=backend, dynamic=False)


def parts(network: nn.Module) -> Iterator[nn.Module]:
    """The largest parts that are called as modules and hold others; a layer alone gains nothing.

    Losses call the methods of a discriminator, never itself; a checkpointed network is compiled between its
    checkpoints, through which a compiler cannot see.
    """
    called = type(network).forward is not nn.Module.forward and not isinstance(network, ConditionalDiscriminator)
    if called and not getattr(network, "checkpointing", False):
        yield from (network for _ in [*network.children()][:1])
        return
    for child in network.children():
        yield from parts(child)


def compiled(module: nn.Module) -> bool:
    """Whether a module was compiled, in place or by ``torch.compile``."""
    return isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None


def uncompiled(options: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Run compiled parts as they are written: compiled code has no second derivative, and validation other shapes."""
    return nullcontext() if options["compile"] == "none" else torch.compiler.set_stance("force_eager")
