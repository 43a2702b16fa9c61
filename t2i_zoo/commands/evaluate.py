"""``t2i-zoo evaluate``: numbers of a checkpoint by a named protocol, with all that they depend on."""

from __future__ import annotations

import datetime
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from t2i_zoo import data
from t2i_zoo.commands.sample import pick_device
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.data.store import open_store
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.evaluation import evaluate as run_protocol
from t2i_zoo.metrics.networks import Network, build_network, weights_hash
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import METRICS, Protocol, list_protocols, load_protocol
from t2i_zoo.metrics.records import FILE, Line, append_lines, headline, lines_of, table
from t2i_zoo.models import MODELS, load_model
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.parsing import Parser, expand_configs, find_config
from t2i_zoo.paths import find_checkpoint, shipped_generators
from t2i_zoo.runs import run_of_checkpoint

REAL, UNTRAINED = "real", "untrained:"


class Subject(NamedTuple):
    """What is evaluated.

    Attributes:
        model: the generator, or None for photographs.
        name: what tables call it.
        checkpoint: path, ``real`` or ``untrained:CONFIG``.
        sha256: first 16 digits of the file's hash; "" where there is no file.
        folder: where its ``metrics.jsonl`` goes.
        config: file that says what it was trained on, or None.
    """

    model: TextToImageGAN | None
    name: str
    checkpoint: str
    sha256: str
    folder: Path
    config: Path | None


def find_subject(ckpt: str, device: str = "cpu", live: bool = False) -> Subject:
    """Load what ``--ckpt`` means.

    Args:
        ckpt: a .ckpt or exported file, the folder of a run, the name of a generator that comes with the package,
            ``real``, or ``untrained:CONFIG`` for the initial weights of a config.
        device: of the model.
        live: whether the last weights are asked for and not their average.

    Raises:
        T2IError: where it is not there, draws no pictures, or has no last weights.
    """
    if ckpt == REAL:
        return Subject(None, "photographs", REAL, "", Path("runs") / REAL, None)
    if ckpt.startswith(UNTRAINED):
        config = Path(find_config(ckpt.removeprefix(UNTRAINED)))
        model: Any = _initial_model(config).to(device).eval()
        folder, sha = Path("runs") / f"untrained_{config.stem}", weights_hash(model)
        name = f"{type(model).__name__}, untrained"
    else:
        path = find_checkpoint(ckpt)
        model, name = load_model(path, device), ""
        run, sha = run_of_checkpoint(path), _sha256(path)
        folder = run if run is not None else path.parent
        if path in shipped_generators().values():  # nothing is written into the package
            folder = Path("runs") / path.stem
        config = folder / "config.yaml"
        ckpt = str(path)
    if not isinstance(model, TextToImageGAN):
        raise T2IError(f"{ckpt} holds a {type(model).__name__}, which draws no pictures: give a run of a GAN")
    if live and ckpt.endswith(".safetensors"):
        raise T2IError(f"found --live and {ckpt}, which holds no other weights than it draws with: leave out --live")
    found = config if config.is_file() else None
    return Subject(model, name or type(model).__name__, ckpt, sha, folder, found)


def _initial_model(config: Path) -> Any:
    """The model of a config with the weights that it begins with, always the same."""
    model = (yaml.safe_load(config.read_text("utf-8")) or {}).get("model") or {}
    path = str(model.get("class_path", ""))
    path = next((entry.path for entry in MODELS.values() if entry.path.endswith(f".{path}")), path)
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise T2IError(f"found no model class {path!r} in {config}: correct its class_path") from error
    torch.manual_seed(0)
    return cls(**(model.get("init_args") or {}))


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:16]


def find_photographs(subject: Subject, words: Sequence[str], size: int | None) -> tuple[Photographs, CaptionDataModule]:
    """The real pictures that belong to a subject: of its config, with the options of ``words`` over it.

    Args:
        subject: of ``find_subject``.
        words: ``--config`` and ``--data.*``.
        size: side of the pictures; None takes the model's, or for photographs the config's.
    """
    given = any(word in ("-c", "--config") or word.startswith("--config=") for word in words)
    chosen = [] if given or subject.config is None else ["--config", str(subject.config)]
    if not chosen and not any(word.startswith(("--data.source", "--config", "-c")) for word in words):
        what = f"beside {subject.checkpoint}" if subject.model is not None else "for --ckpt real"
        raise T2IError(f"found no config.yaml {what}: say which data with --config NAME or --data.source")
    parser = _parser()
    config = parser.parse_args(_only_data(expand_configs([*chosen, *words])))
    model_size = subject.model.needs.sizes[-1] if subject.model is not None and subject.model.needs.sizes else None
    side = size or model_size or config.data.image_size
    if config.data.load_size:  # the same cut at every size
        config.data.load_size = max(round(config.data.load_size * side / config.data.image_size), side)
    config.data.image_size = side
    config.data.pyramid = None
    module: CaptionDataModule = parser.instantiate_classes(config).data
    if getattr(module.source, "stream", False):
        raise T2IError(
            "found streamed shards, whose pictures cannot be taken in any order: pack shards of "
            "this machine with --data.source.stream false, or choose another --data.source"
        )
    store = open_store(module.spec, module.cache / "stores", progress=True)
    return Photographs(store, module.image_size), module


