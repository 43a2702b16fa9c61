"""Everything that a number depends on, in one small file with a name and a hash."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.base import ZooMetric
from t2i_zoo.metrics.diversity import CaptionDiversity, ClassDiversity
from t2i_zoo.metrics.flowers.agreement import Agreement
from t2i_zoo.metrics.flowers.colour_agreement import ColourAgreement
from t2i_zoo.metrics.flowers.pointing import Pointing
from t2i_zoo.metrics.flowers.redescription import Redescription
from t2i_zoo.metrics.frechet import FrechetDistance
from t2i_zoo.metrics.inception_score import InceptionScore
from t2i_zoo.metrics.kernel import KernelDistance
from t2i_zoo.metrics.neighbours import PRDC, NearestTraining
from t2i_zoo.metrics.retrieval import RPrecision, Similarity

METRICS: dict[str, type[ZooMetric]] = {
    "frechet_distance": FrechetDistance,
    "kernel_distance": KernelDistance,
    "inception_score": InceptionScore,
    "prdc": PRDC,
    "nearest_training": NearestTraining,
    "r_precision": RPrecision,
    "clip_score": Similarity,
    "msssim_class": ClassDiversity,
    "caption_diversity": CaptionDiversity,
    "agreement": Agreement,
    "colour_agreement": ColourAgreement,
    "redescription": Redescription,
    "pointing": Pointing,
}


@dataclass(frozen=True)
class Protocol:
    """How images are generated and measured.

    Attributes:
        name: name of the protocol; not part of the hash.
        about: one sentence; not part of the hash.
        metrics: names in ``METRICS`` with their options.
        network: network that looks at the images; None if no metric needs one, ``ask`` if the user must name it.
        reference: split of the photographs, and of the captions that images are generated from: train, val or test.
        size: side to which photographs are cropped and generated images resized first; None is the model's own.
        bits: 8 rounds generated images as a PNG file does, 32 leaves them.
        antialias: whether the network's own resizing to fewer pixels averages.
        images: number of images to generate.
        samples_per_caption: number of images of each caption.
        ema: whether to use the moving average of the generator's weights or the last ones.
        seed: seed of captions and noise; the noise of each image depends on nothing else but its position.
        truncation: bound of the normal noise, which is drawn from a normal distribution cut there; None does not cut.
        noise_scale: factor on the noise, after the cut.
    """

    name: str
    metrics: dict[str, dict[str, Any]]
    about: str = ""
    network: str | None = None
    reference: str = "test"
    size: int | None = None
    bits: int = 8
    antialias: bool = True
    images: int = 30000
    samples_per_caption: int = 1
    ema: bool = True
    seed: int = 0
    truncation: float | None = None
    noise_scale: float = 1.0

    @property
    def needs_network(self) -> bool:
        """Whether any of the metrics needs a network."""
        return any(METRICS[name].needs_network for name in self.metrics)

    @property
    def content(self) -> dict[str, Any]:
        """Everything that a number depends on; of a network in a file, the name without the folder."""
        content = asdict(self)
        for name in ("name", "about"):
            del content[name]
        if self.noise_scale == 1:  # hashes are older than the option
            del content["noise_scale"]
        if self.network:
            kind, colon, rest = self.network.partition(":")
            if kind in ("file", "checkpoint", "classifier"):
                content["network"] = f"{kind}{colon}{Path(rest).name}"
        return content

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits of the content, after all overrides."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()[:8]

    def change(self, **changes: Any) -> Protocol:
        """The protocol with the changes that are not None, checked again."""
        changed = replace(self, **{name: value for name, value in changes.items() if value is not None})
        _check(changed)
        return changed


def protocols_folder() -> Path:
    """Folder of the packaged protocols."""
    return Path(__file__).parent / "protocols"


def list_protocols() -> dict[str, str]:
    """Names of the packaged protocols, and what each measures."""
    return {path.stem: load_protocol(path.stem).about for path in sorted(protocols_folder().glob("*.yaml"))}


def load_protocol(name: str) -> Protocol:
    """Read a protocol.

    Args:
        name: name of a packaged protocol, or path of a YAML file of your own.

    Raises:
        T2IError: if there is no such protocol, or its content is not valid.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        packaged = {p.stem: p for p in sorted(protocols_folder().glob("*.yaml"))}
        if name not in packaged:
            raise T2IError(
                f"found no protocol {name!r}, expected a YAML file or a packaged one: try {_nearest(name, packaged)}"
            )
        path = packaged[name]
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise T2IError(f"cannot read {path} as YAML ({' '.join(str(error).split())}): correct it") from error
    if not isinstance(content, dict):
        raise T2IError(f"found no options in the protocol {path}: write lines such as images: 5000")
    options = [f.name for f in fields(Protocol) if f.name != "name"]
    if unknown := [key for key in content if key not in options]:
        near = _nearest(str(unknown[0]), options)
        raise T2IError(f"found {unknown[0]!r} in the protocol {path}: did you mean {near}?")
    metrics = content.pop("metrics", None)
    if isinstance(metrics, list):
        metrics = dict.fromkeys(metrics)
    if not isinstance(metrics, dict) or not metrics:
        raise T2IError(f"found no metrics in the protocol {path}: name at least one of {', '.join(METRICS)}")
    protocol = Protocol(name=path.stem, metrics={key: dict(value or {}) for key, value in metrics.items()}, **content)
    _check(protocol)
    return protocol


