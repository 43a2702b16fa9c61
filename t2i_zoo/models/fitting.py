"""Whether the weights of a file fit a model that starts from them, and the options that would make them fit."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from t2i_zoo.errors import T2IError

_GENERATOR, _AVERAGE, _DISCRIMINATOR = "generator.", "generator_ema.", "discriminator."
_LEAST = 0.1  #: share of the generator's numbers; growing it by a few sizes adds less than it has
#: what networks are built by; a discriminator's own count only where the file has one
_SHAPING = (
    "architecture", "variant", "stage", "branches", "large", "generator_width", "least_channels", "condition_dim",
    "projection_dim", "residual_blocks", "late_residual_blocks", "ca_activation", "legacy_mask", "batch_stats",
    "noise_dim", "backbone", "layer", "rnn", "dim", "word_dim", "cnn_dim", "first_channels", "second_channels",
    "image_projection", "embed_dim", "hidden_dim", "uni_dim", "bi_dim", "text_encoder", "image_size",
)  # fmt: skip
_JUDGING = ("light_discriminator", "discriminator_width", "discriminator_widths", "third_activation", "text_norm")
_FILES = ("assets", "path", "model", "vocabulary", "expansion", "captions")  # of an encoder, which may have moved


def check_fit(
    model: Any,
    found: Mapping[str, Tensor],
    parts: Sequence[str],
    path: Path,
    origin: str | None,
    options: Mapping[str, Any],
) -> list[str]:
    """Compare the weights of a file with those of a model that is to start from them.

    A model may have more than the file: a discriminator, or blocks that a larger generator adds. A generator that loses
    weights of the file, or gets next to none of its own, has other options: it would train as if from the beginning.

    Args:
        model: with its ``hparams``.
        found: weights by name.
        parts: the beginnings of the names that are taken.
        path: of the file.
        origin: class that the file was trained as, ``package.module.Class`` or a name in ``MODELS``, if it says so.
        options: that the file was trained with, as far as it says.

    Returns:
        What a user should know of weights that fit: one sentence each.

    Raises:
        T2IError: they do not fit; with the options to add.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(tuple(parts))}
    fitting = {name for name in own if name in found and own[name].shape == found[name].shape}
    judged = any(name.startswith(_DISCRIMINATOR) for name in found)
    other = _other_options(model, options, _SHAPING + _JUDGING if judged else _SHAPING)
    if reason := _misfit(model, own, found, fitting, parts):
        kind = type(model).__name__
        remedy = "give the model the same widths, text encoder and image size"
        if origin and not _is_of(type(model), origin):
            remedy = f"it holds a {origin.rpartition('.')[2]}, so give the file of a {kind}"
        elif other:
            remedy = f"it was trained with {_flags(options, other)}, so add that"
        raise T2IError(f"--model.weights {path}{reason}: {remedy}")
    if not fitting:
        raise T2IError(f"--model.weights {path} holds no weight of a {type(model).__name__}: give another file")
    said = []
    if other:
        here = _flags(model.hparams, other)
        said.append(f"{path} was trained with {_flags(options, other)}, and this run has {here}")
    for part in (part for part in parts if part != _AVERAGE):
        names = [name for name in own if name.startswith(part)]
        count, what = sum(name not in fitting for name in names), part.rstrip(".")
        if count and count == len(names):
            said.append(f"{path} holds no {what}, which begins anew")
        elif count:
            there = f"{len(names) - count} of the {len(names)} weights of the {what}"
            said.append(f"{path} holds {there}, and the others keep their initial values")
    return said


def _misfit(
    model: Any, own: Mapping[str, Tensor], found: Mapping[str, Tensor], fitting: set[str], parts: Sequence[str]
) -> str:
    """Why the model cannot start from the weights, as what follows the name of their file; empty where it can."""
    kind, networks = type(model).__name__, tuple(part for part in parts if part in (_GENERATOR, _AVERAGE))
    unknown = [name for name in found if networks and name.startswith(networks) and name not in own]
    if unknown := [name for name in unknown if name.startswith(_GENERATOR)] or unknown:
        return f" has {len(unknown)} weights that this {kind} lacks, such as {unknown[0]}"
    if differing := [name for name in own if name in found and name not in fitting]:
        name = differing[0]
        return f": {name} has shape {tuple(found[name].shape)} there and {tuple(own[name].shape)} here"
    sizes = {name: tensor.numel() for name, tensor in own.items() if name.startswith(_GENERATOR)}
    taken = sum(size for name, size in sizes.items() if name in fitting)
    if 0 < taken < _LEAST * sum(sizes.values()):
        return f" holds {taken:,} of the {sum(sizes.values()):,} numbers of this {kind}'s generator"
    return ""


def _is_of(kind: type, origin: str) -> bool:
    """Whether a class is the one that a file names, or derives from it."""
    return any(
        f"{cls.__module__}.{cls.__qualname__}" == origin or cls.__module__ == f"t2i_zoo.models.{origin}.module"
        for cls in kind.__mro__
    )


def _other_options(model: Any, options: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Which of these options the file and the model both have, with other values."""
    both = [name for name in names if name in options and name in model.hparams]
    other = [name for name in both if name != "text_encoder" and options[name] != model.hparams[name]]
    theirs, ours = (_encoder(each.get("text_encoder")) for each in (options, model.hparams))
    if "text_encoder" not in both or theirs["kind"] == ours["kind"] == "precomputed":
        return other
    known = inspect.signature(type(model.text_encoder)).parameters if theirs["kind"] == ours["kind"] else {}
    default = {name: parameter.default for name, parameter in known.items()}
    differs = any({**default, **theirs}.get(name) != {**default, **ours}.get(name) for name in {**theirs, **ours})
    return [*other, "text_encoder"] if differs else other


def _encoder(spec: Any) -> dict[str, Any]:
    """The options of a text encoder, without its files."""
    plain = dict(spec) if isinstance(spec, Mapping) else {"kind": spec or "hashing"}
    return {name: value for name, value in plain.items() if name not in _FILES}


def _flags(options: Mapping[str, Any], names: Sequence[str]) -> str:
    """Options as they are written on a command line."""
    return " ".join(f"--model.{name} {_written(options[name])}" for name in names)


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name}: {_written(each)}" for name, each in value.items() if name != "assets")
        return f'"{{{inner}}}"'
    return value if isinstance(value, str) else json.dumps(value)
