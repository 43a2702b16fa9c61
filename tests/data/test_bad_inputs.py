"""What people's folders really hold: every bad thing is one sentence that names it, or is counted and left out."""

import json
import os
import resource
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.data import CaptionFolder
from t2i_zoo.data.packing import FORMAT, listing
from t2i_zoo.data.store import StoreSpec, open_store
from t2i_zoo.errors import T2IError
from t2i_zoo.text import TextCache
from t2i_zoo.text.hashing import HashingEncoder

RED = (200, 30, 40)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six good pictures with a caption each."""
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(6):
        Image.new("RGB", (30, 20), (40 * i, 0, 0)).save(root / f"{i}.jpg")
        (root / f"{i}.txt").write_text(f"picture {i}", "utf-8")
    return root


@pytest.fixture
def mistake(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What ``t2i-zoo prepare`` says of the folder: exit code 2 and one line."""

    def run(*words: str) -> str:
        source = ["--data.source", "CaptionFolder", "--data.source.root", str(root), "--data.image_size", "16"]
        capsys.readouterr()
        code = main(["prepare", *source, "--data.cache_dir", str(tmp_path / "cache"), *words])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) == (2, 1)
        return lines[0]

    return run


def read(root: Path, **options: object):
    return listing(StoreSpec(CaptionFolder(str(root), **options), 16))[0]  # type: ignore[arg-type]


def pack(root: Path, tmp_path: Path, **options: object):
    source = CaptionFolder(str(root), val_fraction=0.0)
    return open_store(StoreSpec(source, 16, **options), tmp_path / "stores")  # type: ignore[arg-type]


# Pictures -------------------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noise(path: Path) -> bytes:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return path.read_bytes()


BROKEN = {
    "truncated.jpg": (lambda path: noise(path)[:900], "truncated|broken|OSError"),
    "truncated.png": (lambda path: noise(path)[:900], "truncated|broken|OSError"),
    "empty.jpg": (lambda path: b"", "unknown image format"),
    "page.jpg": (lambda path: b"<!DOCTYPE html><html><body>Not found</body></html>", "unknown image format"),
    "bomb.png": (lambda path: bomb(), "3,?600,?000,?000 pixels.*--data.max_megapixels"),
    "zeros.jpg": (lambda path: bytes(5000), "unknown image format"),
    "head.jpg": (lambda path: b"\xff\xd8\xff\xe0" + bytes(100), "."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named_or_counted(root: Path, tmp_path: Path, name: str) -> None:
    make, reason = BROKEN[name]
    (root / name).write_bytes(make(root / name))
    (root / name).with_suffix(".txt").write_text("a picture")
    with pytest.raises(T2IError, match=rf"{name} is not a readable image \(.*({reason}).*on_bad_image skip"):
        pack(root, tmp_path)
    store = pack(root, tmp_path, on_bad_image="skip")
    assert len(store.starts) == 6
    assert store.remarks() == ["1 of 7 images cannot be read and is left out"]
    assert name in store.manifest["skipped"][0]


def turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)


ODD = {
    "grey.png": lambda path: Image.new("L", (20, 30), 90).save(path),
    "clear.png": lambda path: Image.new("RGBA", (20, 30), (*RED, 255)).save(path),
    "print.jpg": lambda path: Image.new("RGB", (20, 30), RED).convert("CMYK").save(path, quality=95),
    "palette.gif": lambda path: Image.new("RGB", (20, 30), RED).quantize(4).save(path),
    "deep.png": lambda path: Image.fromarray(np.full((30, 20), 90 * 257, np.uint16)).save(path),
    "turned.jpg": lambda path: turned(Image.new("RGB", (20, 30), RED), path),
    "dot.png": lambda path: Image.new("RGB", (1, 1), RED).save(path),
    "line.png": lambda path: Image.new("RGB", (20_000, 10), RED).save(path),
    "pole.png": lambda path: Image.new("RGB", (10, 20_000), RED).save(path),
}


@pytest.mark.parametrize("resize", ["stretch", "short_side"])
def test_odd_pictures_are_as_good_as_any(root: Path, tmp_path: Path, resize: str) -> None:
    for name, make in ODD.items():
        make(root / name)
        (root / name).with_suffix(".txt").write_text("a picture")
    store = pack(root, tmp_path, resize=resize)
    rows = {record.image.name: row for row, record in enumerate(read(root, val_fraction=0.0))}
    assert store.remarks() == []
    for name in ODD:
        pixels = store.image(rows[name])
        assert min(pixels.shape[:2]) == 16
        colour = (90, 90, 90) if name in ("grey.png", "deep.png") else RED
        assert np.abs(pixels.astype(int) - colour).max() <= 4, name
    if resize == "short_side":
        assert store.image(rows["turned.jpg"]).shape == (16, 24, 3)  # lies on its side once it is turned
        assert store.image(rows["line.png"]).shape == (16, 32_000, 3)


def test_a_split_of_which_nothing_is_left_is_said(root: Path, tmp_path: Path) -> None:
    (root / "metadata.jsonl").write_text(
        "\n".join(
            json.dumps({"file_name": f"{i}.jpg", "caption": "c", "split": "val" if i > 3 else "train"})
            for i in range(6)
        )
    )
    for i in (4, 5):
        (root / f"{i}.jpg").write_bytes(b"")
    said = pack(root, tmp_path, on_bad_image="skip").remarks()
    assert said[0] == "2 of 6 images cannot be read and are left out"
    assert said[1:] == ["nothing is left of the val split: repair its images or add others"]


# Captions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"0\.txt holds blank lines only"),
        (b" \r\n\t\n", r"0\.txt holds blank lines only"),
        (b"\x81\x8d\x8f", r"0\.txt is not text in UTF-8, UTF-16 or Windows-1252: save it as UTF-8"),
        (bytes(9), r"0\.txt is not text"),
    ],
)
def test_a_bad_caption_file(root: Path, content: bytes, sentence: str) -> None:
    (root / "0.txt").write_bytes(content)
    with pytest.raises(T2IError, match=sentence):
        read(root)


