"""``t2i-zoo leaderboard``: all runs side by side, by the same protocols, captions and noise."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from t2i_zoo.commands.evaluate import (
    REAL,
    UNTRAINED,
    Subject,
    add_own_options,
    ask_network,
    changes,
    evaluate,
    find_photographs,
    find_subject,
    split_words,
)
from t2i_zoo.commands.sample import pick_device
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.board import Entry, as_csv, as_markdown, as_page
from t2i_zoo.metrics.evaluation import repeatable, seeded_noise
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import Protocol, load_protocol
from t2i_zoo.metrics.records import FILE, Line, read_lines
from t2i_zoo.models import MODELS
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.pictures import save_beside, to_pil

_SIDE = 128  # pictures on the page are no larger
_GAP = 2


def leaderboard(
    runs: Sequence[str],
    protocols: Sequence[tuple[Protocol, Network | None]],
    out: Path,
    words: Sequence[str] = (),
    captions: Sequence[str] = (),
    columns: int = 4,
    batch_size: int = 64,
    device: str = "cpu",
    again: bool = False,
) -> Path:
    """Evaluate what has not been evaluated, and write ``leaderboard.csv``, ``leaderboard.md`` and ``index.html``.

    Args:
        runs: as ``--ckpt`` of ``evaluate`` takes them; ``real`` means the photographs of the first run.
        protocols: each with its network.
        out: folder of the board.
        words: ``--config`` and ``--data.*``, for every run; by default each run's own data.
        captions: that all models draw; by default those of held-out pictures.
        columns: pictures of each caption.
        batch_size: pictures drawn at once.
        device: of models and networks.
        again: evaluate what ``metrics.jsonl`` holds already too.

    Returns:
        Path of the page.

    Raises:
        T2IError: for runs on different data.
    """
    entries: list[Entry] = []
    data: dict[str, str] = {}  # what tells data apart: the first run on it
    configs = (find_subject(run).config for run in runs if run != REAL)
    config = next((found for found in configs if found is not None), None) if REAL in runs else None
    for run in runs:
        subject = find_subject(run, device, live=not protocols[0][0].ema)
        if run == REAL:
            subject = subject._replace(config=config)
        entry: Entry | None = None
        for protocol, network in protocols:
            photographs, module = find_photographs(subject, words, protocol.size)
            data.setdefault(_which_data(photographs), run)
            if len(data) > 1:
                first, second = data.values()
                raise T2IError(
                    f"found {first} and {second} on different data or splits, expected one on a board: leave one out, "
                    "or say --config NAME or --data.source.split for all"
                )
            if entry is None:
                entry = _entry(subject, module, {other.title for other in entries})
                captions = captions or _captions(module)
            if subject.model is None and set(protocol.metrics) == {"caption_diversity"}:
                continue  # of photographs it is 1 by definition
            known = None if again else _known(subject, protocol, network, photographs)
            entry.lines += known or evaluate(subject, protocol, network, photographs, batch_size, device)
        assert entry is not None
        if subject.model is not None:
            entry.strips = draw_strips(subject.model, captions, columns, protocols[0][0], out, len(entries))
        entries.append(entry)
    _write(out / "leaderboard.csv", as_csv(entries))
    _write(out / "leaderboard.md", as_markdown(entries))
    _write(out / "index.html", as_page(entries, captions, [protocol for protocol, _ in protocols]))
    print(f"the board: {out / 'index.html'}")
    return out / "index.html"


def _which_data(photographs: Photographs) -> str:
    """The files and options of a source, its split among them, wherever it lies."""
    made = photographs.store.manifest
    options = {name: value for name, value in (made.get("source") or {}).items() if name != "root"}
    return json.dumps([made.get("source_fingerprint"), options], sort_keys=True, default=str)


def _entry(subject: Subject, module: CaptionDataModule, taken: set[str]) -> Entry:
    """A row without scores; its title is no other row's."""
    model, title = subject.model, subject.name
    if subject.model is not None and not subject.checkpoint.startswith(UNTRAINED):
        title = f"{title} ({subject.folder.parent.name}/{subject.folder.name})"
    titles = [title, *(f"{title} {n}" for n in range(2, len(taken) + 2))]
    title = next(each for each in titles if each not in taken)
    about, key = "", None
    if model is not None:
        about = f"{model.hparams['image_size']} px, {model.clock} batches"
        key = next((k for k, entry in MODELS.items() if entry.path.endswith(f".{type(model).__name__}")), None)
    return Entry(title, about, key, type(module.source).__name__)


