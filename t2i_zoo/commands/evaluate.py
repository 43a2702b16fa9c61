"""``t2i-zoo evaluate``: scores of a checkpoint by a named protocol, with everything that they depend on."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml  # type: ignore[import-untyped]
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from rich.console import Console
from rich.progress import Progress

from t2i_zoo import data
from t2i_zoo.commands.sample import pick_device
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.data.store import open_store
from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256
from t2i_zoo.hub import is_address
from t2i_zoo.metrics.evaluation import evaluate as run_protocol
from t2i_zoo.metrics.networks import Network, build_network, takes_weights
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import Protocol, load_protocol
from t2i_zoo.metrics.records import FILE, Line, append_lines, check_appendable, headline, lines_of, table
from t2i_zoo.models import load_model
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.overview import load_follows, one_size
from t2i_zoo.parsing import Parser, find_config, named_model
from t2i_zoo.paths import find_weights, shipped_generators
from t2i_zoo.runs import run_of_checkpoint
from t2i_zoo.sampling import for_drawing
from t2i_zoo.vision.network import weights_hash

REAL, UNTRAINED = "real", "untrained:"


def evaluate(
    words: Sequence[str],
    ckpt: str,
    protocol: str,
    network: str | None = None,
    weights: str | None = None,
    images: int | None = None,
    seed: int | None = None,
    live: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    out: str | None = None,
) -> list[Line]:
    """Score a checkpoint by a named protocol, print the table, and append its lines to metrics.jsonl.

    Args:
        words: options of the data; by default those of the run's own config.
        ckpt: A .ckpt or exported file, the folder of a run, the name of a generator that comes with the package,
            ``real`` for photographs, or ``untrained:CONFIG`` for the initial weights of a config.
        protocol: A packaged protocol (agreement_colour, agreement_synthetic, diversity_caption, fd_test_30k, fid_dfgan,
            fmd_5k, is_10x, msssim_class, pointing_synthetic, redescription, rprec_clip, rprec_damsm or tiny), or the
            path of a YAML file of your own.
        network: Network that looks at the images, instead of the protocol's.
        weights: Weights of inception_v3_tf or of a torchvision network: a path, or ``random``.
        images: Number of images to generate, instead of the protocol's.
        seed: Seed of captions and noise, instead of the protocol's.
        live: Use the last weights instead of their moving average.
        batch_size: Number of images generated at once; does not change the scores.
        device: Device to run on, such as cpu, cuda or cuda:1; ``auto`` takes the GPU if there is one.
        out: File that the lines are appended to; by default metrics.jsonl in the folder of the run.

    Returns:
        The lines.

    Raises:
        T2IError: for whatever is missing or cannot be measured, before anything is generated.
    """
    check_batch_size(batch_size)
    chosen = load_protocol(protocol).change(images=images, seed=seed, ema=False if live else None)
    device = pick_device(device)
    chosen, looking = ask_network(chosen, network, weights)
    subject = find_subject(ckpt, device, live)
    photographs, _ = find_photographs(subject, words, chosen.size)
    path = Path(out).expanduser() if out else subject.folder / FILE
    return measure(subject, chosen, looking, photographs, batch_size, device, path)


class Subject(NamedTuple):
    """What is evaluated.

    Attributes:
        model: the model, or None for photographs.
        name: name in tables.
        checkpoint: path, ``real`` or ``untrained:CONFIG``.
        sha256: first 16 digits of the file's hash; "" for photographs.
        folder: folder of its ``metrics.jsonl``.
        config: config of the data that it was trained on, or None.
    """

    model: Drawing | None
    name: str
    checkpoint: str
    sha256: str
    folder: Path
    config: Path | None


def find_subject(ckpt: str, device: str = "cpu", live: bool = False) -> Subject:
    """Load what ``--ckpt`` names.

    Args:
        ckpt: see ``evaluate``.
        device: device of the model.
        live: whether the last weights are wanted and not their average.

    Raises:
        T2IError: if it is not there, generates no images, or has no last weights.
    """
    if ckpt == REAL:
        return Subject(None, "photographs", REAL, "", Path("runs") / REAL, None)
    if ckpt.startswith(UNTRAINED):
        config = Path(find_config(ckpt.removeprefix(UNTRAINED)))
        model: Any = _initial_model(config).to(device).eval()
        name, digest = f"{type(model).__name__}, untrained", weights_hash(model)
        folder = Path("runs") / f"untrained_{config.stem}"
    else:
        path = find_weights(ckpt)
        model = load_model(path, device)
        name, digest, address, ckpt = type(model).__name__, sha256(path)[:16], ckpt, str(path)
        folder = run_of_checkpoint(path) or path.parent
        if path in shipped_generators().values():  # nothing is written into the package
            folder = Path("runs") / path.stem
        elif is_address(address):  # nor into the cache of the hub
            folder = Path("runs") / "_".join(address.partition("@")[0].split("/")[-2:])
        config = folder / "config.yaml"
    if not isinstance(model, Drawing):
        raise T2IError(f"{ckpt} holds a {type(model).__name__}, which generates no images: give a run of a GAN")
    for_drawing(model)
    if live and ckpt.endswith(".safetensors"):
        raise T2IError(f"found --live and {ckpt}, which holds the averaged weights only: leave out --live")
    return Subject(model, name, ckpt, digest, folder, config if config.is_file() else None)


def _initial_model(config: Path) -> Any:
    """The model of a config with its initial weights, the same every time."""
    model = (yaml.safe_load(config.read_text("utf-8")) or {}).get("model") or {}
    model = {"class_path": model} if isinstance(model, str) else model
    kind, options = named_model(str(model.get("class_path", ""))), dict(model.get("init_args") or {})
    added = one_size(["--config", str(config)])[2:]  # as fit does where only the data have a size
    if added[:1] == ["--model.image_size"]:
        options["image_size"] = int(added[1])
    torch.manual_seed(0)
    return kind(**options)


def find_photographs(subject: Subject, words: Sequence[str], size: int | None) -> tuple[Photographs, CaptionDataModule]:
    """The real images for a subject, of its own config unless ``words`` choose others.

    Args:
        subject: result of ``find_subject``.
        words: ``--config`` and ``--data.*`` options.
        size: side of the images; by default the model's, or for photographs the config's.
    """
    given = {word.partition("=")[0] for word in words}
    if not given & {"-c", "--config"}:
        if subject.config is not None:
            words = ["--config", str(subject.config), *words]
        elif not any(word.startswith("--data.source") for word in given):
            what = f"beside {subject.checkpoint}" if subject.model is not None else "for --ckpt real"
            raise T2IError(f"found no config.yaml {what}: choose the data with --config NAME or --data.source")
    parser = data_options("evaluate")
    config = parser.parse_args(_data_only(load_follows(words)))
    model_size = subject.model.needs.sizes[-1] if subject.model is not None and subject.model.needs.sizes else None
    side = size or model_size or config.data.image_size
    if config.data.load_size:  # the same crop at every size
        config.data.load_size = max(round(config.data.load_size * side / config.data.image_size), side)
    config.data.image_size = side
    config.data.pyramid = None
    module: CaptionDataModule = parser.instantiate_classes(config).data
    if getattr(module.source, "stream", False):
        raise T2IError(
            "found streamed shards, whose images cannot be read in any order: pack shards on this machine with "
            "--data.source.stream false, or choose another --data.source"
        )
    return Photographs(open_store(module.spec, module.cache / "stores", progress=True), module.image_size), module


def _data_only(words: Sequence[str]) -> list[str]:
    """The words with only the data of each config, whose other options may be of another command or version."""
    result, remaining = [], iter(words)
    for word in remaining:
        flag, equals, name = word.partition("=")
        if flag in ("-c", "--config"):
            config = find_config(name if equals else next(remaining, ""))
            text = config if config.lstrip().startswith("{") else Path(config).read_text("utf-8-sig")
            word = f"--config={json.dumps({'data': (yaml.safe_load(text) or {}).get('data') or {}})}"
        result.append(word)
    return result


def measure(
    subject: Subject,
    protocol: Protocol,
    network: Network | None,
    photographs: Photographs,
    batch_size: int,
    device: str,
    out: Path,
) -> list[Line]:
    """Carry out a protocol, print the table, append its lines to the file ``out`` and return them."""
    check_appendable(out)  # or the scores would be lost
    with _bar(f"{protocol.name}: {subject.name}") as tell:
        report = run_protocol(protocol, photographs, subject.model, network, device, batch_size, tell)
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
    print(f"{headline(lines)}\n\n{table(lines)}\n", flush=True)
    append_lines(out, lines)
    print(f"appended to {out}")
    return lines


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, moved by the number of images that are done and that there are."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def ask_network(protocol: Protocol, name: str | None, weights: str | None = None) -> tuple[Protocol, Network | None]:
    """The protocol with the network that was chosen for it, and that network.

    Raises:
        T2IError: if the protocol leaves its network open and none was chosen, or for weights that it has no use for.
    """
    if not protocol.needs_network:
        if name:
            raise T2IError(f"found a network {name} for the protocol {protocol.name}, which has none: leave it out")
        if weights:
            raise T2IError(f"found --weights for the protocol {protocol.name}, which has no network: leave it out")
        return protocol, None
    protocol = protocol.change(network=name)
    if protocol.network in (None, "ask"):
        raise T2IError(
            f"the protocol {protocol.name} leaves its network open: name one with --network, such as file:PATH, "
            "efficientnet_lite0, torchvision:resnet18, transformers:NAME, checkpoint:PATH or classifier:PATH"
        )
    assert protocol.network is not None
    if weights and not takes_weights(protocol.network):
        raise T2IError(f"found --weights and the network {protocol.network}, which has its own: leave out --weights")
    return protocol, build_network(protocol.network, protocol.antialias, load_model, weights)


def check_batch_size(batch_size: int) -> None:
    """Raise for a batch without images."""
    if batch_size < 1:
        raise T2IError(f"found --batch-size {batch_size}, expected an integer of at least 1")


def data_options(command: str) -> Parser:
    """The options of the data, to follow those of a command."""
    for name in data.SOURCES:
        getattr(data, name)  # imported, so that a config may use its bare name
    parser = Parser(prog=f"t2i-zoo {command}", usage=argparse.SUPPRESS, add_help=False)
    parser.add_argument(
        "-c", "--config", action=ActionConfigFile, help="Config, or name of a packaged one, whose data to use."
    )
    parser.add_class_arguments(CaptionDataModule, "data")
    return parser
