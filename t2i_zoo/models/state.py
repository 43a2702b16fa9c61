"""Checkpoints and weight files: reading them, fine-tuning from them, and the random states of every rank."""

from __future__ import annotations

import hashlib
import inspect
import json
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_code
from t2i_zoo.models.fitting import check_fit
from t2i_zoo.paths import find_weights
from t2i_zoo.version import __version__

FORMAT = 1  #: of a checkpoint; raise it if an older version would read a file wrongly


def model_key(model: nn.Module) -> str:
    """The class as ``package.module.Class``, under which ``load_model`` finds it."""
    return f"{type(model).__module__}.{type(model).__qualname__}"


def digest(model: nn.Module) -> str:
    """Sixteen hexadecimal digits of all weights of a model.

    Checkpoints hold it, so it stays another hash than ``vision.network.weights_hash``, which stored results hold.
    """
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def check_options(path: Path, checkpoint: dict[str, Any], cls: type) -> None:
    """Raise for a checkpoint with a hyperparameter that its model does not have in this version.

    Raises:
        T2IError: with the name and the version that wrote the file.
    """
    known = {name for c in cls.__mro__ if "__init__" in vars(c) for name in inspect.signature(c).parameters}
    strange = [name for name in checkpoint["hyper_parameters"] if name not in known and not name.startswith("_")]
    if strange:
        version = checkpoint["t2i_zoo"].get("version")
        raise T2IError(
            f"{path} holds the option {strange[0]!r}, which {cls.__name__} does not have: it was written by t2i-zoo "
            f"{version or '0.1 or another version'} and this is {__version__}, so pip install --upgrade t2i-zoo"
        )


def check_finite(tensors: Mapping[str, Any], subject: str) -> None:
    """Raise if a tensor holds NaN or infinity; ``subject`` is said to hold it."""
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise T2IError(
                f"{subject} holds {name} with NaN or infinite values, expected finite ones: the training diverged, so "
                "go back to an earlier checkpoint, with a lower --model.learning_rate"
            )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours without running any code in it.

    Raises:
        T2IError: if the file is missing, unreadable, not a checkpoint of this package, or not finite.
    """
    if not path.is_file():
        raise T2IError(f"found no checkpoint at {path}: give the .ckpt file or the folder of a run")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own warnings about old or foreign files; errors say what matters
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        refuse_code(path, error)
        raise T2IError(f"{path} is not a readable checkpoint ({type(error).__name__}): give another file") from error
    if not isinstance(checkpoint, dict) or "t2i_zoo" not in checkpoint:
        raise T2IError(f"{path} was not written by t2i-zoo: give a .ckpt file of one of its runs")
    about = checkpoint["t2i_zoo"]
    if about.get("format", 1) > FORMAT:
        raise T2IError(
            f"{path} was written by t2i-zoo {about.get('version')} and this is {__version__}: "
            "pip install --upgrade t2i-zoo"
        )
    check_finite(checkpoint.get("state_dict", {}), str(path))
    return checkpoint


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a .safetensors file and the header of ``t2i-zoo``, which is empty in other files.

    Raises:
        T2IError: if the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("t2i_zoo", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise T2IError(f"{path} is not a readable .safetensors file ({error}): give another file") from error


def read_words(path: str | Path) -> list[str]:
    """The words in a run, a checkpoint or a converted file, in the order of its embedding table."""
    place = find_weights(path)
    about = read_weights(place)[1] if place.suffix == ".safetensors" else read_checkpoint(place)["t2i_zoo"]
    words: list[str] = about.get("words", [])
    return words


def load_networks(model: Any, path: Path, parts: tuple[str, ...]) -> None:
    """Start ``model`` from the networks of another run: every weight whose name and shape agree; see ``check_fit``.

    Args:
        model: whose weights are overwritten.
        path: a .ckpt of ours, or .safetensors with names such as ``generator.layers.0.weight``.
        parts: what is taken: the beginnings of names, such as ``generator.``.

    Raises:
        T2IError: if the weights do not fit, with the options that they were trained with.
    """
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise T2IError(f"found no weights at {path}: correct --model.weights")
        found, about = read_weights(path)
        about = about if isinstance(about, dict) else {}  # of a foreign file
        origin, options = about.get("class") or about.get("model"), about.get("hparams") or {}
    else:
        checkpoint = read_checkpoint(path)
        found, options = checkpoint["state_dict"], checkpoint.get("hyper_parameters", {})
        origin = checkpoint["t2i_zoo"].get("model")
    if not any(name.startswith("generator_ema.") for name in found):
        found |= {f"generator_ema.{k[10:]}": v for k, v in found.items() if k.startswith("generator.")}
    for remark in check_fit(model, found, parts, path, origin, options):
        warnings.warn(remark, stacklevel=2)
    own = model.state_dict()
    taken = {name: tensor for name, tensor in found.items() if name in own and name.startswith(parts)}
    model.load_state_dict(taken, strict=False)


def random_states(rng: torch.Generator | None) -> dict[str, Any]:
    """All random states of this process, as values that load with ``weights_only=True``."""
    numpy_state: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = numpy_state
    return {
        "python": random.getstate(),
        "numpy": (
            str(kind),
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "noise": None if rng is None else rng.get_state(),
    }


def gather_random_states(rng: torch.Generator | None) -> list[dict[str, Any]]:
    """The random states of all ranks, in rank order; called on every rank."""
    own = random_states(rng)
    if not (dist.is_available() and dist.is_initialized()):
        return [own]
    states: list[dict[str, Any]] = [{}] * dist.get_world_size()
    dist.all_gather_object(states, own)
    return states


def restore_random_states(states: list[dict[str, Any]], rank: int, rng: torch.Generator | None) -> None:
    """Restore the states of ``rank``; a rank that the saved run did not have keeps its seed, with a warning."""
    if rank >= len(states):
        warnings.warn(f"the checkpoint holds {len(states)} ranks, rank {rank} starts from its seed", stacklevel=2)
        return
    state = states[rank]
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, numbers, position, has_gauss, value = state["numpy"]
    np.random.set_state((kind, numbers.numpy().astype(np.uint32), position, has_gauss, value))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    if state["noise"] is not None and rng is not None:
        if state["noise"].shape == rng.get_state().shape:
            rng.set_state(state["noise"].cpu())
        else:
            warnings.warn(
                "the checkpoint's noise was drawn on another kind of device, so this run draws other noise",
                stacklevel=2,
            )
