"""The file of a study: found, read and checked before an arm is trained."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from t2i_zoo.commands.captions import check_caption
from t2i_zoo.commands.evaluate import ask_network, check_batch_size, evaluate
from t2i_zoo.commands.sample import pick_device
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.draws import check_images
from t2i_zoo.metrics.protocol import Protocol, load_protocol
from t2i_zoo.parsing import arguments
from t2i_zoo.paths import experiments_folder

#: networks of other runs, which may be trained while the study is
_OF_RUNS = ("checkpoint:", "classifier:")


@dataclass(frozen=True)
class Study:
    """The content of a study's file.

    Args:
        arms: options of ``fit`` that set each arm apart, by its name: a mapping of flags without dashes to values.
        options: options of ``fit`` that all arms share; those of an arm take precedence.
        minutes: processor time on one core after which each arm is scored; the last one ends it.
        seeds: each arm is trained once with each.
        scores: arguments of ``t2i-zoo evaluate`` for each measurement: ``protocol``, ``network``, ``images``.
        captions: rows of the grid that is drawn at each measurement, always with the same noise.
        anchors: whatever the arms refer to by YAML's anchors; it is not read otherwise.
    """

    arms: dict[str, dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    minutes: list[float] = field(default_factory=lambda: [15, 30, 60])
    seeds: list[int] = field(default_factory=lambda: [0])
    scores: list[dict[str, Any]] = field(default_factory=list)
    captions: list[str] = field(default_factory=lambda: ["a flower with red petals"])
    anchors: Any = None

    @classmethod
    def read(cls, path: Path) -> Study:
        """Read a file. One number, text or score may stand for a list of one.

        Raises:
            T2IError: where it is missing, is no YAML, or holds what no study could use.
        """
        found, known = _mapping(path), [each.name for each in fields(cls)]
        for key in found:
            if key not in known:
                raise T2IError(f"{path}: found the key {key!r}, {_nearest(key, known)}")
        content = {key: value for key, value in found.items() if value is not None}
        arms, example = content.get("arms"), "expected names with their options, such as arms: {r1: {model.r1: 1}}"
        if not isinstance(arms, dict) or not arms:
            raise T2IError(f"{path}: found arms {arms!r}, {example}")
        for name, arm in arms.items():
            if not isinstance(arm, dict | None):
                raise T2IError(f"{path}: found arm {name} {arm!r}, {example}")
            if Path(str(name)).name != str(name):
                raise T2IError(f"{path}: found the arm {name!r}, expected a name that a folder can have: rename it")
        if not isinstance(content.setdefault("options", {}), dict):
            raise T2IError(f"{path}: found options {content['options']!r}, expected such as options: {{model.r1: 1}}")
        content |= {"arms": {str(name): _by_text(arm or {}) for name, arm in arms.items()}}
        content |= {"options": _by_text(content["options"])}
        for key, (kinds, form) in _LISTS.items():
            if key in content:
                content[key] = _list(content[key], kinds, f"{path}: found {key}", form)
        content |= {"minutes": check_minutes(content["minutes"], str(path))} if "minutes" in content else {}
        for caption in content.get("captions", ()):
            _named(f"{path}: ", check_caption, caption)
        scores = content.get("scores", [])
        content["scores"] = [_named(f"{path}, score {n}: ", _score, score, path) for n, score in enumerate(scores, 1)]
        return cls(**content)

    def options_of(self, arm: str, seed: int) -> dict[str, Any]:
        """The options of ``fit`` for an arm, by their flags without dashes."""
        return {"seed_everything": seed, **self.options, **self.arms[arm]}

    def words(self, arm: str, seed: int) -> list[str]:
        """The options of ``fit`` for an arm."""
        merged = self.options_of(arm, seed)
        flags = sorted(merged, key=lambda name: name.count("."))  # jsonargparse reads --model before its options
        return [word for name in flags for word in (f"--{name}", _word(merged[name]))]

    def hashes(self, arm: str, seed: int) -> dict[str, str]:
        """Short hashes of all that a line of results depends on: options, captions and scores."""
        scores = sorted((_protocol(score).hash, score.get("weights") or "") for score in self.scores)
        parts = {"options": self.options_of(arm, seed), "captions": self.captions, "scores": scores}
        return {name: hashlib.sha256(plain(part).encode()).hexdigest()[:8] for name, part in parts.items()}

    def check_scores(self) -> None:
        """Raise for a score whose network or device is not there, before an arm is trained for it."""
        for score in self.scores:
            pick_device(score["device"])
            protocol = load_protocol(score["protocol"])
            if not protocol.needs_network or not str(_protocol(score).network).startswith(_OF_RUNS):
                ask_network(protocol, score.get("network"), score.get("weights"))


def packaged_studies() -> dict[str, Path]:
    """Studies that come with the package, by name; other files beside them are protocols of theirs."""
    files = sorted((experiments_folder() / "studies").glob("*.yaml"))
    return {path.stem: path for path in files if re.search("^arms:", path.read_text("utf-8"), re.MULTILINE)}


def find_study(name: str) -> Path:
    """Path of a study given as a path or as the bare name of a packaged one.

    Raises:
        T2IError: where there is neither.
    """
    path, packaged = Path(name).expanduser(), packaged_studies()
    if path.is_file():
        return path
    stem = path.name.removesuffix(".yaml")
    if stem not in packaged:
        raise T2IError(
            f"found no study {name!r}: give the path of a YAML file or a packaged name such as {', '.join(packaged)}"
        )
    return packaged[stem]


def check_minutes(minutes: Sequence[float], where: str) -> list[float]:
    """The times in order, each once; raises for one that is not above 0."""
    for each in minutes:
        if not each > 0:
            raise T2IError(f"{where}: found minutes {each:g}, expected numbers above 0: correct them")
    return sorted(set(minutes))


def plain(value: Any) -> str:
    """JSON that is the same for the same options in any order."""
    return json.dumps(value, sort_keys=True, default=str)


#: kinds of the items of each list, and what it looks like
_LISTS: dict[str, tuple[tuple[type, ...], str]] = {
    "minutes": ((int, float), "numbers, such as minutes: [15, 30, 60]"),
    "seeds": ((int,), "integers, such as seeds: [0, 1]"),
    "scores": ((dict,), "arguments of evaluate, such as scores: [{protocol: agreement_colour}]"),
    "captions": ((str,), "texts, such as captions: [a red flower, a white flower]"),
}


def _mapping(path: Path) -> dict[Any, Any]:
    """What a YAML file holds."""
    try:
        content = yaml.safe_load(path.read_text("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise T2IError(f"{path}{line}: {error.problem or error.context}: correct the YAML there") from None
    except (ValueError, yaml.YAMLError) as error:
        raise T2IError(f"{path} is no YAML in UTF-8 ({' '.join(str(error).split())}): correct it") from None
    except OSError as error:
        raise T2IError(f"cannot read the study {path} ({error.strerror}): give the path of a YAML file") from error
    if not isinstance(content, dict):
        raise T2IError(f"{path} holds no study: write arms, such as arms: {{plain: {{}}, r1: {{model.r1: 1}}}}")
    return content


def _list(value: Any, kinds: tuple[type, ...], found: str, form: str) -> list[Any]:
    """A list whose items are of these kinds, or one such item as a list of one."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in items):
        raise T2IError(f"{found} {value!r}, expected {form}")
    if not items and kinds in ((int, float), (int,)):  # a study of no times or seeds would do nothing
        raise T2IError(f"{found} {value!r}, expected at least one of {form}")
    return items