def test_odd_captions_are_as_good_as_any(root: Path, tmp_path: Path) -> None:
    long, emoji = "word " * 10_000, "a \U0001f33c flower \u2764\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467"
    (root / "0.txt").write_bytes(b"\xef\xbb\xbfmarked\r\nby a byte order mark\r\n")
    (root / "1.txt").write_text(long)
    (root / "2.txt").write_text(f"{emoji}\nzero\u200bwidth \u202eturned", "utf-8")
    captions = [record.captions for record in read(root, val_fraction=0.0)[:3]]
    assert captions[0] == ("marked", "by a byte order mark")
    assert captions[1] == (long.strip(),)
    assert captions[2][0] == emoji
    assert pack(root, tmp_path).captions[:2] == list(captions[0])
    features = HashingEncoder(16).encode([long, emoji], words=True)
    assert features.words is not None
    assert features.words.shape == (2, 32, 16)
    assert features.sentence.isfinite().all()


def test_a_caption_without_a_word_is_shown(mistake, root: Path) -> None:
    (root / "3.txt").write_text("\u2060\u2060", "utf-8")  # invisible: nothing to name
    assert r"is '\u2060\u2060', which has no word to encode" in mistake()


# Metadata -------------------------------------------------------------------------------------------------------------


def lines(root: Path, *rows: object) -> None:
    (root / "metadata.jsonl").write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))


def test_line_57_is_broken(mistake, root: Path) -> None:
    good = [{"file_name": "0.jpg", "caption": f"caption {i}"} for i in range(80)]
    lines(root, *good[:56], '{"file_name": "1.jpg", "caption": "unfinished', *good[57:])
    assert "metadata.jsonl, line 57: broken JSON (" in mistake()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ('{"file_name": ' + "[" * 100_000, "line 2: broken JSON"),
        (
            {"file_name": "../../etc/passwd.jpg", "caption": "c"},
            r"line 2: '\.\./\.\./etc/passwd\.jpg' leaves the folder",
        ),
        ({"file_name": "a\0b.jpg", "caption": "c"}, "line 2: .* leaves the folder"),
        ({"file_name": "x" * 5000 + ".jpg", "caption": "c"}, "line 2: there is no image"),
        ({"file_name": "\ud800.jpg", "caption": "c"}, "line 2: there is no image"),
        ({"file_name": "1.jpg", "caption": "c", "label": -3}, "line 2: the label is -3, expected 0 or more"),
        ({"file_name": "1.jpg", "caption": "c", "label": "-03"}, "line 2: the label is -03, expected 0 or more"),
        ({"file_name": "1.jpg", "caption": "c", "label": [1]}, r"line 2: the class is \[1\], expected a word or"),
        ({"file_name": "1.jpg", "caption": "c", "label": True}, "line 2: the class is True"),
    ],
)
def test_a_bad_row(root: Path, row: object, sentence: str) -> None:
    lines(root, {"file_name": "0.jpg", "caption": "zero", "label": 4}, row)
    with pytest.raises(T2IError, match=rf"metadata\.jsonl, {sentence}"):
        read(root)


