"""The packed store: whole or not there, rebuilt when its source changes, safe from kills and from company."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_zoo.data import CaptionFolder, Flowers102, Record, Source, packing
from t2i_zoo.data import store as store_module
from t2i_zoo.data.reading import tree_fingerprint
from t2i_zoo.data.store import StoreSpec, open_store
from t2i_zoo.errors import T2IError
from t2i_zoo.text import TextCache
from t2i_zoo.text.hashing import HashingEncoder


def fill(folder, count=12, size=20):
    """Picture i is of colour i and has i % 3 + 1 captions that name it."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("RGB", (size, size), (i, 255 - i, 7)).save(folder / f"p{i:03d}.png")
        captions = [f"picture {i} line {j}" for j in range(i % 3 + 1)]
        (folder / f"p{i:03d}.txt").write_text("\n".join(captions), "utf-8")
    return folder


def check(store, numbers):
    """Pictures, captions and splits of the store belong together and are those of ``numbers``."""
    parts = (store.starts, store.shapes, store.labels, store.splits)
    assert [len(part) for part in parts] == [len(numbers)] * 4
    assert store.manifest["pictures"] == len(numbers)
    assert store.manifest["captions"] == len(store.captions) == store.offsets[-1]
    for row, i in enumerate(numbers):
        assert (store.image(row) == (i, 255 - i, 7)).all()
        own = store.captions[store.offsets[row] : store.offsets[row + 1]]
        assert own == [f"picture {i} line {j}" for j in range(i % 3 + 1)]
    assert store.damaged_files() == []


@pytest.fixture
def spec(tmp_path):
    return StoreSpec(CaptionFolder(str(fill(tmp_path / "source"))), 8)


@pytest.fixture
def stores(tmp_path):
    return tmp_path / "cache" / "stores"


@pytest.fixture
def packings(monkeypatch):
    """Counts how often a store is packed."""
    calls, real = [], store_module.pack
    monkeypatch.setattr(store_module, "pack", lambda *args: (calls.append(1), real(*args)))
    return calls


def test_packs_once_and_opens_from_then_on(spec, stores, packings):
    for _ in range(3):
        check(open_store(spec, stores, progress=True), range(12))
    assert len(packings) == 1
    assert [p.name for p in stores.iterdir() if p.is_dir()] == [spec.key()]


def test_options_have_stores_of_their_own(spec, stores):
    assert StoreSpec(spec.source, 8, draft=True).key() != spec.key()
    other = StoreSpec(spec.source, 6, "center_crop")
    assert open_store(other, stores).pixels().data.shape == (12, 6, 6, 3)
    check(open_store(spec, stores), range(12))


@pytest.mark.parametrize("change", ["caption", "removed", "added", "picture"])
def test_an_outdated_store_is_rebuilt(spec, stores, packings, change):
    root = spec.source.path
    open_store(spec, stores)
    if change == "caption":
        (root / "p000.txt").write_text("picture 0 line 0\nand another", "utf-8")
    elif change == "removed":
        (root / "p011.png").unlink()
        (root / "p011.txt").unlink()
    elif change == "added":
        fill(root, 13)
    else:
        Image.new("RGB", (9, 9), "white").save(root / "p000.png")
    store = open_store(spec, stores)
    assert len(packings) == 2
    if change == "caption":
        assert store.captions[:2] == ["picture 0 line 0", "and another"]
    elif change == "picture":
        assert (store.images[0] == 255).all()
    else:
        check(store, range(13 if change == "added" else 11))


def damage(place, how):
    manifest = place / "manifest.json"
    if how == "cut":
        os.truncate(place / "images.npy", 100)
    elif how == "gone":
        (place / "captions.json").unlink()
    elif how == "no manifest":
        manifest.unlink()
    elif how == "half manifest":
        manifest.write_text(manifest.read_text("utf-8")[:50], "utf-8")
    elif how == "odd manifest":
        manifest.write_text("[]", "utf-8")
    elif how == "other format":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text("utf-8")), "format": 0}), "utf-8")
    elif how == "a file":
        shutil.rmtree(place)
        place.write_text("?", "utf-8")
    else:  # as long as it should be, and no archive
        (place / "table.npz").write_bytes(b"x" * (place / "table.npz").stat().st_size)