def _score(given: dict[str, Any], path: Path) -> dict[str, Any]:
    """The arguments of ``evaluate`` for one measurement; a protocol's file is found beside the study's too."""
    known = [name for name in inspect.signature(evaluate).parameters if name not in ("words", "ckpt", "out")]
    for key in given:
        if key not in known:
            raise T2IError(f"found the key {key!r}, {_nearest(key, known)}")
    words = [word for key, value in given.items() if value is not None for word in (f"--{key}", _word(value))]
    _, named = arguments(evaluate, ["--ckpt", "", *words])
    beside = path.parent / named["protocol"]
    score = {name: named[name] for name in known if name in named}
    score |= {"protocol": str(beside if beside.is_file() else named["protocol"])}
    check_batch_size(score["batch_size"])
    protocol = _protocol(score)
    check_images(protocol.images, protocol.samples_per_caption)
    return score


def _protocol(score: dict[str, Any]) -> Protocol:
    """The protocol of a measurement, with what the score changes."""
    changes = {name: score.get(name) for name in ("images", "seed", "network")}
    return load_protocol(score["protocol"]).change(**changes, ema=False if score["live"] else None)


def _named(where: str, check: Any, *given: Any) -> Any:
    """What a check returns; its sentence begins with the place of the mistake."""
    try:
        return check(*given)
    except T2IError as error:
        raise T2IError(f"{where}{error}") from error


def _nearest(key: Any, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(key), known, 1)
    return f"did you mean {near[0]}?" if near else f"expected some of {', '.join(known)}: correct it"


def _by_text(options: dict[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in options.items()}


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
