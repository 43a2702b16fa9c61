"""The models of the zoo, and loading one from a checkpoint.

Classes are imported on first use, so that listing the zoo does not wait for torch.
"""

from __future__ import annotations

import pkgutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from t2i_zoo.errors import T2IError
from t2i_zoo.paths import find_weights

if TYPE_CHECKING:
    from t2i_zoo.models.zoo import ZooModule

Kind = Literal["gan", "encoder", "captioner", "classifier"]


class Entry(NamedTuple):
    """One model: the import path of its class, one line about it, and its kind."""

    path: str
    about: str
    kind: Kind = "gan"


MODELS: dict[str, Entry] = {
    "skipthought": Entry(
        "t2i_zoo.models.skipthought.SkipThought",
        "skip-thought vectors, a text encoder trained on captions alone (Kiros et al. 2015, arXiv 1506.06726)",
        "encoder",
    ),
    "charcnnrnn": Entry(
        "t2i_zoo.models.charcnnrnn.CharCNNRNN",
        "char-CNN-RNN, the text encoder of GAN-CLS and StackGAN (Reed et al. 2016, arXiv 1605.05395)",
        "encoder",
    ),
    "gancls": Entry(
        "t2i_zoo.models.gancls.GANCLS",
        "GAN-CLS, GAN-INT and GAN-INT-CLS, 64 px (Reed et al. 2016, arXiv 1605.05396)",
    ),
    "stackgan": Entry(
        "t2i_zoo.models.stackgan.StackGAN",
        "StackGAN: 64 px, then 256 px in a second run (Zhang et al. 2017, arXiv 1612.03242)",
    ),
    "tacgan": Entry(
        "t2i_zoo.models.tacgan.TACGAN",
        "TAC-GAN: also classifies its images, 128 px (Dash et al. 2017, arXiv 1703.06412)",
    ),
    "stackganpp": Entry(
        "t2i_zoo.models.stackganpp.StackGANPlusPlus",
        "StackGAN++: 64, 128 and 256 px jointly, with text or without (Zhang et al. 2017, arXiv 1710.10916)",
    ),
    "damsm": Entry(
        "t2i_zoo.models.damsm.DAMSM",
        "DAMSM, image and text encoders for AttnGAN, MirrorGAN, DM-GAN and DF-GAN (Xu et al. 2018, arXiv 1711.10485)",
        "encoder",
    ),
    "attngan": Entry(
        "t2i_zoo.models.attngan.AttnGAN",
        "AttnGAN: attends to words, 64, 128 and 256 px jointly (Xu et al. 2018, arXiv 1711.10485)",
    ),
    "stream": Entry(
        "t2i_zoo.models.stream.STREAM",
        "STREAM, MirrorGAN's caption writer (Qiao et al. 2019, arXiv 1903.05854)",
        "captioner",
    ),
    "mirrorgan": Entry(
        "t2i_zoo.models.mirrorgan.MirrorGAN",
        "MirrorGAN: its images can be captioned again, 64, 128 and 256 px (Qiao et al. 2019, arXiv 1903.05854)",
    ),
    "dmgan": Entry(
        "t2i_zoo.models.dmgan.DMGAN",
        "DM-GAN: a memory of the words refines the image, 64, 128 and 256 px (Zhu et al. 2019, arXiv 1904.01310)",
    ),
    "dfgan": Entry(
        "t2i_zoo.models.dfgan.DFGAN",
        "DF-GAN: one stage that fuses the text in every block, 256 px (Tao et al. 2022, arXiv 2008.05865)",
    ),
    "classifier": Entry(
        "t2i_zoo.models.classifier.Classifier",
        "a classifier of the data's own classes, for metrics that look at generated images",
        "classifier",
    ),
}


def list_models(kind: Kind | None = None) -> list[str]:
    """Names of all models, or of one kind, in the order of their papers."""
    return [name for name, entry in MODELS.items() if kind in (None, entry.kind)]


def model_class(name: str) -> type[ZooModule]:
    """The class of a model of the zoo."""
    if name not in MODELS:
        raise T2IError(f"found no model named {name!r}: expected one of {', '.join(MODELS)}")
    found: type[ZooModule] = pkgutil.resolve_name(MODELS[name].path)
    return found


