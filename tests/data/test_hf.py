"""Sets of the library ``datasets``: from its own folders, from pictures with metadata, and a hub that is not there."""

import builtins
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import records_of
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.data import Embedded, HFDataset
from t2i_zoo.data.store import StoreSpec, open_store
from t2i_zoo.errors import T2IError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def table(count: int = 10, **columns: list[Any]) -> Any:
    pictures = [Image.new("RGB", (20, 16), (10 * i, 0, 255 - 10 * i)) for i in range(count)]
    rows = {"image": pictures, "caption": [[f"picture {i}", f"number {i}"] for i in range(count)], **columns}
    features = {"image": datasets.Image(), "caption": datasets.Sequence(datasets.Value("string"))}
    for name, values in columns.items():
        kind = "int64" if isinstance(values[0], int) else "string"
        features[name] = datasets.Value(kind)
    if "label" in columns and isinstance(columns["label"][0], int):
        features["label"] = datasets.ClassLabel(names=["rose", "lily", "aster"])
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def save(set_: Any, path: Path) -> str:
    set_.save_to_disk(str(path))
    return str(path)


def error(match: str, root: str, **options: Any) -> None:
    with pytest.raises(T2IError, match=match):
        records_of(HFDataset(root, **options))


def test_a_saved_set_with_splits_and_classes(tmp_path: Path) -> None:
    parts = {
        name: table(count, label=[i % 3 for i in range(count)]) for name, count in (("train", 6), ("validation", 3))
    }
    root = save(datasets.DatasetDict(parts), tmp_path / "set")
    records = HFDataset(root).records()
    assert [(record.class_id, record.split) for record in records[5:8]] == [(2, "train"), (0, "val"), (1, "val")]
    assert records[4].captions == ("picture 4", "number 4")
    store = open_store(StoreSpec(HFDataset(root), 8), tmp_path / "stores")
    assert (store.image(4) == (40, 0, 215)).all()
    assert open_store(StoreSpec(HFDataset(root), 8), tmp_path / "stores").folder == store.folder


def test_a_single_table_is_divided(tmp_path: Path) -> None:
    root = save(table(20, label=["a"] * 10 + ["b"] * 10), tmp_path / "set")
    assert Counter(record.split for record in HFDataset(root).records()) == {"train": 18, "test": 2}
    assert Counter(record.split for record in HFDataset(root, val_fraction=0.0).records()) == {"train": 20}
    assert {record.class_id for record in HFDataset(root).records()} == {0, 1}


def test_a_folder_of_pictures_with_metadata(tmp_path: Path) -> None:
    root = tmp_path / "own"
    (root / "train").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (9, 9), (9 * i, 0, 0)).save(root / "train" / f"{i}.png")
    rows = [json.dumps({"file_name": f"{i}.png", "text": f"number {i}"}) for i in range(4)]
    (root / "train" / "metadata.jsonl").write_text("\n".join(rows))
    records = HFDataset(str(root), val_fraction=0.0).records()
    assert [record.captions for record in records] == [(f"number {i}",) for i in range(4)]
    assert (open_store(StoreSpec(HFDataset(str(root)), 9), tmp_path / "stores").image(3) == (27, 0, 0)).all()


def test_a_changed_folder_is_packed_again(tmp_path: Path) -> None:
    root = save(table(4), tmp_path / "set")
    first = HFDataset(root).fingerprint()
    assert HFDataset(root).fingerprint() == first
    save(table(5), tmp_path / "set")
    assert HFDataset(root).fingerprint() != first


def test_columns_and_splits_of_other_names(tmp_path: Path) -> None:
    own = table(4, kind=["x", "y", "x", "y"]).rename_columns({"image": "photo", "caption": "words"})
    root = save(datasets.DatasetDict({"first": own, "second": own}), tmp_path / "set")
    options = {"caption": "words", "label": "kind", "splits": {"second": "test", "first": "train"}}
    records = HFDataset(root, **options).records()  # type: ignore[arg-type]
    assert [record.split for record in records] == ["train"] * 4 + ["test"] * 4
    assert [record.class_id for record in records[:4]] == [0, 1, 0, 1]
    assert len(HFDataset(root, caption="words", splits={"second": "train"}).records()) == 4
    error(r"'first' is none of train, val and test: .*--data\.source\.splits", root, caption="words")
    error(r"found third: train in --data\.source\.splits", root, caption="words", splits={"third": "train"})
    error(r"no column of captions .*among photo, words, kind: ", root, splits={"first": "test"})
    error(r"no column of images \('pixels'\) among photo", root, image="pixels", splits={"first": "test"})


