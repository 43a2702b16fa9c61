"""``t2i-zoo report``: one run as one page that loads nothing: curves, samples over time, scores, config, speed."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]
from filelock import FileLock, Timeout
from PIL import Image

from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.metrics.records import FILE, Line, number, read_lines
from t2i_zoo.paths import check_new
from t2i_zoo.runs import ENVIRONMENT, FINISHED, newest_run, run_of_checkpoint
from t2i_zoo.version import __version__

_GRIDS = 24  # at most, evenly spread: each is about 100 kB of the page
_SIDE = 1000  # pixels of the longer side of a grid
_POINTS = 200  # of a curve; each is a mean where there are more rows
_WIDTH, _HEIGHT = 320, 130  # of a chart
_FIRST = ("generator_loss", "discriminator_loss")  # charts that come before the others


def report(*run: str, out: str = "report.html", overwrite: bool = False) -> Path:
    """Write one page about a run that a browser shows without any tool or network.

    It has the curves of metrics.csv, the samples over time, the scores of metrics.jsonl, the config, the speed and the
    environment. A run that goes on, was stopped or has crashed is shown as far as it came.

    Args:
        run: Folder of the run, a checkpoint in it, or the folder above it, which means the newest run.
        out: File of the page, which ends in .html.
        overwrite: Replace an existing page.

    Returns:
        Path of the page.

    Raises:
        T2IError: where there is no run, or the page cannot be written.
    """
    path = Path(out).expanduser()
    if len(run) != 1:
        raise T2IError(f"found {len(run)} runs, expected one: t2i-zoo report RUN --out report.html")
    if path.suffix != ".html":
        raise T2IError(f"found --out {out}, expected a file name that ends in .html")
    folder = find_run(Path(run[0]).expanduser())
    check_new(path, overwrite=overwrite)
    page = render(folder)
    try:
        with replacing(path) as beside:
            beside.write_text(page, "utf-8")
    except OSError as error:
        raise T2IError(f"cannot write {error.filename or path} ({error.strerror}): give another --out") from error
    print(f"{len(page) / 1e6:.1f} MB: {path}")
    return path


def find_run(folder: Path) -> Path:
    """The folder itself if it has a config.yaml or metrics.csv, the newest run in it, or the run of a checkpoint."""
    folder = (run_of_checkpoint(folder) or folder) if folder.is_file() else folder
    found = folder if any((folder / name).is_file() for name in ("config.yaml", "metrics.csv")) else newest_run(folder)
    if found is None:
        raise T2IError(f"found no run in {folder}: give the folder of a run, such as runs/gancls_synthetic/version_0")
    return found


class Chart(NamedTuple):
    """One chart: its title, the curves by name with their points in SVG, and the labels of its axes."""

    title: str
    curves: list[tuple[str, str, str]]  # name, points, last value
    low: str
    high: str
    last: str


class Grid(NamedTuple):
    """One page of samples: its epoch, and the JPEG as base64."""

    epoch: int
    data: str


def render(run: Path) -> str:
    """The page of a run, as HTML."""
    import jinja2

    config, text = _config(run / "config.yaml")
    rows = _rows(run / "metrics.csv")
    environment = json.loads(place.read_text("utf-8")) if (place := run / ENVIRONMENT).is_file() else {}
    templates = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["number"] = number
    return page.get_template("report.html.jinja").render(
        name=f"{run.resolve().parent.name} / {run.resolve().name}",
        state=_state(run),
        facts=_facts(run, config, rows, environment),
        charts=_charts(rows),
        width=_WIDTH,
        height=_HEIGHT,
        grids=_grids(run),
        scores=_scores(run),
        config=text,
        environment=environment,
        version=__version__,
    )


def _config(path: Path) -> tuple[dict[str, Any], str]:
    """The config and its text; both empty if it is missing."""
    text = path.read_text("utf-8") if path.is_file() else ""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    return (found if isinstance(found, dict) else {}), text


def _rows(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv as numbers; a row that was cut off or has no batch is left out."""
    if not path.is_file():
        return []
    found = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers: dict[str, float] = {}
            for name, value in row.items():
                try:
                    numbers[str(name)] = float(value)
                except (TypeError, ValueError):
                    continue
            if "step" in numbers and len(numbers) > 1:
                found.append(numbers)
    return found


def _state(run: Path) -> str:
    if (run / FINISHED).is_file():
        return "finished"
    lock = run / "run.lock"
    if lock.is_file():
        begun = lock.stat()
        try:
            FileLock(lock, timeout=0).acquire().lock.release()
            os.utime(lock, ns=(begun.st_atime_ns, begun.st_mtime_ns))  # it tells which run is the newest
        except Timeout:
            return "running"
        except OSError:
            return "not finished"  # a folder that may only be read
    return "not finished"


