"""Oxford-102: splits, odd but good files, one test per error, and the real set if it is there."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layouts import records_of
from scipy.io import savemat

from t2i_zoo.data.flowers import Flowers102
from t2i_zoo.data.notes import collecting
from t2i_zoo.data.packing import StoreSpec, listing
from t2i_zoo.errors import T2IError

LABELS = [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]


def caption_file(root: Path, n: int) -> Path:
    return root / f"text_c10/class_{LABELS[n - 1]:05d}/image_{n:05d}.txt"


def save_labels(root: Path, labels: list[int]) -> None:
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "oxford102"
    (root / "jpg").mkdir(parents=True)
    for n, label in enumerate(LABELS, start=1):
        (root / f"jpg/image_{n:05d}.jpg").touch()
        (root / f"text_c10/class_{label:05d}").mkdir(parents=True, exist_ok=True)
        caption_file(root, n).write_text(f"flower {n} is red\n\nflower {n} is round\n")
    save_labels(root, LABELS)
    savemat(root / "setid.mat", {"trnid": [[1, 2, 3, 4]], "valid": [[5, 6]], "tstid": [[7, 8, 9, 10]]})
    (root / "trainvalclasses.txt").write_text("class_00001\nclass_00003\n")
    (root / "testclasses.txt").write_text("class_00002\n")
    return root


def test_records_follow_the_numbers_of_the_pictures(root: Path) -> None:
    records = Flowers102(str(root)).records()
    assert [record.image.name for record in records] == [f"image_{n:05d}.jpg" for n in range(1, 11)]
    assert all(record.image.is_file() for record in records)
    assert [record.class_id for record in records] == [label - 1 for label in LABELS]
    assert records[3].captions == ("flower 4 is red", "flower 4 is round")
    assert records[3].box is None


def test_class_disjoint_split(root: Path) -> None:
    records = Flowers102(str(root)).records()
    assert {record.class_id for record in records if record.split == "test"} == {1}
    assert {record.class_id for record in records if record.split == "train"} == {0, 2}


def test_official_split(root: Path) -> None:
    splits = [record.split for record in Flowers102(str(root), "official").records()]
    assert splits == ["train"] * 4 + ["val"] * 2 + ["test"] * 4


def test_random_split_is_seeded(root: Path) -> None:
    def held_out(seed: int) -> list[int]:
        records = Flowers102(str(root), "random", seed).records()
        return [i for i, record in enumerate(records) if record.split == "test"]

    assert held_out(0) == held_out(0)
    assert len(held_out(0)) == 1
    assert len({tuple(held_out(seed)) for seed in range(8)}) > 1


def test_byte_order_mark_and_carriage_returns(root: Path) -> None:
    caption_file(root, 1).write_bytes(b"\xef\xbb\xbfa rose\r\n  \r\na tulip \r\n")
    assert Flowers102(str(root)).records()[0].captions == ("a rose", "a tulip")


def test_other_files_are_left_alone(root: Path) -> None:
    (root / "jpg/._image_00001.jpg").touch()
    (root / "text_c10/class_00001.t7").touch()
    (root / "text_c10/class_00001/image_00001.h5").touch()
    assert len(Flowers102(str(root)).records()) == len(LABELS)


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(T2IError, match=r"no folder .*nowhere.*jpg/.*text_c10/.*--data\.source\.root"):
        Flowers102(str(tmp_path / "nowhere")).records()


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("jpg", "random"),
        ("imagelabels.mat", "random"),
        ("text_c10", "random"),
        ("setid.mat", "official"),
        ("trainvalclasses.txt", "class_disjoint"),
        ("testclasses.txt", "class_disjoint"),
    ],
)
def test_missing_part(root: Path, name: str, split: str) -> None:
    shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    with pytest.raises(T2IError, match=f"has no {name}"):
        Flowers102(str(root), split).records()  # type: ignore[arg-type]


def test_unknown_split(root: Path) -> None:
    with pytest.raises(T2IError, match=r"unknown split 'easy'.*--data\.source\.split"):
        Flowers102(str(root), "easy").records()  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [0, 4])
def test_label_outside_the_classes(root: Path, label: int) -> None:
    save_labels(root, [*LABELS[:-1], label])
    with pytest.raises(T2IError, match=rf"label {label} of image_00010\.jpg .* outside 1\.\.3"):
        Flowers102(str(root)).records()


def test_label_outside_102_classes(root: Path) -> None:
    (root / "text_c10/class_00102").mkdir()
    save_labels(root, [*LABELS[:-1], 103])
    with pytest.raises(T2IError, match=r"label 103 .* outside 1\.\.102"):
        Flowers102(str(root)).records()


def test_number_of_labels(root: Path) -> None:
    save_labels(root, LABELS[:-1])
    with pytest.raises(T2IError, match=r"has 9 labels but .* has 10 images"):
        Flowers102(str(root)).records()


def test_gap_in_the_numbers(root: Path) -> None:
    (root / "jpg/image_00010.jpg").unlink()
    with pytest.raises(T2IError, match=r"1 of the 10 images .* missing .*image_00010\.jpg.*on_bad_image skip"):
        records_of(Flowers102(str(root)))
    assert len(listing(StoreSpec(Flowers102(str(root)), 16, on_bad_image="skip"))[0]) == 9
    (root / "jpg/image_00011.jpg").touch()
    with pytest.raises(T2IError, match=r"has 10 labels but .*jpg has 10 images up to image_00011\.jpg"):
        Flowers102(str(root)).records()


def test_caption_file_without_picture(root: Path) -> None:
    (root / "text_c10/class_00001/image_00011.txt").write_text("a rose")
    with collecting() as notes:
        assert len(records_of(Flowers102(str(root)))) == 10
    assert [line for line in notes.remarks() if "image_00011.txt" in line]


def test_caption_file_in_another_class(root: Path) -> None:
    caption_file(root, 1).rename(root / "text_c10/class_00002/image_00001.txt")
    with pytest.raises(T2IError, match=r"is in class_00002 but .* label 1: move the file to class_00001"):
        Flowers102(str(root)).records()


def test_picture_without_caption_file(root: Path) -> None:
    caption_file(root, 5).unlink()
    with pytest.raises(T2IError, match=r"1 of the 10 images .*there is no file .*image_00005\.txt"):
        records_of(Flowers102(str(root)))


def test_picture_with_blank_captions(root: Path) -> None:
    caption_file(root, 5).write_text("\n  \n")
    with pytest.raises(T2IError, match=r"1 of the 10 images .*image_00005\.txt holds blank lines only"):
        records_of(Flowers102(str(root)))
    assert len(listing(StoreSpec(Flowers102(str(root)), 16, on_bad_caption="skip"))[0]) == 9


def test_caption_file_that_is_not_utf8(root: Path) -> None:
    caption_file(root, 5).write_bytes("une fleur carrée".encode("latin-1"))
    with collecting() as notes:
        assert Flowers102(str(root)).records()[4].captions == ("une fleur carrée",)
    assert notes.remarks() == [f"read as Windows-1252, since it is not UTF-8: {caption_file(root, 5)}"]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 20, None])
def test_corrupt_mat(root: Path, content: bytes | None) -> None:
    path = root / "imagelabels.mat"
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    with pytest.raises(T2IError, match=r"imagelabels\.mat cannot be read as a MATLAB file"):
        Flowers102(str(root)).records()


def test_mat_without_its_array(root: Path) -> None:
    savemat(root / "imagelabels.mat", {"other": [[1]]})
    with pytest.raises(T2IError, match=r"imagelabels\.mat holds no array 'labels'"):
        Flowers102(str(root)).records()


def test_class_in_neither_list(root: Path) -> None:
    (root / "testclasses.txt").write_text("\n")
    with pytest.raises(T2IError, match=r"class_00002 of image_00002\.jpg is neither in"):
        Flowers102(str(root)).records()
    assert Flowers102(str(root), "official").records()


def test_class_in_both_lists(root: Path) -> None:
    (root / "testclasses.txt").write_text("class_00002\nclass_00003\n")
    with pytest.raises(T2IError, match=r"testclasses\.txt: class_00003 is also in trainvalclasses\.txt"):
        Flowers102(str(root)).records()


def test_bad_line_in_a_class_list(root: Path) -> None:
    (root / "testclasses.txt").write_text("class_00002\nroses\n")
    with pytest.raises(T2IError, match=r"testclasses\.txt, line 2: found 'roses'"):
        Flowers102(str(root)).records()


@pytest.mark.parametrize(
    ("test_ids", "match"),
    [
        ([7, 8, 9], "lists image 10 in none"),
        ([7, 8, 9, 10, 1], "image 1 a second time in 'tstid'"),
        ([7, 8, 9, 10, 11], r"image 11, outside 1\.\.10 in 'tstid'"),
    ],
)
def test_bad_setid(root: Path, test_ids: list[int], match: str) -> None:
    savemat(root / "setid.mat", {"trnid": [[1, 2, 3, 4]], "valid": [[5, 6]], "tstid": [test_ids]})
    with pytest.raises(T2IError, match=match):
        Flowers102(str(root), "official").records()


class TestRealFlowers:
    def test_class_disjoint(self, oxford102: Path) -> None:
        records = Flowers102(str(oxford102)).records()
        assert len(records) == 8189
        assert {record.class_id for record in records} == set(range(102))
        assert Counter(record.split for record in records) == {"train": 7034, "test": 1155}
        assert Counter(len(record.captions) for record in records) == {6: 7370, 1: 819}

    def test_official(self, oxford102: Path) -> None:
        records = Flowers102(str(oxford102), "official").records()
        assert Counter(record.split for record in records) == {"train": 1020, "val": 1020, "test": 6149}