def _nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of some names, or all of them if none is similar."""
    names = list(names)
    return (difflib.get_close_matches(name, names, 1) or [", ".join(names)])[0]


def _check(protocol: Protocol) -> None:
    """Raise for options that no evaluation could use."""
    where = f"the protocol {protocol.name}"
    _check_metrics(protocol.metrics, where)

    def expect(name: str, fits: bool, expected: str) -> None:
        if not fits:
            found = getattr(protocol, name)
            raise T2IError(f"found {name} {found!r} in {where}, expected {expected}: correct it")

    for name in ("ema", "antialias"):
        expect(name, isinstance(getattr(protocol, name), bool), "true or false")
    for name, least in (("images", 1), ("samples_per_caption", 1), ("seed", 0), ("size", 1)):
        value = getattr(protocol, name)
        whole = _is_like(value, least) and value >= least
        expect(name, whole or (name == "size" and value is None), f"an integer of at least {least}")
    expect("network", protocol.network is None or isinstance(protocol.network, str), "a name")
    expect("reference", protocol.reference in ("train", "val", "test"), "train or val or test")
    expect("bits", protocol.bits in (8, 32), "8 or 32")
    bound = protocol.truncation
    expect("truncation", bound is None or (_is_like(bound, 1.0) and bound > 0), "a number above 0, or null")
    scale = protocol.noise_scale
    expect("noise_scale", _is_like(scale, 1.0) and scale > 0, "a number above 0")
    if protocol.network is None and protocol.needs_network:
        needy = next(name for name in protocol.metrics if METRICS[name].needs_network)
        raise T2IError(f"found no network in {where}, which {needy} needs: name one in it, or give --network")


def _check_metrics(metrics: dict[str, dict[str, Any]], where: str) -> None:
    """Raise for unknown metrics, and for options that they do not have or whose type does not fit."""
    for name, options in metrics.items():
        if name not in METRICS:
            raise T2IError(f"found the metric {name!r} in {where}: did you mean {_nearest(name, METRICS)}?")
        defaults = {k: p.default for k, p in inspect.signature(METRICS[name]).parameters.items() if k != "job"}
        for option, value in options.items():
            if option not in defaults:
                expected = f"one of {', '.join(defaults)}" if defaults else "none"
                raise T2IError(f"found the option {option!r} of {name} in {where}, expected {expected}: correct it")
            if not _is_like(value, defaults[option]):
                expected = f"{_KINDS[type(defaults[option])]} such as {json.dumps(defaults[option])}"
                raise T2IError(f"found {option} {value!r} of {name} in {where}, expected {expected}: correct it")


_KINDS: dict[type, str] = {int: "an integer", float: "a number", bool: "a truth value", tuple: "a list"}


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value of a YAML file can replace ``default``."""
    if isinstance(default, tuple):
        return isinstance(value, (list, tuple)) and all(_is_like(item, default[0]) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))
