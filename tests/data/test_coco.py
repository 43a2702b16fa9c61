"""COCO with captions: both years, classes from the largest object, and one test an error."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from layouts import records_of, write_coco

from t2i_zoo.data import COCOCaptions
from t2i_zoo.errors import T2IError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", 12)


def change(root: Path, name: str, edit: Any) -> None:
    path = root / "annotations" / name
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def error(root: Path, match: str, **options: Any) -> None:
    with pytest.raises(T2IError, match=match):
        records_of(COCOCaptions(str(root), **options))


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_records_follow_the_files(tmp_path: Path, year: Any) -> None:
    records = COCOCaptions(str(write_coco(tmp_path, 12, year)), year).records()
    assert [record.split for record in records] == ["train"] * 8 + ["test"] * 4
    prefix = "COCO_train2014_" if year == "2014" else ""
    assert records[1].image == tmp_path / f"train{year}" / f"{prefix}000000000016.jpg"
    assert all(record.image.is_file() for record in records)
    assert {record.class_id for record in records} == {None}
    # in the order of the file, which is not that of their numbers, and on one line each
    assert records[1].captions[0] in {f"A car number 1 is parked, seen {j} times." for j in range(5)}
    assert len(set(records[1].captions)) == 5


def test_how_many_captions_are_kept(root: Path) -> None:
    counts = {
        n: Counter(len(r.captions) for r in COCOCaptions(str(root), captions_per_picture=n).records())
        for n in (0, 2, 5)
    }
    assert counts == {0: {6: 1, 5: 11}, 2: {2: 12}, 5: {5: 12}}


def test_the_largest_object_is_the_class(root: Path) -> None:
    labels = [record.class_id for record in COCOCaptions(str(root), classes="largest").records()]
    # categories 1, 3 and 18 are 0, 1 and 2; every fourth picture has no object and the class behind them
    assert labels == [3, 1, 2, 1] * 3


def first_image(content: dict[str, Any], **changes: Any) -> None:
    content["images"][0].update(changes)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (
            lambda c: c["images"][0].update(file_name="../../x.jpg"),
            r"images\[0\]: '\.\./\.\./x\.jpg' leaves the folder",
        ),
        (lambda c: c["images"][0].update(file_name="/etc/x.jpg"), r"images\[0\]: '/etc/x\.jpg' leaves the folder"),
        (lambda c: c["images"][0].update(file_name="x.jpg"), r"there is no image .*train2014.x\.jpg, which"),
        (lambda c: c["images"][0].update(file_name=7), r"images\[0\]: file_name is 7, expected text"),
        (lambda c: c["images"][1].update(id=9), r"images\[1\]: .* has the id 9 of another image"),
        (lambda c: c["images"][1].update(id="9"), r"images\[1\]: id is '9', expected an integer"),
        (lambda c: c["images"].append([]), r"images\[8\]: id is None, expected an integer"),
        (lambda c: c.pop("images"), r"has no list 'images'"),
        (lambda c: c.update(images=[], annotations=[]), r"lists no image"),
        (lambda c: c["annotations"][0].update(image_id=1), r"annotations\[0\]: the caption is of image 1, which"),
        (
            lambda c: [row.update(caption=None) for row in c["annotations"] if row["image_id"] == 9],
            r"1 of the 12 images .*COCO_train2014_000000000009\.jpg: captions_train2014\.json holds no caption of it",
        ),
        (lambda c: c.update(annotations=[]), r"8 of the 12 images .*; and 3 more\): .*--data\.on_bad_caption skip"),
    ],
)
def test_bad_captions_file(root: Path, edit: Any, match: str) -> None:
    change(root, "captions_train2014.json", edit)
    error(root, match)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (
            lambda c: c["annotations"][0].update(category_id=2),
            r"annotations\[0\]: category 2 is not in the file's list",
        ),
        (lambda c: c["annotations"][0].update(area="big"), r"annotations\[0\]: area is 'big', expected a number"),
        (lambda c: c["annotations"][0].update(area=True), r"annotations\[0\]: area is True"),
        (lambda c: c.pop("categories"), r"has no list 'categories'"),
    ],
)
def test_bad_instances_file(root: Path, edit: Any, match: str) -> None:
    change(root, "instances_train2014.json", edit)
    error(root, match, classes="largest")
    assert COCOCaptions(str(root)).records()  # nobody reads it for nothing


def test_files_that_are_not_there_or_broken(root: Path, tmp_path: Path) -> None:
    error(tmp_path / "nowhere", r"there is no folder .*nowhere: .*--data\.source\.download true")
    error(root, r"there is no .*captions_train2017\.json.*--data\.source\.year", year="2017")
    path = root / "annotations/captions_val2014.json"
    text = path.read_text()
    for broken, match in (
        (text[:-9], r"captions_val2014\.json is broken JSON"),
        ("[" * 100_000, r"captions_val2014\.json is broken JSON"),
        ("[1]", "holds list, expected an object"),
    ):
        path.write_text(broken)
        error(root, match)
    path.write_bytes(b"\xff\xfe")
    error(root, r"captions_val2014\.json is broken JSON")


def test_options_that_cannot_be(root: Path) -> None:
    error(root, r"unknown year '2015': set --data\.source\.year to one of 2014, 2017", year="2015")
    error(root, r"unknown classes 'all'", classes="all")
    error(root, r"captions_per_picture is -1, expected 0 or more", captions_per_picture=-1)