def test_numbers_and_words_that_are_far_out_are_still_classes(root: Path) -> None:
    lines(
        root,
        *({"file_name": f"{i}.jpg", "caption": "c", "label": label} for i, label in enumerate(("7", "9" * 300, 0))),
    )
    assert [record.class_id for record in read(root)] == [1, 2, 0]  # as words: one has more digits than a number may


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            "file_name,text_of_it\n0.jpg,c\n",
            r"metadata\.csv, line 1: no column of captions .*among file_name, text_of_it",
        ),
        ("picture,caption\n0.jpg,c\n", r"metadata\.csv, line 1: no column of file names"),
        ('file_name,caption\n0.jpg,c\n1.jpg,"never closed\n2.jpg,c\n', r"metadata\.csv, line 3: broken table"),
        ("file_name,caption\n0.jpg,a,b\n", r"line 2: 3 cells under 2 columns .*put double quotes"),
        ("file_name,caption\n0.jpg," + "c" * 200_000 + "\n", r"line 2: broken table \(field larger"),
    ],
)
def test_a_bad_table(root: Path, table: str, sentence: str) -> None:
    (root / "metadata.csv").write_text(table)
    with pytest.raises(T2IError, match=sentence):
        read(root)


# The disk -------------------------------------------------------------------------------------------------------------


def test_links_that_lead_in_a_circle(root: Path, tmp_path: Path) -> None:
    other, inner = tmp_path / "other", root / "a"
    other.mkdir()
    inner.mkdir()
    for path in sorted(root.glob("?.*")):
        path.rename((other if path.stem == "0" else inner) / path.name)
    (inner / "back").symlink_to(root)
    (root / "itself").symlink_to(root / "itself")
    (root / "b").symlink_to(other)
    (inner / "nowhere.jpg").symlink_to(tmp_path / "nothing")
    (inner / "nowhere.txt").write_text("a broken link")
    records = read(root, val_fraction=0.0)
    names = [record.image.relative_to(root).as_posix() for record in records]
    assert names == [*(f"a/{i}.jpg" for i in range(1, 6)), "a/nowhere.jpg", "b/0.jpg"]
    assert [record.class_id for record in records] == [0] * 6 + [1]
    with pytest.raises(T2IError, match=r"nowhere\.jpg is not a readable image \(FileNotFoundError"):
        pack(root, tmp_path)


def test_names_that_differ_in_case_alone(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "5.JPG", "jpeg")
    if len(list(root.glob("5.[jJ]*"))) < 2:
        pytest.skip("this disk takes both for one")
    with pytest.raises(T2IError, match=r"share a caption file .*\(5\.txt: .*5\.JPG and .*5\.jpg\), .*rename one"):
        read(root)
    (root / "5.JPG").rename(root / "X.jpg")
    (root / "x.txt").write_text("a small x")
    assert len(read(root)) == 7
    Image.new("RGB", (8, 8)).save(root / "x.jpg")
    with pytest.raises(T2IError, match=r"X\.jpg: there is no file .*X\.txt"):
        read(root)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond ``size`` bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of files are set as on Linux")
def test_a_disk_without_room(root: Path, tmp_path: Path) -> None:
    with files_of_at_most(4000), pytest.raises(T2IError, match=r"cache folder .*stores cannot be written .*make room"):
        pack(root, tmp_path)
    assert not [path for path in (tmp_path / "stores").iterdir() if path.is_dir()]
    cache = TextCache(tmp_path / "text", HashingEncoder(1024))
    with files_of_at_most(4000), pytest.raises(T2IError, match=r"text cache .* cannot be written .*--data\.cache_dir"):
        cache.ensure(["one caption", "and another"])
    assert not list(cache.folder.glob("*"))
    cache.ensure(["one caption", "and another"])
    assert len(cache) == 2


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="no folder here that nobody may write to")
def test_a_folder_that_nobody_may_write_to(mistake) -> None:
    said = mistake("--data.cache_dir", "/sys/kernel/t2i")
    assert "cache folder /sys/kernel/t2i/stores cannot be written (" in said
    assert "--data.cache_dir" in said


def test_a_store_of_a_newer_version_is_left_alone(root: Path, tmp_path: Path) -> None:
    store = pack(root, tmp_path)
    path = store.folder / "manifest.json"
    newer = json.dumps({**store.manifest, "format": FORMAT + 1})
    path.write_text(newer)
    with pytest.raises(T2IError, match=rf"written by a newer t2i-zoo \(format {FORMAT + 1}, .*upgrade t2i-zoo"):
        pack(root, tmp_path)
    assert path.read_text() == newer
    os.truncate(store.folder / "images.npy", 50)  # nor is a damaged one of a newer version repaired into ours
    with pytest.raises(T2IError, match="written by a newer"):
        pack(root, tmp_path)