def _only_data(words: Sequence[str]) -> list[str]:
    """The words with each config replaced by its part about data: the others are of no matter here."""
    result = list(words)
    for i, word in enumerate(result):
        flag, _, path = word.partition("=")
        if flag in ("-c", "--config") and (path or i + 1 < len(result)):
            place = i if path else i + 1
            wish = path or result[place]
            text = wish if wish.lstrip().startswith("{") else Path(wish).read_text("utf-8")
            content = yaml.safe_load(text) or {}
            found = json.dumps({"data": content.get("data") or {}})
            result[place] = f"{flag}={found}" if path else found
    return result


def evaluate(
    subject: Subject,
    protocol: Protocol,
    network: Network | None,
    photographs: Photographs,
    batch_size: int = 64,
    device: str = "cpu",
    out: Path | None = None,
) -> list[Line]:
    """Evaluate, print a table, append its lines to ``metrics.jsonl`` and return them.

    Args:
        subject: what is evaluated.
        protocol: with its overrides.
        network: of the protocol.
        photographs: the real pictures.
        batch_size: pictures drawn at once.
        device: of model and network.
        out: file for the lines; by default ``metrics.jsonl`` beside the run.
    """
    report = run_protocol(protocol, photographs, subject.model, network, device, batch_size, _progress())
    about = {
        "name": subject.name,
        "checkpoint": subject.checkpoint,
        "checkpoint_sha256": subject.sha256,
        "model": None if subject.model is None else type(subject.model).__name__,
        "batches": None if subject.model is None else subject.model.clock,
        "data": photographs.key,
        "size": photographs.size,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    lines = lines_of(report, protocol, network, about)
    path = out or subject.folder / FILE
    append_lines(path, lines)
    print(f"{headline(lines)}\n\n{table(lines)}\n\nappended to {path}")
    return lines


def ask_network(protocol: Protocol, wish: str | None, weights: str | None = None) -> tuple[Protocol, Network | None]:
    """The protocol with the network that was asked for, and that network.

    Raises:
        T2IError: where the protocol leaves the network open and none was named.
    """
    if not any(METRICS[name].needs_network for name in protocol.metrics):
        return protocol, None
    protocol = protocol.change(network=wish)
    if protocol.network in (None, "ask"):
        raise T2IError(
            f"the protocol {protocol.name} leaves its network open: name one with --network, such as file:PATH, "
            "torchvision:resnet18, transformers:NAME, checkpoint:PATH or classifier:PATH"
        )
    assert protocol.network is not None
    return protocol, build_network(protocol.network, protocol.antialias, load_model, weights)


def _progress() -> Callable[[int, int], None]:
    """A line on a terminal that says how far it is."""

    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} pictures", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return tell


def _parser() -> Parser:
    """The options of the data."""
    for name in data.SOURCES:
        getattr(data, name)
    parser = Parser(prog="t2i-zoo evaluate", description=__doc__)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a config of fit, or its name: for its data")
    parser.add_class_arguments(CaptionDataModule, "data")
    return parser


def add_own_options(parser: Any) -> None:
    """Options that ``evaluate`` and ``leaderboard`` share."""
    parser.add_argument("--images", type=int, default=None, help="pictures to draw, in place of the protocol's")
    parser.add_argument(
        "--weights", default=None, help="of inception_v3_tf or a torchvision network: a path, or random"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="pictures drawn at once; does not change the numbers"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1")
    parser.add_argument("--live", action="store_true", help="the last weights in place of their moving average")
    parser.add_argument("--seed", type=int, default=None, help="of captions and noise, in place of the protocol's")


def changes(found: Any) -> Mapping[str, Any]:
    """What the shared options change of a protocol."""
    if found.batch_size < 1:
        raise T2IError(f"found --batch-size {found.batch_size}, expected at least 1")
    return {"images": found.images, "seed": found.seed, "ema": False if found.live else None}


def split_words(parser: Any, words: Sequence[str]) -> tuple[Any, list[str]]:
    """Our options, and those of the data that the other parser reads; its help is shown too."""
    import argparse

    if {"-h", "--help"} & set(words):
        parser.print_help()
        print("\nand to choose other data than the run's own:\n")
        _parser().parse_args(["--help"])
    try:
        own, rest = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise T2IError(f"found a wrong {error.argument_name}: {error.message}") from None
    return own, rest


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="t2i-zoo evaluate", description=__doc__, allow_abbrev=False, exit_on_error=False, add_help=False
    )
    names = ", ".join(list_protocols())
    parser.add_argument("--ckpt", help="a .ckpt file, the folder of a run, real, or untrained:CONFIG")
    parser.add_argument("--protocol", help=f"{names}, or a YAML file of your own")
    parser.add_argument("--network", default=None, help="what looks at the pictures, in place of the protocol's")
    parser.add_argument("--out", default=None, help="file for the lines; by default metrics.jsonl beside the run")
    add_own_options(parser)
    found, rest = split_words(parser, words)
    for name in ("ckpt", "protocol"):
        if getattr(found, name) is None:
            raise T2IError(f"found no --{name}: give it")
    protocol = load_protocol(found.protocol).change(**changes(found))
    device = pick_device(found.device)
    protocol, network = ask_network(protocol, found.network, found.weights)
    subject = find_subject(found.ckpt, device, found.live)
    photographs, _ = find_photographs(subject, rest, protocol.size)
    out = Path(found.out).expanduser() if found.out else None
    evaluate(subject, protocol, network, photographs, found.batch_size, device, out)
