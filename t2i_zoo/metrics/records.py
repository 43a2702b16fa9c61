"""Scores as lines of ``metrics.jsonl`` and as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
import torchmetrics

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.evaluation import Report
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.protocol import Protocol
from t2i_zoo.version import __version__

FILE = "metrics.jsonl"
Line = dict[str, Any]


def lines_of(report: Report, protocol: Protocol, network: Network | None, about: Mapping[str, Any]) -> list[Line]:
    """One line for each score, with everything it depends on; ``about`` describes what was evaluated."""
    shared = {
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "protocol_content": protocol.content,
        "network": None if network is None else network.label,
        "network_fingerprint": None if network is None else network.fingerprint,
        "images": report.images,
        "reference_images": report.reference_images,
        "split": report.split,
        "seconds": round(report.seconds, 3),
        "versions": {"t2i_zoo": __version__, "torch": torch.__version__, "torchmetrics": torchmetrics.__version__},
    }
    return [{**score._asdict(), **about, **shared} for score in report.scores]


def append_lines(path: Path, lines: Sequence[Line]) -> None:
    """Append to a file in one write, so that a killed process leaves complete lines or none."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        raise T2IError(f"cannot write {path} ({error.strerror}): give another --out") from error
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def check_appendable(path: Path) -> None:
    """Raise where lines cannot be appended to a file; leaves nothing behind, not even an empty file."""
    try:
        if path.exists():
            path.open("ab").close()
        else:
            TemporaryFile(dir=next(each for each in path.parents if each.exists())).close()
    except OSError as error:
        raise T2IError(f"cannot write {path} ({error.strerror}): give another --out") from error


def read_lines(path: Path) -> list[Line]:
    """All lines of a file, the oldest first; none if it is missing.

    Raises:
        T2IError: for a line that is not JSON, with its number.
    """
    if not path.is_file():
        return []
    found = []
    for number, text in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            found.append(json.loads(text))
        except ValueError:
            raise T2IError(f"{path}, line {number}: found no JSON, expected a score: correct that line") from None
    return found


def number(value: float) -> str:
    """A score with five significant digits."""
    return f"{value:.5g}"


def table(lines: Sequence[Line]) -> str:
    """Scores as a text table."""
    rows = [("metric", "value", "error", "chance", "")]
    for line in lines:
        error = "" if line["error"] is None else f"+- {number(line['error'])} ({line['error_kind']})"
        chance = "" if line["chance"] is None else number(line["chance"])
        rows.append((line["label"], number(line["value"]), error, chance, line["note"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def headline(lines: Sequence[Line]) -> str:
    """What all these scores have in common, in two lines."""
    first = lines[0]
    content = first["protocol_content"]
    weights = "" if first["model"] is None else ", averaged weights" if content["ema"] else ", last weights"
    subject = f"{first['checkpoint']} {first['checkpoint_sha256']}".strip()
    network = f", network {first['network']} {first['network_fingerprint']}" if first["network"] else ""
    photographs = f"{first['reference_images']} {first['split']} photographs"
    return (
        f"protocol {first['protocol']} {first['protocol_hash']}: {first['images']} images, "
        f"{photographs}{weights}, seed {content['seed']}{network}\n"
        f"{subject}, {first['seconds']:.1f} s"
    )
