"""``t2i-zoo leaderboard``: all runs side by side, by the same protocols, captions and noise."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from t2i_zoo.commands.captions import check_caption, note_on_quotes
from t2i_zoo.commands.evaluate import (
    REAL,
    UNTRAINED,
    Subject,
    ask_network,
    check_batch_size,
    find_photographs,
    find_subject,
    measure,
)
from t2i_zoo.commands.sample import pick_device
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.hub import WEIGHTS
from t2i_zoo.metrics.board import Entry, as_csv, as_markdown, as_page, as_text
from t2i_zoo.metrics.evaluation import check as check_protocol
from t2i_zoo.metrics.evaluation import repeatable, seeded_noise
from t2i_zoo.metrics.networks import Network, takes_weights
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import Protocol, load_protocol
from t2i_zoo.metrics.records import FILE, Line, read_lines
from t2i_zoo.models import name_of
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.paths import check_new
from t2i_zoo.pictures import save_beside, to_pil
from t2i_zoo.runs import run_of_checkpoint
from t2i_zoo.sampling import draw_rows

FILES = ("leaderboard.csv", "leaderboard.md", "index.html")
_SIDE = 128  # images on the page are no larger
_GAP = 2
_COLUMNS = 500  # a JPEG has at most 65,500 pixels a side


def leaderboard(
    *runs: str,
    words: Sequence[str] = (),
    protocol: Sequence[str] = (),
    network: Sequence[str] = (),
    weights: str | None = None,
    images: int | None = None,
    seed: int | None = None,
    live: bool = False,
    captions: Sequence[str] = (),
    columns: int = 4,
    again: bool = False,
    batch_size: int = 64,
    device: str = "auto",
    out: str = "leaderboard",
    overwrite: bool = False,
) -> Path:
    """Compare runs in one table and on one page: evaluate what is missing, and write both.

    Args:
        runs: Runs to compare: folders, .ckpt or exported files, ``real`` for the photographs of the first run, or
            ``untrained:CONFIG`` for the initial weights of a config.
        words: options of the data, for every run; by default those of each run's own config.
        protocol: One or several protocols, as ``t2i-zoo evaluate`` takes them.
        network: Network for the protocols that leave it open, or PROTOCOL=NETWORK for each of them.
        weights: Weights of inception_v3_tf or of a torchvision network: a path, or ``random``.
        images: Number of images to generate, instead of the protocol's.
        seed: Seed of captions and noise, instead of the protocol's.
        live: Use the last weights instead of their moving average.
        captions: Captions of the samples on the page; by default those of held-out images.
        columns: Number of samples of each caption.
        again: Evaluate again what metrics.jsonl already holds.
        batch_size: Number of images generated at once; does not change the scores.
        device: Device to run on, such as cpu, cuda or cuda:1; ``auto`` takes the GPU if there is one.
        out: Folder of leaderboard.csv, leaderboard.md and index.html.
        overwrite: Replace an existing board.

    Returns:
        Path of the page.

    Raises:
        T2IError: for runs on different data, and whatever ``t2i-zoo evaluate`` refuses.
    """
    if not runs or not protocol:
        what = "no run" if not runs else "no --protocol"
        raise T2IError(f"found {what}: write t2i-zoo leaderboard RUN ... --protocol NAME --out FOLDER")
    if not 1 <= columns <= _COLUMNS:
        raise T2IError(f"found --columns {columns}, expected an integer from 1 to {_COLUMNS}")
    check_batch_size(batch_size)
    folder = Path(out).expanduser()
    check_new(*(folder / name for name in FILES), overwrite=overwrite)
    ema, device = False if live else None, pick_device(device)
    protocols = [load_protocol(name).change(images=images, seed=seed, ema=ema) for name in protocol]
    measures = _networks(protocols, network, weights)
    board = _Board(folder, list(captions), columns)
    for caption in captions:
        check_caption(caption)
    for note in note_on_quotes(captions):
        print(f"note: {note}", file=sys.stderr)

    def find(run: str) -> tuple[Subject, list[tuple[Photographs, CaptionDataModule]]]:
        """A run, and the photographs of each protocol."""
        subject = find_subject(run, device, live)
        if run == REAL:
            subject = subject._replace(config=_first_config(runs))
        return subject, [find_photographs(subject, words, chosen.size) for chosen, _ in measures]

    for run in runs:  # all of them, before the first is measured; one model at a time is in memory
        board.check(run, *find(run), measures)
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        subject, sets = find(run)
        entry = board.open(subject, sets[0][1])
        for (chosen, looking), (photographs, _) in zip(measures, sets, strict=True):
            if _needless(subject, chosen):
                continue
            lines = None if again else _known(subject, chosen, looking, photographs)
            path = subject.folder / FILE
            entry.lines += lines or measure(subject, chosen, looking, photographs, batch_size, device, path)
        if subject.model is not None:
            board.draw(subject.model, protocols[0])
    return board.write([chosen for chosen, _ in measures])  # with the networks, as they were measured


class _Board:
    """The entries of a board and its files.

    Args:
        out: folder of the board.
        captions: captions of the samples; if there are none, those of the first run's data.
        columns: number of samples of each caption.
    """

    def __init__(self, out: Path, captions: list[str], columns: int) -> None:
        self.out, self.captions, self.columns = out, captions, columns
        self.entries: list[Entry] = []
        self.data: dict[str, str] = {}  # what identifies the data: the first run on it

    def check(
        self,
        run: str,
        subject: Subject,
        sets: Sequence[tuple[Photographs, CaptionDataModule]],
        measures: Sequence[tuple[Protocol, Network | None]],
    ) -> None:
        """Raise for a run that cannot be measured or cannot draw the captions, or on other data than the runs before.

        Args:
            run: as the command names it.
            subject: what it is.
            sets: its photographs for each protocol.
            measures: the protocols with their networks.
        """
        for (chosen, looking), (photographs, _) in zip(measures, sets, strict=True):
            self._check_data(run, photographs)
            if not _needless(subject, chosen):
                check_protocol(chosen, photographs, subject.model, looking)
        if subject.model is not None and subject.model.conditional and self.captions:
            subject.model.encode(self.captions)

    def _check_data(self, run: str, photographs: Photographs) -> None:
        self.data.setdefault(_which_data(photographs), run)
        if len(self.data) > 1:
            first, second = self.data.values()
            raise T2IError(
                f"found {first} and {second} on different data or splits, expected one on a board: leave one out, or "
                "give --config NAME, --data.source.split or --data.limit for all"
            )

    def open(self, subject: Subject, module: CaptionDataModule) -> Entry:
        """Add an entry without scores; its title is unique."""
        self.captions = self.captions or list(dict.fromkeys(module.example_captions(4)))
        model, title, about = subject.model, subject.name, ""
        if model is not None:
            about = f"{model.hparams['image_size']} px, {model.clock} batches"
            if not subject.checkpoint.startswith(UNTRAINED):
                title = f"{title} ({_place_of(subject)})"
        taken = {entry.title for entry in self.entries}
        titles = [title, *(f"{title} {n}" for n in range(2, len(taken) + 2))]
        title = next(each for each in titles if each not in taken)
        key = None if model is None else name_of(model)
        self.entries.append(Entry(title, about, key, type(module.source).__name__))
        return self.entries[-1]

    def draw(self, model: Drawing, protocol: Protocol) -> None:
        """For each caption write a JPEG of ``columns`` samples side by side; every model gets the same noise seeds."""
        texts = self.captions if model.conditional else [""] * len(self.captions)
        noise = seeded_noise(model, list(range(self.columns)), protocol.seed)
        with repeatable():
            rows = draw_rows(model, texts, noise, ema=protocol.ema)
        for i, (caption, row) in enumerate(zip(self.captions, rows, strict=True)):
            cells = to_pil(row)
            side = min(_SIDE, cells[0].width)
            strip = Image.new("RGB", (self.columns * (side + _GAP) - _GAP, side), "white")
            for j, cell in enumerate(cells):
                strip.paste(cell if cell.width == side else cell.resize((side, side)), (j * (side + _GAP), 0))
            name = self.entries[-1].strips[caption] = f"pictures/{len(self.entries) - 1:02d}_{i:02d}.jpg"
            save_beside(strip, self.out / name)

    def write(self, protocols: Sequence[Protocol]) -> Path:
        """Write the table and the page, and return the path of the page."""
        page = self.out / FILES[-1]
        texts = as_csv(self.entries), as_markdown(self.entries), as_page(self.entries, self.captions, protocols)
        for name, text in zip(FILES, texts, strict=True):
            with replacing(self.out / name) as beside:
                beside.write_text(text, "utf-8")
        print(f"\n{as_text(self.entries)}\nthe board: {page}")
        return page


def _needless(subject: Subject, protocol: Protocol) -> bool:
    """Whether these are photographs of which the protocol measures nothing, since the diversity is 1 by definition."""
    return subject.model is None and set(protocol.metrics) == {"caption_diversity"}


def _first_config(runs: Sequence[str]) -> Path | None:
    """The config of the first run that has one: the data of ``real``."""
    configs = (find_subject(run).config for run in runs if run != REAL)
    return next((found for found in configs if found is not None), None)


def _which_data(photographs: Photographs) -> str:
    """What identifies the files and options of a source, its split and limit included, wherever its folder is."""
    made = photographs.store.manifest
    options = {name: value for name, value in (made.get("source") or {}).items() if name != "root"}
    kept = len(photographs.labels)  # fewer with a limit, which no option of the source tells
    return json.dumps([made.get("source_fingerprint"), options, kept], sort_keys=True, default=str)


def _place_of(subject: Subject) -> str:
    """Where a model is from, in short: its run, the repository or folder that holds it, or its file."""
    path = Path(subject.checkpoint)
    if run := run_of_checkpoint(path):
        return f"{run.parent.name}/{run.name}"
    return subject.folder.absolute().name if path.name == WEIGHTS else path.stem


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


def _networks(
    protocols: Sequence[Protocol], wishes: Sequence[str], weights: str | None
) -> list[tuple[Protocol, Network | None]]:
    """Each protocol with its network, from words that are NETWORK or PROTOCOL=NETWORK."""
    pairs = [wish.partition("=") for wish in wishes]
    names = {protocol.name for protocol in protocols}
    named = {name: rest for name, sign, rest in pairs if sign and name in names}
    general = [wish for wish in wishes if wish.partition("=")[0] not in named]
    if len(general) > 1:
        raise T2IError(f"found the networks {' and '.join(general)}: say which is whose as PROTOCOL=NETWORK")
    unused = [name for name in named if not next(one for one in protocols if one.name == name).needs_network]
    if general and not any(one.network == "ask" and one.name not in named for one in protocols):
        unused += general
    if unused:
        raise T2IError(
            f"found --network {unused[0]}, which no protocol asks for: leave it out, or name a protocol with a network "
            "as PROTOCOL=NETWORK"
        )
    open_one = general[0] if general else None
    wanted = [named.get(each.name) or (open_one if each.network == "ask" else None) for each in protocols]
    takes = [takes_weights(wish or each.network or "") for each, wish in zip(protocols, wanted, strict=True)]
    return [
        ask_network(each, wish, weights if fits or not any(takes) else None)  # which refuses them where none fits
        for each, wish, fits in zip(protocols, wanted, takes, strict=True)
    ]
