"""What happens when things go wrong: ``python tests/faults.py`` tries it and prints the table of docs/reliability.md.

Runs are tiny and are compared, bit for bit, with one that nothing happened to. Rows that need a disk of their own mount
one and are left out where that is not allowed; ``--kills`` and ``--only`` make it shorter.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from processes import Process

from t2i_zoo.__main__ import main
from t2i_zoo.models.state import read_checkpoint

TINY = Path(__file__).with_name("tiny.yaml")
DATA = ["--data.source.images", "64", "--data.source.size", "24"]
EPOCHS, BATCHES = 5, 6
CALLBACKS = """
import os, shutil
from pathlib import Path
import lightning as L
import torch

class Fill(L.Callback):  # the disk of the run, in the second epoch
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            trainer.strategy.checkpoint_io.teardown()  # the checkpoint of the first is there
            room = shutil.disk_usage(trainer.log_dir).free
            Path(trainer.log_dir, "fill").write_bytes(bytes(max(room - 1_000_000, 0)))

class Spoil(L.Callback):  # a weight, after the second epoch's last batch
    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 1:
            torch.nn.init.constant_(next(module.generator_ema.parameters()), float("nan"))
"""
Row = tuple[str, str, str]
rng = random.Random(0)


def words(folder: Path, *more: str) -> list[str]:
    """A run that starts, or goes on."""
    options = ["fit", "--config", "gancls_synthetic", "--config", str(TINY), *DATA, "--ckpt_path", "auto"]
    options += ["--trainer.default_root_dir", str(folder), "--trainer.max_epochs", str(EPOCHS)]
    options += ["--model.generator_width", "48", "--model.discriminator_width", "32"]  # checkpoints of megabytes
    return [*options, "--trainer.limit_train_batches", str(BATCHES), "--samples.every_n_epochs", "2", *more]


def run(command: list[str], log: Path, after: float | None = None, number: int = signal.SIGKILL, **more: str) -> int:
    """Exit code of a command that gets a signal after some seconds."""
    process = Process(["-m", "t2i_zoo", *command], log, **more)
    if after is not None:
        process._process.join(after)
        if process._process.exitcode is None:
            os.kill(process._process.pid, number)
    return process.wait()


def said(log: Path) -> str:
    """The sentence of an error; that nothing else looks like one."""
    text = log.read_text()
    assert "Traceback" not in text, text
    sentences = [line[7:] for line in text.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, text
    return sentences[0]


def differs(run_: Path, reference: Path) -> list[str]:
    """Which of weights, optimizers, random states, metrics and the names of grids are others than without a fault."""

    def content(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        saved = read_checkpoint(folder / "checkpoints" / "last.ckpt")
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "t2i_zoo"):
            torch.save(saved[key], buffer := io.BytesIO())
            found[key] = buffer.getvalue()
        found["metrics.csv"] = (folder / "metrics.csv").read_bytes()
        return {**found, "grids": sorted(path.name for path in (folder / "samples").glob("[!.]*"))}

    there, here = content(run_), content(reference)
    different = [key for key in here if there[key] != here[key]]
    if different:
        print(f"{run_} differs in {', '.join(different)}", flush=True)
    if "grids" in different:
        print(there["grids"], "instead of", here["grids"], flush=True)
    if "metrics.csv" in different:
        print(there["metrics.csv"].decode(), "instead of", here["metrics.csv"].decode(), sep="\n", flush=True)
    return different


def whole(root: Path) -> None:
    """Every checkpoint that a fault has left can be read, and is finite."""
    for path in root.rglob("*.ckpt"):
        read_checkpoint(path)


@contextlib.contextmanager
def disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A disk of this size, by which a full and a read-only one are tried."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


class Faults:
    """Each public method is a row or several of them."""

    def __init__(self, folder: Path, kills: int) -> None:
        self.folder, self.kills, self.log = folder, kills, folder / "log"
        (folder / "faults_callbacks.py").write_text(CALLBACKS)
        start = time.monotonic()
        assert run(words(folder / "reference"), self.log) == 0, self.log.read_text()
        start = time.monotonic()  # the first one has drawn and packed the data
        assert run(words(folder / "again"), self.log) == 0
        self.seconds, self.reference = time.monotonic() - start, folder / "reference" / "version_0"
        assert not differs(folder / "again" / "version_0", self.reference)

    def signals(self) -> Iterator[Row]:
        """Signals at random moments; the same command goes on until it is finished."""
        for name, number, times in (
            ("SIGKILL of `fit`", signal.SIGKILL, self.kills),
            ("SIGTERM of `fit`", signal.SIGTERM, self.kills // 5),
            ("SIGINT of `fit`", signal.SIGINT, self.kills // 5),
        ):
            codes: dict[int, int] = {}
            done, runs, lost = 0, 0, 0
            while done < times:
                root, finished = self.folder / f"{name[:7]}_{runs}", False
                runs += 1
                while not finished:
                    after = rng.uniform(0, 1.1 * self.seconds) if done < times else None
                    code = run(words(root), self.log, after, number)
                    assert "Traceback" not in self.log.read_text(), self.log.read_text()
                    newest = max(root.glob("version_*"), key=lambda p: int(p.name[8:]), default=None)
                    finished = newest is not None and (newest / "finished.json").is_file()
                    done += not finished
                    codes[code] = codes.get(code, 0) + (not finished)
                    whole(root)
                lost += bool(differs(newest, self.reference))
                shutil.rmtree(root)
            told = ", ".join(f"{code} ({count} times)" for code, count in codes.items() if count)
            yield name, f"{done} times in {runs} runs: exit {told}", f"{runs - lost} of {runs} runs end bit for bit"

    def prepare(self) -> Iterator[Row]:
        """Kills of ``prepare``, which then goes on."""
        command = ["prepare", "--config", "gancls_synthetic", *DATA]

        def stored(cache: Path) -> str:
            data = ("images.npy", "table.npz", "captions.json", "sentence.npy", "keys.npy")  # without times and places
            files = sorted(path.read_bytes() for path in cache.rglob("*") if path.name in data)
            assert len(files) == len(data)
            return hashlib.sha256(b"".join(files)).hexdigest()

        start = time.monotonic()
        assert run(command, self.log, T2I_ZOO_CACHE=str(self.folder / "cache")) == 0, self.log.read_text()
        seconds, expected, same = time.monotonic() - start, stored(self.folder / "cache"), 0
        rounds = max(self.kills // 5, 1)
        for number in range(rounds):
            cache = self.folder / f"cache_{number}"
            for _ in range(5):
                run(command, self.log, rng.uniform(0, seconds), T2I_ZOO_CACHE=str(cache))
            assert run(command, self.log, T2I_ZOO_CACHE=str(cache)) == 0, self.log.read_text()
            assert run([*command, "--verify", "true"], self.log, T2I_ZOO_CACHE=str(cache)) == 0, self.log.read_text()
            same += stored(cache) == expected
            shutil.rmtree(cache)
        yield "SIGKILL of `prepare`", f"{5 * rounds} times in {rounds} caches", f"{same} of {rounds} caches are whole"

    def numbers(self) -> Iterator[Row]:
        """A learning rate that is too high, and a weight that is spoilt later."""
        root = self.folder / "rate"
        assert run(words(root, "--model.learning_rate", "1e30"), self.log) == 2
        assert not list(root.rglob("finished.json"))
        whole(root)
        yield "NaN from the first batches", f"exit 2: {said(self.log)}", "no checkpoint that is not finite"
        root = self.folder / "spoilt"
        spoil = ["--trainer.callbacks+", "faults_callbacks.Spoil"]
        code = run(words(root, *spoil, "--trainer.max_epochs", "2"), self.log, PYTHONPATH=str(self.folder))
        assert code == 2, self.log.read_text()
        last = read_checkpoint(root / "version_0" / "checkpoints" / "last.ckpt")
        assert last["t2i_zoo"]["clock"] == BATCHES
        told = said(self.log).replace(str(self.folder), "...")
        assert run(words(root), self.log) == 0
        kept = "not the same" if differs(root / "version_0", self.reference) else "resumed, it ends bit for bit"
        yield "NaN in a weight at the end", f"exit 2: {told}", f"the former checkpoint; {kept}"

    def disks(self) -> Iterator[Row]:
        """A full disk before, in and beside training, and one that cannot be written."""
        with disk(self.folder / "small", 1) as place:
            assert run(words(place / "run"), self.log) == 2, self.log.read_text()
            assert not list(place.rglob("version_*"))
            yield "too small a disk", f"exit 2: {self._short()}", "no folder"
        with disk(self.folder / "full", 24) as place:
            fill = ["--trainer.callbacks+", "faults_callbacks.Fill"]
            assert run(words(place / "run", *fill), self.log, PYTHONPATH=str(self.folder)) == 2, self.log.read_text()
            told = self._short()
            last = read_checkpoint(place / "run" / "version_0" / "checkpoints" / "last.ckpt")
            (place / "run" / "version_0" / "fill").unlink()
            assert run(words(place / "run"), self.log) == 0, self.log.read_text()
            kept = "not the same" if differs(place / "run" / "version_0", self.reference) else "it ends bit for bit"
            batches = last["t2i_zoo"]["clock"]
            yield "disk full in training", f"exit 2: {told}", f"the checkpoint of batch {batches}; resumed, {kept}"
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
            assert run(words(place / "other"), self.log) == 2, self.log.read_text()
            yield "read-only folder of runs", f"exit 2: {self._short()}", "nothing"
            code = run(["prepare", "--config", "gancls_synthetic", *DATA], self.log, T2I_ZOO_CACHE=str(place / "cache"))
            assert code == 2, self.log.read_text()
            yield "read-only cache", f"exit 2: {self._short()}", "nothing"
        with disk(self.folder / "cache_disk", 1) as place:
            many = ["--data.source.images", "2000", "--data.source.root", str(self.folder / "many")]
            code = run(["prepare", "--config", "gancls_synthetic", *many], self.log, T2I_ZOO_CACHE=str(place))
            assert code == 2, self.log.read_text()
            left = [path.name for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"]
            yield "disk full in `prepare`", f"exit 2: {self._short()}", f"{len(left)} files"

    def together(self) -> Iterator[Row]:
        """Two processes in one place."""
        root = self.folder / "two"
        assert run(words(root, "--trainer.max_epochs", "1"), self.log) == 0
        slow = ["--trainer.max_epochs", "100000"]
        first = Process(["-m", "t2i_zoo", *words(root, *slow)], self.folder / "first")
        rows, metrics = None, root / "version_0" / "metrics.csv"
        while rows is None or len(metrics.read_text().splitlines()) <= rows + 2:
            rows = rows or len(metrics.read_text().splitlines())
            time.sleep(0.1)
        assert run(words(root), self.log) == 2, self.log.read_text()
        first.terminate()
        assert first.wait() == 0
        yield "two resumes of one run", f"exit 2 of the second: {self._short()}", "the first goes on"
        fresh = [Process(["-m", "t2i_zoo", *words(self.folder / "fresh")], self.folder / f"f{i}") for i in range(2)]
        starts = [process.wait() for process in fresh]
        names = sorted(path.name for path in (self.folder / "fresh").iterdir())
        yield "two starts at once", f"exit {starts[0]} and {starts[1]}", f"two runs: {', '.join(names)}"

    def ranks(self) -> Iterator[Row]:
        """One of two processes of a run is killed; they are Lightning's own, so not forked."""
        for lost in (1, 0):
            root = self.folder / f"rank{lost}"
            pair = ["--trainer.devices", "2", "--trainer.strategy", "ddp_find_unused_parameters_true"]
            command = words(root, *pair, "--trainer.max_epochs", "100000", "--data.batch_size", "4")
            with self.log.open("w") as log:
                main_ = subprocess.Popen(
                    [sys.executable, "-m", "t2i_zoo", *command], stdout=log, stderr=log, env={**os.environ}
                )
                while not list(root.rglob("last.ckpt")):
                    assert main_.poll() is None, self.log.read_text()
                    time.sleep(0.5)
                other = Path(f"/proc/{main_.pid}/task/{main_.pid}/children").read_text().split()[0]
                os.kill(int(other) if lost else main_.pid, signal.SIGKILL)
                code = main_.wait()
                while Path(f"/proc/{other}").exists() and Path(f"/proc/{other}/stat").read_text().split()[2] != "Z":
                    time.sleep(0.5)
            told, batches = said(self.log), read_checkpoint(next(root.rglob("last.ckpt")))["t2i_zoo"]["clock"]
            assert run(words(root, "--trainer.max_epochs", "1"), self.log) == 0, self.log.read_text()
            yield f"SIGKILL of rank {lost} of 2", f"exit {code}: {told}", f"the checkpoint of batch {batches}"

    def values(self) -> Iterator[Row]:
        """Every wrong option that the tests know."""
        from system.test_mistakes import OPTIONS  # needs pytest

        good, root = 0, self.folder / "values"
        for option in OPTIONS:
            out = io.StringIO()
            with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
                at = words(root)
                code = main([*at[: at.index("--ckpt_path")], *at[at.index("--ckpt_path") + 2 :], *option.split(" ")])
            sentences = [line for line in out.getvalue().splitlines() if line.startswith("error: ")]
            good += code == 2 and len(sentences) == 1
        left = len(list(root.glob("version_*")))
        yield f"{len(OPTIONS)} wrong values", f"exit 2 with one sentence {good} times", f"{left} folders"

    def _short(self) -> str:
        return said(self.log).replace(str(self.folder), "...")


def table(kills: int, only: str | None) -> None:
    """Print the rows as they come."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"T2I_ZOO_CACHE": str(Path(folder) / "shared"), "PYTHONPATH": str(Path(__file__).parents[1])}
        faults = Faults(Path(folder), kills)
        print("| fault | what happens | what is left |\n|---|---|---|", flush=True)
        parts: list[Callable[[], Iterator[Row]]] = [
            *(faults.signals, faults.prepare, faults.numbers, faults.disks, faults.together, faults.ranks),
            faults.values,
        ]
        for part in parts:
            if only in (None, part.__name__):
                try:
                    for row in part():
                        print(f"| {' | '.join(row)} |", flush=True)
                except subprocess.CalledProcessError:
                    print("| (disks) | not run: mounting needs root | |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", help="signals, prepare, numbers, disks, together, ranks or values")
    given = parser.parse_args()
    table(given.kills, given.only)
