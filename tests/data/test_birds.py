"""CUB-200-2011: splits, the crop about the bounding box, both layouts that are handed on, and one test an error."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import CLASSES, records_of, write_cub
from PIL import Image

from t2i_zoo.data import CUB200
from t2i_zoo.data.birds import around
from t2i_zoo.data.images import load_image
from t2i_zoo.data.store import StoreSpec, open_store
from t2i_zoo.errors import T2IError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_cub(tmp_path / "birds", 8)


def error(root: Path, match: str, **options: object) -> None:
    with pytest.raises(T2IError, match=match):
        records_of(CUB200(str(root), **options))  # type: ignore[arg-type]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_records_follow_the_list(root: Path) -> None:
    records = CUB200(str(root)).records()
    assert [record.class_id for record in records] == [0, 1, 2, 3] * 2
    assert all(isinstance(record.image, Path) and record.image.is_file() for record in records)
    assert records[1].image.name == "Laysan_Albatross_0002_1002.jpg"
    assert len(records[1].captions) == 10
    assert records[1].captions[3] == "this bird number 2 is seen 3 times ."
    assert Counter(record.split for record in records) == {"train": 6, "test": 2}
    assert {record.class_id for record in records if record.split == "test"} == {3}


def test_official_and_random_splits(root: Path) -> None:
    assert [record.split for record in CUB200(str(root), "official").records()] == ["train", "test"] * 4
    parts = [[record.split for record in CUB200(str(root), "random", seed=seed).records()] for seed in range(8)]
    assert all(part.count("test") == 1 for part in parts)
    assert len({tuple(part) for part in parts}) > 1


def test_lists_and_pictures_in_one_folder(root: Path) -> None:
    for path in (root / "CUB_200_2011").iterdir():
        path.rename(root / path.name)
    (root / "text_c10").rename(root / "text")  # as the copy of AttnGAN calls it
    assert len(CUB200(str(root)).records()) == 8


def test_the_split_of_stackgan_is_in_pickles(root: Path) -> None:
    for name in ("trainvalclasses.txt", "testclasses.txt"):
        (root / name).unlink()
    names = [record.image.with_suffix("") for record in CUB200(str(root), "official").records()]
    stems = ["/".join(name.parts[-2:]) for name in names]
    for part, listed in (("train", stems[:5]), ("test", stems[5:])):
        (root / part).mkdir()
        (root / part / "filenames.pickle").write_bytes(pickle.dumps(listed, protocol=2))
    assert [record.split for record in CUB200(str(root)).records()] == ["train"] * 5 + ["test"] * 3
    (root / "test" / "filenames.pickle").write_bytes(pickle.dumps(stems[6:], protocol=2))
    error(root, rf"the image {stems[5]} is neither in .*train.filenames\.pickle")
    (root / "test" / "filenames.pickle").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    error(root, r"filenames\.pickle holds no list of names")


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((60.0, 27.0, 325.0, 304.0), (-21, -64, 486, 486)),  # R = int(243.75), about (222, 179)
        ((10.9, 20.9, 9.9, 4.9), (8, 16, 12, 12)),  # cut to whole pixels first: R = int(6.75), about (14, 22)
        ((5.0, 5.0, 3.0, 3.0), (4, 4, 4, 4)),
    ],
)
def test_the_crop_is_that_of_stackgan(box, square) -> None:
    assert around(box) == square


def test_the_store_holds_the_crop(tmp_path: Path, root: Path) -> None:
    first = CUB200(str(root)).records()[0]
    assert first.box == (4, 0, 24, 24)  # R = int(0.75 x 16) about (16, 12)
    path = root / "CUB_200_2011/images" / CLASSES[0] / first.image.name
    left, top, right, bottom = 4, 0, 28, 24
    cut = np.asarray(Image.open(path).convert("RGB").crop((left, top, right, bottom)).resize((12, 12), 2))
    assert np.array_equal(load_image(path, 12, "stretch", first.box, "bilinear"), cut)
    for crop in ("box", "none"):
        store = open_store(StoreSpec(CUB200(str(root), crop=crop), 12, resample="bilinear"), tmp_path / "stores")
        assert np.array_equal(store.image(0), cut) == (crop == "box")


def test_a_box_that_leaves_the_picture_is_cut_off(tmp_path: Path, root: Path) -> None:
    change(root / "CUB_200_2011/bounding_boxes.txt", "1 8.0 6.0 16.0 12.0", "1 20.0 10.0 20.0 20.0")
    record = CUB200(str(root)).records()[0]
    assert record.box == (15, 5, 30, 30)  # of 40 x 30 pixels
    whole = Image.open(record.image).convert("RGB")
    expected = np.asarray(whole.crop((15, 5, 40, 30)).resize((8, 8), 2))
    assert np.array_equal(load_image(record.image, 8, "stretch", record.box, "bilinear"), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("classes.txt", {}),
        ("image_class_labels.txt", {}),
        ("bounding_boxes.txt", {}),
        ("train_test_split.txt", {"split": "official"}),
    ],
)
def test_missing_list(root: Path, name: str, options: dict[str, str]) -> None:
    (root / "CUB_200_2011" / name).unlink()
    error(root, f"CUB_200_2011 has no {name}", **options)


def test_only_what_is_asked_for_is_needed(root: Path) -> None:
    for name in ("bounding_boxes.txt", "train_test_split.txt"):
        (root / "CUB_200_2011" / name).unlink()
    assert [record.box for record in CUB200(str(root), crop="none").records()] == [None] * 8


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("images.txt", "2 002.L", "1 002.L", r"images\.txt, line 2: found the number '1', expected one that no other"),
        ("images.txt", "2 002.L", "two 002.L", r"images\.txt, line 2: found the number 'two'"),
        ("images.txt", "2 002.Laysan_Albatross/", "2 002.Laysan_Albatross/../../../", "leaves the folder of imag"),
        ("images.txt", "2 002.Laysan_Albatross/Lay", "2 Lay", r"line 2: found 'Laysan.*expected class/image\.jpg"),
        ("images.txt", "_0002_", "_0099_", r"there is no image .*_0099_1002\.jpg, which images\.txt lists"),
        ("image_class_labels.txt", "2 2\n", "", r"image_class_labels\.txt has no line for image 2 \(002\."),
        ("image_class_labels.txt", "2 2\n", "2 3\n", r"image 2 the class 3, which classes\.txt calls '003\."),
        ("image_class_labels.txt", "2 2\n", "2 two\n", r"labels\.txt, line 2: found '2 two', expected an image's"),
        ("image_class_labels.txt", "2 2\n", "1 2\n", r"line 2: found image 1 a second time"),
        ("image_class_labels.txt", "2 2\n", "77 2\n", r"line 2: found image 77 which is not in images\.txt"),
        ("image_class_labels.txt", "2 2\n", "2\n", r"line 2: found '2', expected 2 fields"),
        ("classes.txt", "2 002", "5 002", r"the class 2, which classes\.txt calls None"),
        ("bounding_boxes.txt", "2 8.0 6.0", "2 8.0 x", r"bounding_boxes\.txt, line 2: found '2 8\.0 x 16\.0 12\.0'"),
        ("bounding_boxes.txt", "2 8.0 6.0 16.0", "2 8.0 6.0 nan", r"line 2: .*expected .*x, y, width and height"),
        ("bounding_boxes.txt", "2 8.0 6.0 16.0 12.0", "2 8.0 6.0 0 12.0", r"bounding_boxes\.txt, line 2"),
    ],
)
def test_bad_line(root: Path, file: str, old: str, new: str, match: str) -> None:
    change(root / "CUB_200_2011" / file, old, new)
    error(root, match)


def test_bad_flag_of_the_official_split(root: Path) -> None:
    change(root / "CUB_200_2011/train_test_split.txt", "3 1", "3 yes")
    error(
        root, r"train_test_split\.txt, line 3: found '3 yes', expected an image's number and 0 or 1", split="official"
    )


def test_bad_lists_of_classes(root: Path) -> None:
    (root / "testclasses.txt").write_text(f"{CLASSES[2]}\n{CLASSES[3]}\n")
    error(root, r"testclasses\.txt: 003\.Sooty_Albatross is also in trainvalclasses\.txt")
    (root / "testclasses.txt").write_text("\n")
    error(root, r"the class 004\.Groove_billed_Ani is neither in")
    (root / "testclasses.txt").unlink()
    error(root, r"has neither trainvalclasses\.txt and testclasses\.txt nor .*--data\.source\.split official")


def test_captions_that_are_not_there(root: Path) -> None:
    path = next((root / "text_c10").rglob("*_0003_*.txt"))
    path.write_text(" \n\n")
    error(root, r"1 of the 8 images .* no caption .*_0003_1003\.txt holds blank lines only")
    path.unlink()
    error(root, r"1 of the 8 images .*there is no file .*_0003_1003\.txt")
    (root / "text_c10").rename(root / "captions")
    error(root, r"has no captions, expected the folder text_c10 in it: download them from https://drive")


def test_options_that_cannot_be(root: Path, tmp_path: Path) -> None:
    error(root, r"unknown split 'easy': set --data\.source\.split", split="easy")
    error(root, r"unknown crop 'square': set --data\.source\.crop to one of box, none", crop="square")
    error(tmp_path / "nowhere", r"there is no folder .*nowhere.*--data\.source\.download true")
    error(tmp_path, r"has no images\.txt: it should hold CUB-200-2011")
