"""How a paper's official weight files are read and map to our networks; each model's ``official.py`` describes its own.

The conversion itself is ``t2i_zoo.commands.official_states``. A description is pure: names and shapes, no files.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_code, refuse_pointer

State = Mapping[str, Tensor]


class Official(NamedTuple):
    """One official format.

    Attributes:
        model: the model's name in ``MODELS``.
        identify: names the network that a state dict (without ``module.`` prefixes) belongs to, as the path of a
            submodule of our model (``"generator"``, ``"discriminator"``, ``"discriminator.stages.0"``), or None.
        options: from the networks found, by submodule path, the hyperparameters that build a model of their shape,
            ``text_dim`` (length of the sentence embedding) among them where the networks read text, and ``max_words``
            where they read single words.
        prefixes: for the path of a submodule and the model's hyperparameters, pairs of (official prefix, our prefix
            below that submodule). Exactly one fits each key; what follows the prefix is the same on both sides.
        files: official file name of each submodule, for writing, in the order of writing. ``a.pth:netG`` is the entry
            ``netG`` below ``model`` in a file of several networks.
        loose: options of which a model may have other values than its official files tell.
        words: whether words travel along, as ``captions.pickle``; they belong to a network with a word table.
        unused: for the path of a submodule and the model's hyperparameters, the shapes of weights by official key that
            the official network holds and never uses: they are left out in reading, and written as zeros.
        module_prefix: whether official files have ``module.`` before each key, as ``nn.DataParallel`` writes them.
    """

    model: str
    identify: Callable[[State], str | None]
    options: Callable[[Mapping[str, State]], dict[str, Any]]
    prefixes: Callable[[str, Mapping[str, Any]], Sequence[tuple[str, str]]]
    files: Callable[[Mapping[str, Any]], dict[str, str]]
    module_prefix: bool = False
    loose: tuple[str, ...] = ("text_encoder",)
    words: bool = False
    unused: Callable[[str, Mapping[str, Any]], Mapping[str, tuple[int, ...]]] = lambda path, hparams: {}

    def names(self, network: str, hparams: Mapping[str, Any], own: State) -> dict[str, str]:
        """Our keys below ``network`` by official key, for every key of ``own``, which has them with ``network``.

        Raises:
            T2IError: if the format has no place for one of them.
        """
        pairs, found = self.prefixes(network, hparams), dict[str, str]()
        for path, tensor in own.items():
            key = path.removeprefix(f"{network}.")
            fitting = [theirs + key.removeprefix(ours) for theirs, ours in pairs if key.startswith(ours)]
            if not fitting:
                raise no_place(path, tensor)
            assert len(fitting) == 1, f"{path} is named {fitting}"
            assert fitting[0] not in found, f"{path} and {found[fitting[0]]} are both named {fitting[0]}"
            found[fitting[0]] = path
        return found


class Weights(dict[str, Tensor]):
    """An official state dict with its file name, which it names when a description asks for a key that it lacks."""

    def __init__(self, file: str, state: State) -> None:
        super().__init__(state)
        self.file = file

    def __missing__(self, key: str) -> Tensor:
        raise T2IError(f"{self.file} lacks {key}, from which the width of the networks is read{_near(key, self)}")

    def compare(self, expected: Mapping[str, tuple[str, Tensor]]) -> None:
        """Raise for the first weight that has another shape, is missing, or is not ``expected``.

        Args:
            expected: by official key, our key and a tensor of our shape. Counters of batches may be missing.
        """
        for key, (ours, tensor) in expected.items():
            if key in self and self[key].shape != tensor.shape:
                raise T2IError(
                    f"{self.file}: {key} has shape {_shape(self[key])} there, and {ours} has {_shape(tensor)} here: "
                    "give files of one training run"
                )
        unknown = {key: tensor for key, tensor in self.items() if key not in expected}
        for key, (ours, tensor) in expected.items():
            if key not in self and not key.endswith("num_batches_tracked"):
                raise T2IError(
                    f"{self.file} lacks {key} of shape {_shape(tensor)}, which is {ours} here{_near(key, unknown)}"
                )
        for key, tensor in unknown.items():
            raise T2IError(f"{self.file}: {key} of shape {_shape(tensor)} has no place in our network")


def read_official(path: Path) -> dict[str, dict[str, Tensor]]:
    """The state dict of each network in a .pth of any age, without ``module.`` before its keys.

    No code in the file is run. One state dict may be the value of ``state_dict`` in a larger one. Several, by names of
    their own, may be that of ``model``.

    Returns:
        By the file's name, with that of the network behind it where there are several: ``a.pth:netG``.

    Raises:
        T2IError: where there is no such file, or anything else is in it.
    """
    if not path.is_file():
        raise T2IError(f"{path} is a folder: give the files in it" if path.is_dir() else f"found no file {path}")
    refuse_pointer(path)
    with path.open("rb") as file:
        if file.read(256).lstrip().startswith(b"<"):
            raise T2IError(f"{path} is a web page, not the file that it offers: download it again in a browser")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can raise any kind
        refuse_code(path, error)
        raise T2IError(
            f"{path} is no readable .pth file ({type(error).__name__}): unpack it if it is an archive, or download "
            "it again"
        ) from error
    if isinstance(found, dict) and isinstance(networks := found.get("model"), dict) and networks:
        return {f"{path}:{name}": _state_dict(f"{path}:{name}", state) for name, state in networks.items()}
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    return {str(path): _state_dict(str(path), found)}


def _state_dict(path: str, found: Any) -> dict[str, Tensor]:
    """What is at a place in a file, if it is a state dict; without ``module.`` before its keys."""
    if not isinstance(found, dict) or not found:
        raise T2IError(f"{path} holds a {type(found).__name__}, expected the state dict of one network")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise T2IError(f"{path} has a {type(value).__name__} at {key!r}, expected the state dict of one network")
    while all(key.startswith("module.") for key in found):
        found = {key.removeprefix("module."): value for key, value in found.items()}
    return {key: value.detach() for key, value in found.items()}


def count_keys(state: State, pattern: str, first: int = 1) -> int:
    """How many keys of the pattern there are, numbered from ``first`` on without a gap."""
    number = first
    while pattern.format(number) in state:
        number += 1
    return number - first


def no_place(ours: str, tensor: Tensor) -> T2IError:
    """The error for a weight of ours that a format does not know."""
    return T2IError(f"the official networks have no place for {ours} of shape {_shape(tensor)}")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _near(key: str, state: State) -> str:
    close = difflib.get_close_matches(key, list(state), 1)
    return f"; is {close[0]} of shape {_shape(state[close[0]])} meant?" if close else ""
