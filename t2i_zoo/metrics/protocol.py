"""What a number depends on, in one small file with a name and a hash."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.agreement import Agreement
from t2i_zoo.metrics.base import ZooMetric
from t2i_zoo.metrics.colour_agreement import ColourAgreement
from t2i_zoo.metrics.diversity import CaptionDiversity, ClassDiversity
from t2i_zoo.metrics.frechet import FrechetDistance
from t2i_zoo.metrics.inception_score import InceptionScore
from t2i_zoo.metrics.kernel import KernelDistance
from t2i_zoo.metrics.neighbours import PRDC, NearestTraining
from t2i_zoo.metrics.pointing import Pointing
from t2i_zoo.metrics.redescription import Redescription
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
    """How pictures are drawn and measured.

    Attributes:
        name: of the protocol; not part of the hash.
        about: one sentence; not part of the hash.
        metrics: names of ``METRICS`` with their options.
        network: what looks at the pictures; None where no metric needs one, and ``ask`` where the user must name it.
        reference: split of the photographs, and of the captions that pictures are drawn from: train, val or test.
        size: side to which photographs are cut and drawn pictures resized before all else; None is the model's own.
        bits: 8 rounds drawn pictures as a PNG file does, 32 leaves them.
        antialias: whether the network's own resizing to fewer pixels averages.
        images: how many pictures are drawn.
        samples_per_caption: pictures of each caption.
        ema: the moving average of the generator's weights, or the last ones.
        seed: of captions and noise; each picture has a noise of its own that nothing else changes.
        truncation: bound of the normal noise, which is drawn from a normal distribution cut there; None does not cut.
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

    @property
    def content(self) -> dict[str, Any]:
        """All that a number depends on; of a network in a file its name without the folder."""
        content = asdict(self)
        for name in ("name", "about"):
            del content[name]
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
        """The protocol with what is not None changed, and checked again."""
        changed = replace(self, **{name: value for name, value in changes.items() if value is not None})
        _check(changed)
        return changed


def protocols_folder() -> Path:
    """Folder of the packaged protocols."""
    return Path(__file__).parent / "protocols"


def list_protocols() -> dict[str, str]:
    """Packaged protocols: name and what it is."""
    return {path.stem: load_protocol(path.stem).about for path in sorted(protocols_folder().glob("*.yaml"))}


def load_protocol(name: str) -> Protocol:
    """Read a protocol.

    Args:
        name: of a packaged one, or the path of a YAML file of one's own.

    Raises:
        T2IError: where there is none, or it says what it cannot.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        packaged = {p.stem: p for p in sorted(protocols_folder().glob("*.yaml"))}
        if name not in packaged:
            near = difflib.get_close_matches(name, packaged, 1) or [", ".join(packaged)]
            raise T2IError(f"found no protocol {name!r}, expected a YAML file or a packaged one: try {near[0]}")
        path = packaged[name]
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise T2IError(f"cannot read {path} as YAML ({' '.join(str(error).split())}): correct it") from error
    if not isinstance(content, dict):
        raise T2IError(f"found no options in the protocol {path}: write lines such as images: 5000")
    known = [f.name for f in fields(Protocol) if f.name != "name"]
    if unknown := [key for key in content if key not in known]:
        near = difflib.get_close_matches(str(unknown[0]), known, 1) or [", ".join(known)]
        raise T2IError(f"found {unknown[0]!r} in the protocol {path}: did you mean {near[0]}?")
    metrics = content.pop("metrics", None)
    if isinstance(metrics, list):
        metrics = dict.fromkeys(metrics)
    if not isinstance(metrics, dict) or not metrics:
        raise T2IError(f"found no metrics in the protocol {path}: name at least one of {', '.join(METRICS)}")
    protocol = Protocol(name=path.stem, metrics={key: dict(value or {}) for key, value in metrics.items()}, **content)
    _check(protocol)
    return protocol


def _check(protocol: Protocol) -> None:
    """Raise for what no evaluation could do."""
    where = f"the protocol {protocol.name}"
    for name, options in protocol.metrics.items():
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, 1) or [", ".join(METRICS)]
            raise T2IError(f"found the metric {name!r} in {where}: did you mean {near[0]}?")
        defaults = {k: p.default for k, p in inspect.signature(METRICS[name]).parameters.items() if k != "job"}
        known = list(defaults)
        if unknown := [option for option in options if option not in known]:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise T2IError(f"found the option {unknown[0]!r} of {name} in {where}, expected {expected}: correct it")
        for option, value in options.items():
            if not _is_like(value, defaults[option]):
                expected = f"the like of {defaults[option]}"
                raise T2IError(f"found {option} {value!r} of {name} in {where}, expected {expected}: correct it")
    for name, likeness in (("ema", True), ("antialias", True), ("network", ""), ("truncation", 1.0)):
        value = getattr(protocol, name)
        if not _is_like(value, likeness) and not (value is None and name in ("network", "truncation")):
            expected = "a name" if likeness == "" else "true or false" if likeness is True else "a number"
            raise T2IError(f"found {name} {value!r} in {where}, expected {expected}: correct it")
    for name, allowed in (("reference", ("train", "val", "test")), ("bits", (8, 32))):
        if getattr(protocol, name) not in allowed:
            found, expected = getattr(protocol, name), " or ".join(map(str, allowed))
            raise T2IError(f"found {name} {found!r} in {where}, expected {expected}: correct it")
    for name, least in (("images", 1), ("samples_per_caption", 1), ("seed", 0), ("size", 1)):
        value = getattr(protocol, name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise T2IError(f"found {name} {value!r} in {where}, expected a whole number from {least}: correct it")
    if protocol.truncation is not None and not protocol.truncation > 0:
        raise T2IError(f"found truncation {protocol.truncation!r} in {where}, expected a bound above 0 or null")
    if protocol.network is None and (needy := [n for n in protocol.metrics if METRICS[n].needs_network]):
        raise T2IError(f"found no network in {where}, which {needy[0]} needs: name one in it, or give --network")


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value of a YAML file may stand where ``default`` does."""
    if isinstance(default, tuple):
        return isinstance(value, (list, tuple)) and all(_is_like(item, default[0]) for item in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))