@pytest.mark.parametrize(
    "how",
    ["cut", "gone", "no manifest", "half manifest", "odd manifest", "other format", "a file", "garbled"],
)
def test_an_incomplete_store_is_rebuilt(spec, stores, packings, how):
    place = open_store(spec, stores).folder
    damage(place, how)
    check(open_store(spec, stores), range(12))
    assert len(packings) == 2


def test_a_flipped_byte_is_found(spec, stores):
    store = open_store(spec, stores)
    with (store.folder / "images.npy").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    assert open_store(spec, stores).damaged_files() == ["images.npy"]


PACKING = """
import itertools, sys
from t2i_zoo.data import CaptionFolder, packing, store
real, numbers, last = packing.load_image, itertools.count(1), int(sys.argv[3])
def load(*args):
    number = next(numbers)
    if number == last + 1:  # one of the threads says it: two would write into each other's lines
        print("stuck", flush=True)
    if number > last:
        sys.stdin.read()  # until the test closes it
    return real(*args)
packing.load_image = load
print(len(store.open_store(store.StoreSpec(CaptionFolder(sys.argv[1]), 8), store.Path(sys.argv[2])).starts))
"""


def start(spec, stores, last=12):
    """A process that packs, and is stuck after its first ``last`` images of twelve."""
    words = [sys.executable, "-c", PACKING, str(spec.source.path), str(stores), str(last)]
    # a job in the background ignores Ctrl-C, and its children inherit that
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed)


def wait_until_stuck(process):
    assert process.stdout.readline() == "stuck\n", process.stderr.read()


@pytest.mark.parametrize("pictures", [0, 1, 11])
def test_a_killed_packing_leaves_nothing_that_is_taken_for_a_store(spec, stores, pictures):
    process = start(spec, stores, pictures)
    wait_until_stuck(process)
    assert list(stores.glob("*.tmp-*/images.npy"))
    process.kill()
    process.communicate()
    check(open_store(spec, stores), range(12))
    assert not list(stores.glob("*.tmp-*"))


def test_ctrl_c_leaves_nothing(spec, stores):
    process = start(spec, stores, 3)
    wait_until_stuck(process)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=300)[1]
    assert [p.suffix for p in stores.iterdir()] == [".lock"]


def test_two_processes_at_once_make_one_good_store(spec, stores):
    both = [start(spec, stores) for _ in range(2)]
    for process in both:
        out, error = process.communicate(timeout=300)
        assert out == "12\n", error
    check(open_store(spec, stores), range(12))
    assert len([p for p in stores.iterdir() if p.is_dir()]) == 1


def test_bad_pictures_raise_or_are_skipped_with_everything_aligned(spec, stores):
    (spec.source.path / "p000.png").write_bytes(b"<html>")
    (spec.source.path / "p007.png").write_bytes(b"")
    with pytest.raises(T2IError, match=r"p000\.png is not a readable image.*on_bad_image skip"):
        open_store(spec, stores)
    assert not [p for p in stores.iterdir() if p.is_dir()]
    store = open_store(StoreSpec(spec.source, 8, on_bad_image="skip"), stores)
    check(store, [i for i in range(12) if i not in (0, 7)])
    assert ["p000.png" in store.manifest["skipped"][0], "p007.png" in store.manifest["skipped"][1]] == [True, True]
    assert sorted(store.manifest["files"]) == ["captions.json", "images.npy", "table.npz"]


def test_nothing_but_bad_pictures(tmp_path, stores):
    root = fill(tmp_path / "source", 3)
    for path in root.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(T2IError, match=r"none of the 3 images of .*source can be read, such as: .*p000\.png is not"):
        open_store(StoreSpec(CaptionFolder(str(root)), 8, on_bad_image="skip"), stores)


def test_an_error_in_a_thread_stops_the_others(tmp_path, stores, monkeypatch):
    calls = []

    def load(*_):
        calls.append(threading.get_ident())
        raise MemoryError("bad")

    monkeypatch.setattr(packing, "load_image", load)
    with pytest.raises(MemoryError, match="bad"):
        open_store(StoreSpec(CaptionFolder(str(fill(tmp_path / "s", 100, 2))), 8), stores)
    assert len(calls) < 100


