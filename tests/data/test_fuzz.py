"""Readers of metadata, .mat files and annotations under random input: they read it, or say what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import write_coco
from scipy.io import savemat

from t2i_zoo.data import CaptionFolder, COCOCaptions, Flowers102
from t2i_zoo.data.flowers import _read_mat
from t2i_zoo.errors import T2IError

T = TypeVar("T")
LIGHT = settings(
    deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

KEYS = ["file_name", "image", "file", "caption", "captions", "text", "caption_1", "class", "label", "split", "other"]
SIMPLE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["a.jpg", "b.png", "../a.jpg", "train", "test", "a caption", "-1", "9" * 5000, ""]),
)  # fmt: skip
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
ROWS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8), max_size=6)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def outcome(call: Callable[[], T]) -> tuple[T | None, str]:
    """What a reader gives, or the sentence that it says instead; any other error ends the test."""
    try:
        return call(), ""
    except T2IError as error:
        return None, str(error)


def read(root: Path, name: str, content: bytes) -> None:
    """Read a folder with this metadata; only our own error may come out of it, in one line."""
    (root / name).write_bytes(content)
    records, said = outcome(CaptionFolder(str(root), metadata=name).records)
    assert bool(records) != bool(said)
    assert "\n" not in said
    for record in records or ():
        assert all(caption.strip() for caption in record.captions)
        assert record.captions or record.lacks or record.lost
        assert record.image.parent == root or record.lost


@LIGHT
@given(rows=ROWS)
def test_json_objects(root: Path, rows: list[dict[str, object]]) -> None:
    read(root, "m.jsonl", "\n".join(json.dumps(row) for row in rows).encode("utf-8", "surrogatepass"))


@LIGHT
@given(content=st.binary(max_size=300) | st.text(alphabet='{}[]",:\\\n\r abc0.-e', max_size=120).map(str.encode))
def test_json_bytes(root: Path, content: bytes) -> None:
    read(root, "m.jsonl", content)


@LIGHT
@given(
    cells=st.lists(st.lists(st.text(max_size=12) | st.sampled_from(["a.jpg", "b.png", "x"]), max_size=5), max_size=6),
    separator=st.sampled_from([",", "\t", ';"', '"']),
    name=st.sampled_from(["m.csv", "m.tsv"]),
)
def test_tables(root: Path, cells: list[list[str]], separator: str, name: str) -> None:
    body = "\n".join(separator.join(row) for row in [["file_name", "caption", "label"], *cells])
    read(root, name, body.encode("utf-8", "surrogatepass"))


@LIGHT
@given(content=st.binary(max_size=300))
def test_table_bytes(root: Path, content: bytes) -> None:
    read(root, "m.csv", b"file_name,caption\n" + content)


@LIGHT
@given(data=st.data())
def test_mat_files(root: Path, data: st.DataObject) -> None:
    path = root / "imagelabels.mat"
    savemat(path, {"labels": np.arange(1, 9, dtype=np.uint8)[None]}, do_compression=data.draw(st.booleans()))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found, said = outcome(lambda: _read_mat(path, "labels"))
    assert all(isinstance(number, int) for number in found or ())
    assert found is not None or "imagelabels.mat" in said


@LIGHT
@given(values=st.lists(st.integers(-5, 300), max_size=12), kind=st.sampled_from(["labels", "trnid"]))
def test_labels_of_any_size(root: Path, values: list[int], kind: str) -> None:
    (root / "jpg").mkdir(exist_ok=True)
    for n in range(1, 4):
        (root / f"jpg/image_{n:05d}.jpg").touch()
        (root / f"text_c10/class_{n:05d}").mkdir(parents=True, exist_ok=True)
        (root / f"text_c10/class_{n:05d}/image_{n:05d}.txt").write_text("a flower")
    savemat(root / "imagelabels.mat", {"labels": np.array(values if kind == "labels" else [1, 2, 3])})
    savemat(root / "setid.mat", {"trnid": np.array(values), "valid": [[2]], "tstid": [[3]]})
    records, said = outcome(Flowers102(str(root), "official").records)
    assert len(records or ()) == (0 if said else 3)
    assert len(said.splitlines()) <= 1


@LIGHT
@given(
    key=st.sampled_from(["images", "annotations", "categories"]),
    rows=st.lists(
        st.dictionaries(st.sampled_from(["id", "file_name", "image_id", "caption", "area"]), VALUES), max_size=3
    )
    | VALUES,
)
def test_coco_annotations(tmp_path_factory: pytest.TempPathFactory, key: str, rows: object) -> None:
    root = coco_folder(tmp_path_factory)
    for name in ("captions", "instances"):
        path = root / "annotations" / f"{name}_val2014.json"
        whole = path.read_text()
        path.write_text(json.dumps({**json.loads(whole), key: rows}))
        records, said = outcome(COCOCaptions(str(root), classes="largest").records)
        path.write_text(whole)
        assert records or f"{name}_val2014.json" in said


_FOLDER: list[Path] = []


def coco_folder(factory: pytest.TempPathFactory) -> Path:
    if not _FOLDER:
        _FOLDER.append(write_coco(factory.mktemp("coco"), 3))
    return _FOLDER[0]
