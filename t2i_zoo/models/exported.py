"""A generator in one small file: averaged weights in half precision, with everything that encodes a sentence.

The file is .safetensors: tensors and one JSON, so that reading it runs no code. It holds no
discriminator, optimizers or training captions. The averaged generator is called ``generator`` in it, as in files of
``t2i-zoo convert``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from t2i_zoo.batch import BatchNeeds
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.models.state import model_key
from t2i_zoo.signatures import options_of
from t2i_zoo.text import build_text_encoder
from t2i_zoo.version import __version__

if TYPE_CHECKING:
    from t2i_zoo.models.zoo import ZooModule

FORMAT = 1  #: raise it if an older version would read a file wrongly
_LIVE, _AVERAGE = "generator.", "generator_ema."
_TRAINING = ("discriminator.", "lecam.", "augment_probability")  # weights and buffers that drawing does not need
_FOLDERS = ("path", "model", "vocabulary", "expansion", "captions")  #: an encoder's arguments that may name files


def pack(model: ZooModule, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The content of a model's file.

    Args:
        model: a GAN in float32.
        name: of the class: the zoo's, or ``package.module.Class`` of your own.

    Returns:
        Weights on the CPU, in float16 except for integers and numbers too large for it; and the header, plain values.

    Raises:
        T2IError: if a weight is NaN or infinite, or the text encoder is a table of captions.
    """
    spec = model.hparams["text_encoder"]
    spec = {"kind": spec} if isinstance(spec, str) else dict(spec)
    if spec["kind"] == "precomputed":
        raise T2IError(
            "found a model with the text encoder precomputed, a table of its captions, expected one that reads any "
            "sentence: train with another --model.text_encoder to export"
        )
    tensors = {}
    for key, tensor in model.state_dict().items():
        if not key.startswith((_LIVE, *_TRAINING)):
            renamed = _LIVE + key.removeprefix(_AVERAGE) if key.startswith(_AVERAGE) else key
            tensors[renamed] = _halved(key, tensor)
    assert model.text_encoder is not None
    assets = model.text_encoder.assets()
    if assets:  # they and the weights rebuild the encoder, so its path is not needed
        spec |= {key: Path(spec[key]).name for key in _FOLDERS if isinstance(spec.get(key), str)}
        spec["assets"] = assets
    # the discriminator stays behind, and a projected one would ask for its network
    unneeded = (*model.starting_points, *model.builds_on, "projected")
    files = {option: None for option in unneeded if option in model.hparams}
    header = {
        "format": FORMAT,
        "model": name,
        "class": model_key(model),
        "hparams": {**model.hparams, **files, "text_encoder": spec},
        "clock": model.clock,
        "vocabulary": sorted(model.vocabulary),
        "versions": {"t2i_zoo": __version__, "torch": torch.__version__},
    }
    return tensors, header


def _halved(name: str, tensor: Tensor) -> Tensor:
    """A copy in half precision, unless a number is too large for it."""
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor.clone()
    if not torch.isfinite(tensor).all():
        raise T2IError(f"found {name} with NaN or infinite values, expected finite ones: export an earlier checkpoint")
    half = tensor.to(torch.float16, copy=True, memory_format=torch.contiguous_format)
    return half if torch.isfinite(half).all() else tensor.float().contiguous().clone()


def write(tensors: dict[str, Tensor], header: str, path: Path) -> None:
    """Write the file whole; ``header`` is the JSON."""
    from safetensors.torch import save

    with replacing(path) as partial:
        partial.write_bytes(save(tensors, {"t2i_zoo": header}))  # save_file would hide the file from other users


def check_header(path: Path, about: dict[str, Any]) -> None:
    """Raise for a file that this version cannot read, or whose header is malformed."""
    found = about["format"]
    if found != FORMAT:
        newer = isinstance(found, int) and found > FORMAT
        raise T2IError(
            f"{path} is an export of format {found!r} and t2i-zoo {__version__} reads {FORMAT}: "
            + ("pip install --upgrade t2i-zoo" if newer else "export it again")
        )
    kinds = {"model": str, "class": str, "hparams": dict, "clock": int, "vocabulary": list}
    if wrong := [key for key, kind in kinds.items() if not isinstance(about.get(key), kind)]:
        raise T2IError(f"{path} is an export without a readable {wrong[0]!r} in its header: export it again")


class ExportedGenerator(nn.Module):
    """The generator of a file with its text encoder; mixed with the drawing half of its model, it draws as that does.

    It has neither a discriminator nor losses, and needs no Lightning. Training goes on from a file by
    ``--model.weights``.

    Args:
        hparams: the options of the model by name, all of them.
    """

    generator: nn.Module
    build_generator: Callable[[], nn.Module]
    prepare_drawing: Callable[[], None]
    needs: BatchNeeds

    def __init__(self, hparams: dict[str, Any]) -> None:
        super().__init__()
        self.hparams, self.clock = hparams, 0
        self.vocabulary: frozenset[str] = frozenset()
        self.text_encoder = build_text_encoder(hparams["text_encoder"] or "hashing")
        self.needs = replace(self.needs, sizes=(hparams["image_size"],))
        self.prepare_drawing()
        self.generator = self.build_generator()

    @property
    def generator_ema(self) -> nn.Module:
        """The generator, whose weights are averages."""
        return self.generator

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device


def rebuild(kind: str, path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> Any:
    """The generator of a file of one of the zoo's models, in float32.

    Args:
        kind: import path of the model's class, whose drawing half is in the module ``drawing`` beside it.
        path: of the file, for errors.
        tensors: the file's weights.
        about: the file's header.

    Raises:
        T2IError: if header and weights do not fit together.
    """
    package, _, name = kind.rpartition(".")

    def make(given: dict[str, Any]) -> Any:
        # a file of an earlier version lacks the options that were added since, whose defaults are as it was
        options = {each.name: ast.literal_eval(each.default) for each in options_of(kind) if each.default}
        if strange := given.keys() - options:
            raise KeyError(f"the option {min(strange)} is unknown")
        half = resolve_name(f"{package}.drawing.Half")
        cls = type(name, (half, ExportedGenerator), {"__module__": f"{package}.module"})
        return cls(options | given)

    return _filled(make, {}, path, tensors, about)


def rebuild_own(cls: type[Any], path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> Any:
    """The same for a class of your own: the whole model, both of whose generators get the weights."""
    averages = {_AVERAGE + key.removeprefix(_LIVE): x for key, x in tensors.items() if key.startswith(_LIVE)}
    return _filled(lambda given: cls(**given), averages, path, tensors, about)


def _filled(
    make: Callable[[dict[str, Any]], Any],
    averages: dict[str, Tensor],
    path: Path,
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> Any:
    try:
        model = make({k: v for k, v in about["hparams"].items() if not k.startswith("_")})
        missing, unexpected = model.load_state_dict({**tensors, **averages}, strict=False)
        if odd := [key for key in (*missing, *unexpected) if not key.startswith(_TRAINING)]:
            raise KeyError(f"{odd[0]} is {'missing' if odd[0] in missing else 'unknown'}")
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, T2IError) as error:
        reason = " ".join(str(error).split())[:200]
        raise T2IError(f"{path} holds weights that do not fit its own header ({reason}): export it again") from error
    model.clock = about["clock"]
    model.remember(map(str, about["vocabulary"]))
    return model