@pytest.mark.parametrize(
    ("caption", "label", "match"),
    [
        ([" "], 0, r"1 of the 4 images .*train\[2\]: the caption is blank"),
        ([], 0, r"train\[2\]: the list is empty"),
        (["c"], -1, r"1 of 4 images have no class and the others have one .*train\[2\]"),
    ],
)
def test_bad_rows(tmp_path: Path, caption: list[str], label: int, match: str) -> None:
    good = table(4, label=[0, 1, label, 2])
    captions = [*good["caption"][:2], caption, *good["caption"][3:]]
    bad = good.remove_columns("caption").add_column("caption", captions)
    error(match, save(datasets.DatasetDict({"train": bad}), tmp_path / "set"))


def test_a_row_without_a_picture_is_named_or_left_out(tmp_path: Path) -> None:
    whole = table(4)
    pictures = [*whole["image"][:3], None]
    features = whole.features
    part = datasets.Dataset.from_dict({"image": pictures, "caption": whole["caption"]}, features=features)
    root = save(part, tmp_path / "set")
    with pytest.raises(T2IError, match=r"all\[3\]|train\[3\] is not a readable image .*has no image"):
        open_store(StoreSpec(HFDataset(root), 8), tmp_path / "stores")
    assert len(open_store(StoreSpec(HFDataset(root), 8, on_bad_image="skip"), tmp_path / "stores").starts) == 3


def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error(r"no data set is given: set --data\.source\.root", "")
    error(
        r"'nobody/nothing' is not a folder, and the hub did not return .*check the name and the network",
        "nobody/nothing",
    )
    (tmp_path / "empty").mkdir()
    error(r"empty cannot be loaded as a data set", str(tmp_path / "empty"))
    root = save(table(3), tmp_path / "set")
    next((tmp_path / "set").glob("*.arrow")).write_bytes(b"?" * 50)
    error(r"set cannot be loaded as a data set \(", root)
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    error(r"HFDataset needs the library datasets: pip install", root)


def test_prepare_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = save(table(10), tmp_path / "set")
    words = ["--data.source", "HFDataset", "--data.source.root", root, "--data.cache_dir", str(tmp_path / "c")]
    assert main(["prepare", *words, "--data.image_size", "16"]) == 0
    assert capsys.readouterr().out.startswith("10 images (9 train, 0 val, 1 test), 20 captions")


def test_pictures_are_read_when_they_are_needed(tmp_path: Path) -> None:
    record = HFDataset(save(table(3), tmp_path / "set")).records()[1]
    assert isinstance(record.image, Embedded)
    assert record.image.read()[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.asarray(record.class_id is None)


def test_rows_of_one_picture_are_one(tmp_path: Path) -> None:
    """Twenty pictures in five rows of one caption each, mixed, and a row without a picture."""
    names = [f"number {i}, line {k}" for k in range(5) for i in range(20)]
    pictures = [Image.new("RGB", (9, 9), (int(name.split()[1][:-1]), 0, 0)) for name in names]
    rows = {"image": [*pictures, None], "caption": [*names, "none"], "label": [*(["a", "b"] * 50), "a"]}
    features = {"image": datasets.Image(), **dict.fromkeys(("caption", "label"), datasets.Value("string"))}
    root = save(datasets.Dataset.from_dict(rows, features=datasets.Features(features)), tmp_path / "set")
    *records, last = HFDataset(root).records()
    assert [record.captions for record in records] == [
        tuple(f"number {i}, line {k}" for k in range(5)) for i in range(20)
    ]
    assert [record.class_id for record in records] == [0, 1] * 10
    assert last.captions == ("none",)
    assert len({record.image.name for record in records if isinstance(record.image, Embedded)}) == 20
