"""How a paper's official weight files map to our networks; each model's ``official.py`` describes its own.

The conversion itself is ``t2i_zoo.commands.convert``. A description is pure: names and shapes, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

State = Mapping[str, Tensor]


class Official(NamedTuple):
    """One official format.

    Attributes:
        model: the model's name in ``MODELS``.
        identify: names the network that a state dict (without ``module.`` prefixes) belongs to, as the path of a
            submodule of our model (``"generator"``, ``"discriminator"``, ``"discriminator.stages.0"``), or None.
        options: from the networks found, by submodule path, the hyperparameters that build a model of their shape,
            ``text_dim`` (length of the sentence embedding) among them where the networks read text.
        prefixes: for the path of a submodule and the model's hyperparameters, pairs of (official prefix, our prefix
            below that submodule). Exactly one fits each key; what follows the prefix is the same on both sides.
        files: official file name of each submodule, for writing; ``{path}`` order is the order of writing.
    """

    model: str
    identify: Callable[[State], str | None]
    options: Callable[[Mapping[str, State]], dict[str, Any]]
    prefixes: Callable[[str, Mapping[str, Any]], Sequence[tuple[str, str]]]
    files: Callable[[Mapping[str, Any]], dict[str, str]]