def test_missing_folder(stores, tmp_path):
    with pytest.raises(T2IError, match=r"there is no folder .*nowhere"):
        open_store(StoreSpec(CaptionFolder(str(tmp_path / "nowhere")), 8), stores)


class Listed(Source):
    def __init__(self, root, **changes):
        self.root, self.changes = str(root), changes

    def records(self):
        plain = [Record(self.path / f"p{i:03d}.png", ("a",), i % 2) for i in range(4)]
        return [*plain[:3], Record(**{**vars(plain[3]), **self.changes})]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_id": -1}, r"p003\.png has the label -1, expected 0 to .*: number the classes from 0"),
        ({"class_id": 10**9}, r"p003\.png has the label 1000000000, expected 0 to"),
        ({"class_id": None}, r"1 of 4 images have no class and the others have one .*p003\.png"),
        ({"captions": ()}, r"1 of the 4 images .*has no caption \(.*p003\.png"),
        ({"captions": (" ",)}, r"1 of the 4 images .*has no caption \(.*p003\.png"),
        ({"split": "valid"}, r"p003\.png is in the split 'valid', expected one of train, val, test"),
        ({"image": Path("/nowhere/x.png")}, r"/nowhere/x\.png is not a readable image"),
    ],
)
def test_bad_records_of_a_source(tmp_path, stores, changes, sentence):
    with pytest.raises(T2IError, match=sentence):
        open_store(StoreSpec(Listed(fill(tmp_path / "s"), **changes), 8), stores)


def test_odd_characters_survive(tmp_path, stores):
    caption = 'blüte "花" \U0001f33c \ud800 \u2028'
    store = open_store(StoreSpec(Listed(fill(tmp_path / "s"), captions=(caption,)), 8), stores)
    assert store.captions[3] == caption


def test_links_are_followed_once_and_broken_ones_are_no_harm(tmp_path):
    root, elsewhere = fill(tmp_path / "source", 2), fill(tmp_path / "elsewhere", 2)
    (root / "linked").symlink_to(elsewhere)
    (root / "loop").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "broken").symlink_to(tmp_path / "nothing")
    first = tree_fingerprint(root)
    assert tree_fingerprint(root) == first
    (root / ".DS_Store").write_text("x", "utf-8")
    assert tree_fingerprint(root) == first
    (elsewhere / "p000.txt").write_text("changed behind the link", "utf-8")
    assert tree_fingerprint(root) != first


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    root, real = fill(tmp_path / "source", 2), os.scandir
    (root / "closed").mkdir()

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        T2IError, match=r"the folder .*closed cannot be read \(Permission denied\).*--data\.source\.root"
    ):
        tree_fingerprint(root)


@pytest.mark.parametrize("place", ["stores", "cache/stores"])  # the cache is the source's folder, or inside it
def test_a_cache_inside_the_source_does_not_outdate_itself(tmp_path, packings, place):
    spec = StoreSpec(CaptionFolder(str(fill(tmp_path / "source"))), 8)
    for number in range(3):
        open_store(spec, spec.source.path / place)
        if place == "cache/stores":  # features of captions
            (spec.source.path / f"cache/text/{number}").mkdir(parents=True)
            (spec.source.path / f"cache/text/{number}/other.npy").touch()
        cache = TextCache((spec.source.path / place).parent / "text", HashingEncoder(dim=8))
        cache.ensure([f"caption {number}"])
    assert len(packings) == 1
    fill(spec.source.path, 13)
    check(open_store(spec, spec.source.path / place), range(13))


def test_a_cache_folder_that_cannot_be_made(spec, tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(T2IError, match=r"the cache folder .*file/x cannot be written .*--data\.cache_dir"):
        open_store(spec, tmp_path / "file" / "x")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room on the disk")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(spec, stores, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(T2IError, match=r"the cache folder .* cannot be written \(No space left.*make room"):
        open_store(spec, stores)
    assert [p.suffix for p in stores.iterdir()] == [".lock"]


def test_the_real_flowers_are_decoded_once(oxford102, stores, monkeypatch):
    decoded = []

    def load(record, *_):
        decoded.append(record)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(packing, "load_image", load)
    spec = StoreSpec(Flowers102(str(oxford102)), 8)
    assert open_store(spec, stores).pixels().data.shape == (8189, 8, 8, 3)
    assert len(open_store(spec, stores).offsets) == 8190
    assert len(decoded) == 8189
