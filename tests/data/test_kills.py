"""``t2i-zoo prepare`` killed at any moment, and twice at once: the next run finds nothing half."""

import os
import signal
import time
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
MOMENTS = int(os.environ.get("T2I_ZOO_KILLS", "20"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES):
        Image.new("RGB", (200, 150), (i, 255 - i, 7)).save(root / f"p{i:02d}.png")
        (root / f"p{i:02d}.txt").write_text("".join(f"picture {i} line {j}\n" for j in range(5)), "utf-8")
    return root


def prepare(root: Path, cache: Path) -> int:
    """Begin ``prepare`` in a process of its own; a fork, so that nothing has to be imported again."""
    if process := os.fork():
        return process
    code = 1
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        words = ["--data.source", "CaptionFolder", "--data.source.root", str(root), "--data.cache_dir", str(cache)]
        code = main(["prepare", *words, "--data.image_size", "16", "--text_encoder", "{kind: hashing, dim: 64}"])
    finally:
        os._exit(code)


def end(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def check(root: Path, cache: Path) -> None:
    """One whole store and all features."""
    store = open_store(StoreSpec(CaptionFolder(str(root)), 19), cache / "stores")
    assert [path.name for path in (cache / "stores").iterdir() if path.is_dir()] == [store.folder.name]
    assert store.damaged_files() == []
    for row in range(PICTURES):
        assert (store.picture(row) == (row, 255 - row, 7)).all()
        assert store.captions[store.offsets[row]] == f"picture {row} line 0"
    encoder = HashingEncoder(64)
    features = TextCache(cache / "text", encoder)
    assert len(features) == 5 * PICTURES
    assert np.array_equal(features.sentences(store.captions), encoder.encode(store.captions).sentence.numpy())


def test_killed_at_random_moments(root: Path, tmp_path: Path) -> None:
    whole = 10.0
    for name in ("clean", "clean again"):  # the second one finds everything warm
        start = time.perf_counter()
        assert end(prepare(root, tmp_path / name)) == 0
        whole = min(whole, time.perf_counter() - start)
        check(root, tmp_path / name)
    killed = 0
    for number, moment in enumerate(np.random.default_rng(0).uniform(0, whole, MOMENTS)):
        cache = tmp_path / f"cache{number}"
        process = prepare(root, cache)
        time.sleep(moment)
        os.kill(process, signal.SIGKILL)
        killed += end(process) == -signal.SIGKILL
        assert end(prepare(root, cache)) == 0, f"after a kill at {moment:.3f} s of {whole:.3f} s"
        check(root, cache)
    assert killed >= MOMENTS // 4  # on a busy machine some end before their moment


def test_two_at_once(root: Path, tmp_path: Path) -> None:
    both = [prepare(root, tmp_path / "cache") for _ in range(2)]
    assert [end(process) for process in both] == [0, 0]
    store = open_store(StoreSpec(CaptionFolder(str(root)), 19), tmp_path / "cache" / "stores")
    assert store.damaged_files() == []
    assert len([path for path in (tmp_path / "cache" / "stores").iterdir() if path.is_dir()]) == 1
    features = TextCache(tmp_path / "cache" / "text", HashingEncoder(64))
    assert len(features) == 5 * PICTURES