def _facts(
    run: Path, config: dict[str, Any], rows: Sequence[dict[str, float]], environment: Mapping[str, str]
) -> dict[str, str]:
    """What the head of the page says of a run, in words; what is unknown is left out."""
    model, data = config.get("model") or {}, config.get("data") or {}
    source = data.get("source")
    options = model.get("init_args") or {}
    batches = int(max((row["step"] for row in rows), default=-1)) + 1
    epochs = int(max((row.get("epoch", -1) for row in rows), default=-1)) + 1
    planned = (config.get("trainer") or {}).get("max_epochs")
    encoder = options.get("text_encoder")
    named = {
        "model": str(model.get("class_path", "")).rpartition(".")[2],
        "data": str(source.get("class_path") if isinstance(source, dict) else source or "").rpartition(".")[2],
        "text encoder": encoder.get("kind") if isinstance(encoder, dict) else encoder,
        "images": f"{options['image_size']} px" if options.get("image_size") else "",
        "batch size": data.get("batch_size"),
        "learning rate": options.get("learning_rate"),
        "epochs": f"{epochs} of {planned}" if planned else epochs,
        "batches": f"{batches:,}",
        "seed": config.get("seed_everything"),
        "speed": _speed(run, batches / epochs if epochs else 0, data.get("batch_size"), environment),
    }
    return {name: str(value) for name, value in named.items() if value not in (None, "")}


def _speed(run: Path, batches: float, size: Any, environment: Mapping[str, str]) -> str:
    """Images per second of a usual epoch, samples included, by the times at which the samples were written.

    The median over pairs of grids leaves out the pauses of a run that was resumed.
    """
    grids = [(int(path.stem[6:]), path.stat().st_mtime) for path in _samples(run)]
    pairs = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(grids) if b[1] > a[1]]
    if not pairs or not batches:
        return ""
    seconds = statistics.median(pairs)
    many = re.match(r"(\d+) x ", environment.get("device", ""))  # processes, each with batches of this size
    size = size * int(many[1]) if many and isinstance(size, int) else size
    images = f"{batches * size / seconds:.3g} images/s, " if isinstance(size, int) else ""
    return f"{images}{seconds:.3g} s per epoch"


def _charts(rows: Sequence[dict[str, float]]) -> list[Chart]:
    """A chart for each quantity; the same one of training and validation shares a chart."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(dict)
    for row in rows:
        for name, value in row.items():
            if name in ("step", "epoch") or not math.isfinite(value):
                continue
            stage, _, rest = name.partition("/")
            title, curve = (rest, stage) if stage in ("train", "val", "test") else (name, "")
            found[title].setdefault(curve, []).append((row["step"] + 1, value))
    others = sorted(found.keys() - set(_FIRST), key=lambda title: (not title.startswith("eval/"), title))
    return [_chart(title, found[title]) for title in [*(title for title in _FIRST if title in found), *others]]


def _chart(title: str, curves: dict[str, list[tuple[float, float]]]) -> Chart:
    thinned = {name: _thinned(points) for name, points in curves.items()}
    values = [y for points in thinned.values() for _, y in points]
    last = max(x for points in thinned.values() for x, _ in points)
    low, high = min(values), max(values)
    span, base = (high - low, low) if high > low else (1.0, low - 0.5)  # a constant is in the middle
    drawn = []
    for name, points in thinned.items():
        path = " ".join(
            f"{x / last * _WIDTH:.1f},{_HEIGHT - 4 - (y - base) / span * (_HEIGHT - 8):.1f}" for x, y in points
        )
        drawn.append((name, path, number(curves[name][-1][1])))
    return Chart(title, drawn, number(low), number(high), f"{int(last):,}")


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of consecutive points where there are more than a screen shows."""
    size = math.ceil(len(points) / _POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(statistics.fmean(x for x, _ in part), statistics.fmean(y for _, y in part)) for part in parts]


def _samples(run: Path) -> list[Path]:
    return [path for path in sorted((run / "samples").glob("epoch_*.png")) if path.stem[6:].isdecimal()]


def _grids(run: Path) -> list[Grid]:
    """Pages of samples, evenly spread, with the first and the last; one that cannot be read is left out."""
    paths = _samples(run)
    if len(paths) > _GRIDS:
        paths = [paths[round(i * (len(paths) - 1) / (_GRIDS - 1))] for i in range(_GRIDS)]
    found = []
    for path in paths:
        data = io.BytesIO()
        try:
            with Image.open(path) as page:
                page.thumbnail((_SIDE, _SIDE))
                page.convert("RGB").save(data, "JPEG", quality=82)
        except OSError:  # of a process that was killed
            continue
        found.append(Grid(int(path.stem[6:]), base64.b64encode(data.getvalue()).decode()))
    return found


def _scores(run: Path) -> list[Line]:
    """The newest score of each kind and checkpoint."""
    kept = {}
    for line in read_lines(run / FILE):
        kept[tuple(line.get(key) for key in ("protocol_hash", "label", "network", "data", "batches"))] = line
    return list(kept.values())