def load_model(path: str | Path, device: str = "cpu", local_files_only: bool = False) -> Any:
    """Rebuild any model of the zoo from a checkpoint, ready to ``generate`` and to encode new sentences.

    A ``ZooModule``, or from a file of ``t2i-zoo export`` and by the name of a generator that comes with the package an
    ``ExportedGenerator``, which draws without Lightning.

    Args:
        path: a .ckpt file, the folder of a run, a .safetensors file of ``t2i-zoo export`` or ``t2i-zoo convert``, or
            the name of a generator that comes with the package, or ``hf://user/name@revision`` on the Hugging Face hub.
        device: where to put it, such as ``"cuda"``.
        local_files_only: download nothing from the hub; what its cache holds is still found.

    Raises:
        T2IError: if the file is missing, not a checkpoint of ours, or of a class that is not imported, or if there is
            no such device.
    """
    from t2i_zoo.models.state import check_options, model_key, read_checkpoint

    _check_device(device)
    place = find_weights(path, local_files_only)
    if place.suffix == ".safetensors":
        return _load_safetensors(place).to(device).eval()
    checkpoint = read_checkpoint(place)
    key = checkpoint["t2i_zoo"]["model"]
    cls = _class_of(key)
    check_options(place, checkpoint, cls)
    hparams: dict[str, Any] = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
    # the files that a run started from or looks at may be gone
    absent = (*cls.starting_points, *cls.builds_on)
    hparams |= {name: None for name in absent if name in hparams}
    model = cls(**hparams)
    assert model_key(model) == key
    model.on_load_checkpoint(checkpoint)
    model._resumed_states = None  # training it on is a new run with its own seed
    model.load_state_dict(checkpoint["state_dict"])
    return model.to(device).eval()


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise T2IError(f"found no device {device!r}, expected cpu or one of this machine such as cuda") from None


def _class_of(key: str) -> type[ZooModule]:
    """The class that a checkpoint or an exported file names; your own classes are known once they are imported."""
    from t2i_zoo.models.zoo import ZooModule

    for name in MODELS:
        if key.startswith(f"{_package(name)}."):
            model_class(name)
    pending: list[type[ZooModule]] = [ZooModule]
    while pending:
        cls = pending.pop()
        if f"{cls.__module__}.{cls.__qualname__}" == key:
            return cls
        pending += cls.__subclasses__()
    raise T2IError(f"the checkpoint was made by {key}, which is not imported: import it before load_model")


def _package(name: str) -> str:
    return MODELS[name].path.rpartition(".")[0]


def name_of(model: object) -> str | None:
    """The name of a model's class in ``MODELS``; None for your own classes, subclasses included."""
    cls = type(model)
    path = f"{cls.__module__.removesuffix('.module')}.{cls.__qualname__}"
    return next((name for name, entry in MODELS.items() if entry.path == path), None)


def _load_safetensors(path: Path) -> Any:
    """The model that an exported or converted file names."""
    from t2i_zoo.models.state import read_weights

    tensors, about = read_weights(path)
    if isinstance(about, dict) and "format" in about:
        from t2i_zoo.models.exported import check_header, rebuild, rebuild_own

        check_header(path, about)
        if about["model"] in MODELS:
            return rebuild(MODELS[about["model"]].path, path, tensors, about)
        return rebuild_own(_class_of(about["class"]), path, tensors, about)
    if not isinstance(about, dict) or not isinstance(about.get("hparams"), dict):
        raise T2IError(
            f"{path} does not say which model it holds, as files of t2i-zoo export and convert do: start a run of that "
            f"model from it with --model.weights {path}"
        )
    return _load_converted(path, tensors, about)


def _load_converted(path: Path, tensors: dict[str, Any], about: dict[str, Any]) -> ZooModule:
    """The model of a converted file; networks that are not in the file keep their initial values."""
    model = model_class(str(about.get("model")))(**{**about["hparams"], "weights": str(path)})
    prefix = "text_encoder."
    reader = {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
    if model.text_encoder is not None and reader:
        model.text_encoder.load_state_dict(reader)
    elif model.text_encoder is not None and model.text_encoder.dim:
        warnings.warn(
            f"{path} came without its text encoder, so hashed words replace it: give generate the features of "
            "sentences from the encoder that the weights were trained with",
            stacklevel=4,
        )
    return model
