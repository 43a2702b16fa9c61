"""State dicts of official weight files to ours and back; ``t2i_zoo.commands.convert`` reads and writes the files."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.models import model_class
from t2i_zoo.models.official import Official, State, Weights, no_place

#: each format and the module whose ``OFFICIAL`` describes it
FORMATS = {
    "stackgan_v1": "t2i_zoo.models.stackgan.official",
    "stackgan_v2": "t2i_zoo.models.stackganpp.official",
    "aelnouby_gancls": "t2i_zoo.models.gancls.official",
    "attngan_damsm": "t2i_zoo.models.damsm.official",
    "attngan": "t2i_zoo.models.attngan.official",
    "mirrorgan": "t2i_zoo.models.mirrorgan.official",
    "dmgan": "t2i_zoo.models.dmgan.official",
    "dfgan": "t2i_zoo.models.dfgan.official",
    "dfgan_preprint": "t2i_zoo.models.dfgan.official",
    "mirrorgan_stream": "t2i_zoo.models.stream.official",
}


def find_format(name: str) -> Official:
    """The description of a format, by its name."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(FORMATS)}"
        raise T2IError(f"found no format {name!r}: {hint}")
    found: Official = importlib.import_module(FORMATS[name]).OFFICIAL[name]
    return found


def to_ours(name: str, files: Mapping[str, State]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert official state dicts to ours.

    Args:
        name: of the format.
        files: the state dict of each file, without ``module.``; file names appear in errors.

    Returns:
        The hyperparameters of a model of that shape, and its weights by their names in its state dict: those of the
        given networks, with zeros for each ``num_batches_tracked`` that is missing.

    Raises:
        T2IError: for a file that belongs to no network of the format, two files of one network, or a weight that is
            missing, unknown or of another shape, with its name and shape on both sides.
    """
    official, networks = find_format(name), dict[str, Weights]()
    for file, state in files.items():
        network = official.identify(state)
        if network is None:
            raise T2IError(f"{file} holds no network of {name}: its first weights are {', '.join(list(state)[:3])}")
        if network in networks:
            raise T2IError(f"{networks[network].file} and {file} both hold the {network}: give one of them")
        networks[network] = Weights(file, state)
    options = _options(name, official, networks)
    if negative := [f"{key} {value}" for key, value in options.items() if isinstance(value, int) and value < 0]:
        raise _misshapen(name, networks, negative[0])
    try:
        with torch.device("meta"):  # shapes alone: nothing is initialised
            model = model_class(official.model)(**options)
    except RuntimeError as error:
        raise _misshapen(name, networks, error) from error
    hparams, own, result = dict(model.hparams), model.state_dict(), dict[str, Tensor]()
    for network, weights in networks.items():
        names = official.names(network, hparams, _below(network, own))
        for key, shape in official.unused(network, hparams).items():
            if key in weights and weights[key].shape == shape:
                del weights[key]
        weights.compare({key: (ours, own[ours]) for key, ours in names.items()})
        for key, ours in names.items():
            value = weights[key] if key in weights else torch.zeros(())  # a counter, as compared
            result[ours] = value.to(own[ours].dtype, copy=True, memory_format=torch.contiguous_format)
    return hparams, result


def to_official(name: str, hparams: Mapping[str, Any], state: State, ema: bool = True) -> dict[str, dict[str, Tensor]]:
    """Convert our weights to official state dicts, without ``module.``, by the name of the official file.

    Args:
        name: of the format.
        hparams: of the model.
        state: its state dict, or that of some of its networks.
        ema: use the moving average of the generator's weights, if there is one.

    Raises:
        T2IError: where the format cannot hold a weight of the model, or would be read as another model.
    """
    official, result = find_format(name), dict[str, dict[str, Tensor]]()
    left: dict[str, Tensor] = {}
    networks: dict[str, Weights] = {}
    try:
        files = official.files(hparams)
        for root in dict.fromkeys(network.partition(".")[0] for network in files):
            left |= _below(root, state)
        if ema:
            left |= {f"generator.{key[14:]}": tensor for key, tensor in _below("generator_ema", state).items()}
        for network, file in files.items():
            if own := {key: left.pop(key) for key in _below(network, left)}:
                names = official.names(network, hparams, own)
                result[file] = {key: own[ours] for key, ours in names.items()}
                some = next(iter(result[file].values()))
                for key, shape in official.unused(network, hparams).items():
                    result[file][key] = some.new_zeros(shape)
                networks[network] = Weights(file, result[file])
        if left:
            raise no_place(*next(iter(left.items())))
        if not result:
            raise T2IError(f"it holds none of {', '.join(files)}")
        for option, value in _options(name, official, networks).items():
            if option not in official.loose and hparams.get(option, value) != value:
                raise T2IError(f"found {option} {hparams[option]!r}, and the official code has {value!r}")
        to_ours(name, result)
    except T2IError as error:
        raise T2IError(f"{name} cannot hold this model: {error}") from error
    return result


def _options(name: str, official: Official, networks: Mapping[str, Weights]) -> dict[str, Any]:
    """The options of a model of the networks' shapes; hashed words replace the text encoder."""
    try:
        options = dict(official.options(networks))
    except (IndexError, ValueError, ArithmeticError) as error:
        raise _misshapen(name, networks, error) from error
    read = {"max_words": options.pop("max_words")} if "max_words" in options else {}
    if (dim := options.pop("text_dim", None)) is not None:
        options["text_encoder"] = {"kind": "hashing", "dim": dim, **read} if dim else "none"
    return options


def _misshapen(name: str, networks: Mapping[str, Weights], reason: object) -> T2IError:
    files = " and ".join(weights.file for weights in networks.values())
    return T2IError(f"{files}: found shapes that no network of {name} has ({reason})")


def _below(network: str, state: State) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key.startswith(f"{network}.")}
