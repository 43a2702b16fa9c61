"""``t2i-zoo prepare`` killed at any moment, and twice at once: the next run finds nothing half."""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.data import CaptionFolder
from t2i_zoo.data.store import StoreSpec, open_store
from t2i_zoo.text import TextCache
from t2i_zoo.text.hashing import HashingEncoder

PICTURES = 16
KILLS = int(os.environ.get("T2I_ZOO_KILLS", "12"))
CHANGES = (
    "open",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
)  # as Python audits

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES):
        Image.new("RGB", (200, 150), (i, 255 - i, 7)).save(root / f"p{i:02d}.png")
        (root / f"p{i:02d}.txt").write_text("".join(f"picture {i} line {j}\n" for j in range(5)), "utf-8")
    return root


def prepare(root: Path, cache: Path, step: Callable[[], None] | None = None) -> int:
    """Begin ``prepare`` in a process of its own; a fork, so that nothing has to be imported again.

    ``step`` is called in that process before each operation on a file of the source or the cache.
    """
    if process := os.fork():
        return process
    code = 1

    def watch(event: str, args: tuple[object, ...]) -> None:
        if step is not None and event in CHANGES and str(args[0]).startswith((str(root), str(cache))):
            step()

    try:
        sys.addaudithook(watch)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        words = ["--data.source", "CaptionFolder", "--data.source.root", str(root), "--data.cache_dir", str(cache)]
        code = main(["prepare", *words, "--data.image_size", "16", "--text_encoder", "{kind: hashing, dim: 64}"])
    finally:
        os._exit(code)


def killer(last: int) -> Callable[[], None]:
    """What kills its process instead of the step that follows ``last`` steps."""
    steps = itertools.count(1)

    def step() -> None:
        if next(steps) > last:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def end(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def check(root: Path, cache: Path) -> None:
    """One whole store and all features."""
    store = open_store(StoreSpec(CaptionFolder(str(root)), 19), cache / "stores")
    assert [path.name for path in (cache / "stores").iterdir() if path.is_dir()] == [store.folder.name]
    assert store.damaged_files() == []
    for row in range(PICTURES):
        assert (store.image(row) == (row, 255 - row, 7)).all()
        assert store.captions[store.offsets[row]] == f"picture {row} line 0"
    encoder = HashingEncoder(64)
    features = TextCache(cache / "text", encoder)
    assert len(features) == 5 * PICTURES
    assert np.array_equal(features.sentences(store.captions), encoder.encode(store.captions).sentence.numpy())


def test_killed_between_any_two_file_operations(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "steps"
    note = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    assert end(prepare(root, tmp_path / "clean", lambda: os.write(note, b"."))) == 0
    os.close(note)
    check(root, tmp_path / "clean")
    steps = log.stat().st_size
    assert steps > 5 * KILLS
    for last in np.linspace(1, steps - 1, KILLS, dtype=int).tolist():
        cache = tmp_path / f"cache{last}"
        assert end(prepare(root, cache, killer(last))) == -signal.SIGKILL
        assert end(prepare(root, cache)) == 0, f"after a kill behind {last} of {steps} file operations"
        check(root, cache)


def test_two_at_once(root: Path, tmp_path: Path) -> None:
    both = [prepare(root, tmp_path / "cache") for _ in range(2)]
    assert [end(process) for process in both] == [0, 0]
    store = open_store(StoreSpec(CaptionFolder(str(root)), 19), tmp_path / "cache" / "stores")
    assert store.damaged_files() == []
    assert len([path for path in (tmp_path / "cache" / "stores").iterdir() if path.is_dir()]) == 1
    features = TextCache(tmp_path / "cache" / "text", HashingEncoder(64))
    assert len(features) == 5 * PICTURES