def _captions(module: CaptionDataModule) -> list[str]:
    return list(dict.fromkeys(module.example_captions(4)))


def _known(
    subject: Subject, protocol: Protocol, network: Network | None, photographs: Photographs
) -> list[Line] | None:
    """The newest scores of this very checkpoint by this very protocol, or None."""
    wanted = {
        "checkpoint_sha256": subject.sha256,
        "protocol_hash": protocol.hash,
        "network_fingerprint": None if network is None else network.fingerprint,
        "data": photographs.key,
    }
    if not subject.sha256:
        wanted["checkpoint"] = subject.checkpoint
    lines = [x for x in read_lines(subject.folder / FILE) if all(x.get(name) == v for name, v in wanted.items())]
    return [line for line in lines if line["time"] == lines[-1]["time"]] if lines else None


def draw_strips(
    model: TextToImageGAN, captions: Sequence[str], columns: int, protocol: Protocol, out: Path, place: int
) -> dict[str, str]:
    """For each caption a JPEG with ``columns`` pictures side by side; every model gets the same noise seeds."""
    noise, files = seeded_noise(model, list(range(columns)), protocol.seed), {}
    for i, caption in enumerate(captions):
        with repeatable():
            images = model.generate([caption if model.conditional else ""] * columns, noise=noise, ema=protocol.ema)
        cells = to_pil(images)
        side = min(_SIDE, cells[0].width)
        strip = Image.new("RGB", (columns * (side + _GAP) - _GAP, side), "white")
        for j, cell in enumerate(cells):
            strip.paste(cell if cell.width == side else cell.resize((side, side)), (j * (side + _GAP), 0))
        files[caption] = f"pictures/{place:02d}_{i:02d}.jpg"
        save_beside(strip, out / files[caption])
    return files


def _write(path: Path, text: str) -> None:
    """Write beside and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        beside.write_text(text, "utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _networks(
    protocols: Sequence[Protocol], wishes: Sequence[str], weights: str | None
) -> list[tuple[Protocol, Network | None]]:
    """Each protocol with its network; a wish is NETWORK for all that leave it open, or PROTOCOL=NETWORK."""
    pairs = [wish.partition("=") for wish in wishes]
    names = {protocol.name for protocol in protocols}
    named = {name: rest for name, sign, rest in pairs if sign and name in names}
    general = [wish for wish in wishes if wish.partition("=")[0] not in named]
    if len(general) > 1:
        raise T2IError(f"found the networks {' and '.join(general)}: say which is whose as PROTOCOL=NETWORK")
    result = []
    for protocol in protocols:
        wish = named.get(protocol.name) or (general[0] if general and protocol.network == "ask" else None)
        result.append(ask_network(protocol, wish, weights))
    return result


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="t2i-zoo leaderboard", description=__doc__, allow_abbrev=False, exit_on_error=False, add_help=False
    )
    parser.add_argument("runs", nargs="*", help="run folders, .ckpt files, real, or untrained:CONFIG")
    parser.add_argument("--protocol", nargs="+", default=[], help="one or several, as evaluate takes them")
    parser.add_argument("--network", nargs="+", default=[], help="NETWORK, or PROTOCOL=NETWORK for each protocol")
    parser.add_argument("--out", default="leaderboard", help="folder of the table, the page and its pictures")
    parser.add_argument("--captions", nargs="+", default=[], help="that all models draw; by default held-out ones")
    parser.add_argument("--columns", type=int, default=4, help="pictures of each caption")
    parser.add_argument("--again", action="store_true", help="evaluate what metrics.jsonl holds already too")
    add_own_options(parser)
    found, rest = split_words(parser, words)
    if not found.runs or not found.protocol:
        what = "no run" if not found.runs else "no --protocol"
        raise T2IError(f"found {what}: write t2i-zoo leaderboard RUN ... --protocol NAME --out FOLDER")
    if found.columns < 1:
        raise T2IError(f"found --columns {found.columns}, expected at least 1")
    protocols = [load_protocol(name).change(**changes(found)) for name in found.protocol]
    device = pick_device(found.device)
    leaderboard(
        found.runs,
        _networks(protocols, found.network, found.weights),
        Path(found.out).expanduser(),
        rest,
        found.captions,
        found.columns,
        found.batch_size,
        device,
        found.again,
    )
