"""Own pictures: metadata in three formats, text files beside the pictures, and one test an error."""

import json
from pathlib import Path

import pytest

from t2i_zoo.data.folder import CaptionFolder
from t2i_zoo.data.notes import collecting
from t2i_zoo.data.packing import StoreSpec, listing
from t2i_zoo.data.reading import tree_fingerprint, walk
from t2i_zoo.data.records import Record
from t2i_zoo.errors import T2IError

NAMES = ["a.jpg", "b.PNG", "sub/c.webp"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read(root: Path, **settings: object) -> list[Record]:
    return listing(StoreSpec(CaptionFolder(str(root), **settings), 16))[0]  # type: ignore[arg-type]


def jsonl(root: Path, *rows: object) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def error(root: Path, match: str, **settings: object) -> None:
    with pytest.raises(T2IError, match=match):
        read(root, **settings)


def test_jsonl(root: Path) -> None:
    jsonl(
        root,
        {"file_name": "sub/c.webp", "captions": ["one", " two "], "class": "tulip", "split": "val"},
        "",
        {"image": "a.jpg", "text": "three", "class": "rose", "split": "test"},
        {"file": "b.PNG", "caption": "four", "class": "tulip", "split": "train"},
    )
    assert read(root) == [
        Record(root / "sub/c.webp", ("one", "two"), 1, None, "val"),
        Record(root / "a.jpg", ("three",), 0, None, "test"),
        Record(root / "b.PNG", ("four",), 1, None, "train"),
    ]


def test_csv_merges_rows_and_columns(root: Path) -> None:
    (root / "captions.csv").write_bytes(
        b'\xef\xbb\xbffile_name,caption,caption_1,caption_2,label\r\na.jpg,"one, quoted",two,,7\r\n'
        b'b.PNG,"over\r\ntwo lines",,,3\r\n\r\na.jpg,three,,,\r\n'
    )
    first, second = read(root, val_fraction=0)
    assert first == Record(root / "a.jpg", ("one, quoted", "two", "three"), 1)
    assert second == Record(root / "b.PNG", ("over\ntwo lines",), 0)


def test_tsv_with_caption_columns_only(root: Path) -> None:
    (root / "my.tsv").write_text("file\tcaption_1\tcaption_2\na.jpg\tone\ttwo\nb.PNG\tthree\n")
    assert [record.captions for record in read(root, metadata="my.tsv")] == [("one", "two"), ("three",)]


def test_text_files_and_classes_from_folders(tmp_path: Path) -> None:
    for name in ["rose/x.jpg", "rose/y.jpeg", "lily/z.gif"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        path.with_suffix(".txt").write_text(f"a {path.parent.name}\n\nnamed {path.stem}\n")
    (tmp_path / "rose/.hidden.txt").touch()
    records = read(tmp_path, val_fraction=0)
    assert [(record.image.name, record.class_id) for record in records] == [
        ("z.gif", 0),
        ("x.jpg", 1),
        ("y.jpeg", 1),
    ]
    assert records[0].captions == ("a lily", "named z")


def test_split_folders(tmp_path: Path) -> None:
    for name in ["train/rose/x.jpg", "train/lily/y.jpg", "test/lily/z.jpg"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.with_suffix(".txt").write_text("a flower")
    found = {record.image.name: (record.class_id, record.split) for record in read(tmp_path)}
    assert found == {"x.jpg": (1, "train"), "y.jpg": (0, "train"), "z.jpg": (0, "test")}


@pytest.mark.parametrize("name", ["valid", "validation", "dev", "val"])
def test_other_names_of_split_folders(tmp_path: Path, name: str) -> None:
    for folder in ("train", name, "test"):
        for kind in ("rose", "lily"):
            (tmp_path / folder / kind).mkdir(parents=True)
            (tmp_path / folder / kind / "x.jpg").touch()
            (tmp_path / folder / kind / "x.txt").write_text("a flower")
    found = [(record.split, record.class_id) for record in read(tmp_path)]
    assert sorted(found) == [(split, class_id) for split in ("test", "train", "val") for class_id in (0, 1)]


@pytest.mark.parametrize("places", ["xy", ["images/x", "images/y"], ["x", "images/y"]])
def test_one_folder_is_no_class(tmp_path: Path, places: list[str]) -> None:
    (tmp_path / "images").mkdir()
    for place in places:
        (tmp_path / f"{place}.jpg").touch()
        (tmp_path / f"{place}.txt").write_text("a flower")
    assert [record.class_id for record in read(tmp_path)] == [None, None]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([2, 0, 1], [2, 0, 1]),
        (["10", 9, "10"], [1, 0, 1]),
        (["rose", "3", "aster"], [2, 0, 1]),
        ([None, "", None], [None, None, None]),
    ],
)
def test_class_numbers(root: Path, labels: list[object], expected: list[int | None]) -> None:
    names = ["a.jpg", "b.PNG", "sub/c.webp"]
    jsonl(
        root,
        *({"file_name": n, "caption": "c", "class": label} for n, label in zip(names, labels, strict=True)),
    )
    assert [record.class_id for record in read(root)] == expected


def test_share_of_test_pictures_is_seeded(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"{n:02d}.jpg").touch()
    jsonl(tmp_path, *({"file_name": f"{n:02d}.jpg", "caption": "c"} for n in range(40)))

    def held_out(seed: int) -> list[int]:
        records = read(tmp_path, val_fraction=0.25, seed=seed)
        return [i for i, record in enumerate(records) if record.split == "test"]

    assert len(held_out(0)) == 10
    assert held_out(0) == held_out(0) != held_out(1)


def test_pictures_without_a_row_are_ignored(root: Path) -> None:
    jsonl(root, {"file_name": "a.jpg", "caption": "one"})
    assert len(read(root)) == 1


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ('{"file_name": ', r"metadata\.jsonl, line 2: broken JSON"),
        ("[1]", "line 2: found int, expected a JSON object"),
        (
            {"file_name": "b.PNG", "size": 3},
            r"line 2: no column of captions \(caption or .*among file_name, size: name it with --data\.source\.caption",
        ),
        ({"caption": "c"}, r"line 2: no column of file names .*among caption: name it with --data\.source\.image"),
        ({"file_name": "z.jpg", "caption": "c"}, r"1 of the 2 images .* missing .*line 2: there is no image .*z\.jpg"),
        ({"file_name": "", "caption": "c"}, "line 2: the row names no image"),
        ({"file_name": "notes.pdf", "caption": "c"}, r"line 2: there is no image .*notes\.pdf"),
        ({"file_name": "../b.jpg", "caption": "c"}, r"line 2: '\.\./b\.jpg' leaves the folder"),
        ({"file_name": "/etc/b.jpg", "caption": "c"}, "line 2: '/etc/b.jpg' leaves the folder"),
        (
            {"file_name": "b.PNG", "caption": " "},
            r"1 of the 2 images .* has no caption .*line 2: the caption is blank\): write them, or pass "
            r"--data\.on_bad_caption skip",
        ),
        ({"file_name": "b.PNG", "caption": 5}, "line 2: the caption is 5, expected text"),
        ({"file_name": "b.PNG", "captions": []}, "line 2: the list is empty"),
        ({"file_name": "b.PNG", "caption": "c", "label": -1}, "line 2: the label is -1, expected 0 or more"),
        ({"file_name": "b.PNG", "caption": "c", "label": 1.5}, r"line 2: the class is 1\.5"),
        ({"file_name": "b.PNG", "caption": "c", "split": "new"}, "line 2: unknown split 'new'"),
        ({"file_name": "b.PNG", "caption": "c", "split": ["train"]}, "line 2: unknown split"),
        ({"file_name": "a.jpg", "caption": "c", "class": "lily"}, "line 2: class 'lily' but an earlier row"),
        ({"file_name": "b.PNG", "caption": "c"}, r"1 of 2 images have no class and the others have one .*b\.PNG\)"),
    ],
)
def test_bad_row(root: Path, row: object, match: str) -> None:
    jsonl(root, {"file_name": "a.jpg", "caption": "one", "class": "rose"}, row)
    error(root, match)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("picture,caption\na.jpg,c\n", r"line 1: no column of file names .*among picture, caption: name it"),
        ("file_name,words\na.jpg,c\n", r"line 1: no column of captions .*among file_name, words: name it"),
        ("file_name,caption\na.jpg,red, round\n", "line 2: 3 cells under 2 columns.*double quotes"),
        ('file_name,caption\na.jpg,"one\ntwo"\nb.PNG,\n', "line 4: the caption is blank"),
        ('file_name,caption\na.jpg,c\nb.PNG,"open\n', "line 3: broken table"),
        ("file_name,caption_1,caption_2\na.jpg,,\n", "line 2: the caption is blank"),
        ("file_name,caption,label\na.jpg,c,-2\n", "line 2: the label is -2"),
        ("file_name,caption\n", r"metadata\.csv names no image"),
        ("file_name,caption,caption\na.jpg,c,d\n", "line 1: two columns are named 'caption', .*rename one"),
    ],
)
def test_bad_table(root: Path, table: str, match: str) -> None:
    (root / "metadata.csv").write_text(table)
    error(root, match)


def test_picture_without_text_file(root: Path) -> None:
    error(
        root, r"3 of the 3 images .* no caption \(.*a\.jpg: there is no file .*a\.txt; .*--data\.source\.captions false"
    )


def test_text_file_with_blank_lines_only(root: Path) -> None:
    (root / "a.txt").write_text("\n \n")
    error(root, r"a\.txt holds blank lines only")


def test_text_file_that_is_no_text(root: Path) -> None:
    (root / "a.txt").write_bytes(b"\xff\xfe\x00")
    error(root, r"a\.txt is not text in UTF-8, UTF-16 or Windows-1252: save it as UTF-8")


def test_some_pictures_outside_the_class_folders(root: Path) -> None:
    (root / "other").mkdir()
    (root / "other/d.jpg").touch()
    for name in ["a.txt", "b.txt", "sub/c.txt", "other/d.txt"]:
        (root / name).write_text("a rose")
    error(root, r"2 of 4 images have no class and the others have one \(.*a\.jpg; .*b\.PNG\)")


def test_no_pictures(tmp_path: Path) -> None:
    error(tmp_path, r"names no image, expected at least one \(\.jpg .*--data\.source\.root")


def test_pictures_in_formats_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "IMG_1.HEIC").touch()
    error(tmp_path, r"names no image, expected at least one \(\.jpg .*: convert .*IMG_1\.HEIC and others like it$")
    (tmp_path / "metadata.csv").write_text("file_name,caption\nIMG_1.HEIC,a rose\n")
    with collecting() as notes:
        assert len(CaptionFolder(str(tmp_path)).records()) == 1  # Pillow may have a plugin for it
    assert not notes.remarks()
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.txt").write_text("a rose")
    with collecting() as notes:
        CaptionFolder(str(tmp_path)).records()
    said = f"pictures in the format .heic are not read: convert them to .jpg or .png: {tmp_path / 'IMG_1.HEIC'}"
    assert said in notes.remarks()


def test_missing_folder(tmp_path: Path) -> None:
    error(tmp_path / "nowhere", r"there is no folder .*nowhere.*--data\.source\.root")
    with pytest.raises(T2IError, match=r"no folder of images is given.*--data\.source\.root"):
        CaptionFolder().records()


@pytest.mark.parametrize("name", ["nothing.csv", "a.jpg", "../metadata.csv"])
def test_bad_metadata_name(root: Path, name: str) -> None:
    error(root, r"is no \.jsonl, \.json, \.csv, \.tsv, \.parquet file in .*--data\.source\.metadata", metadata=name)


@pytest.mark.parametrize("mark", ["run.lock", "config_predict.yaml"])
def test_what_a_run_has_drawn_is_no_data(root: Path, mark: str) -> None:
    (root / "captions").mkdir()
    for name in NAMES:
        (root / "captions" / name).with_suffix(".txt").parent.mkdir(exist_ok=True)
        (root / "captions" / name).with_suffix(".txt").write_text("a caption")
    before, content = read(root), tree_fingerprint(root)
    run = root / "runs/gancls_folder/version_0"
    (run / "samples").mkdir(parents=True)
    (run / mark).touch()
    (run / "samples/epoch_0001.png").touch()
    assert read(root) == before
    assert tree_fingerprint(root) == content
    assert [entry.name for entry in walk(run / "samples")] == ["epoch_0001.png"]  # unless that is asked for
    assert len(list(walk(run))) == 2


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_mistyped_column_of_classes(root: Path, kind: str) -> None:
    if kind == "csv":
        (root / "metadata.csv").write_text("file_name,caption,species\na.jpg,c,tulip\n")
        names = "file_name, caption, species"
    else:
        jsonl(root, {"file_name": "a.jpg", "text": "c"}, {"file_name": "b.PNG", "text": "d", "species": 1})
        names = "file_name, text, species"
    error(root, rf"metadata\.{kind}: no column of classes \('sort'\) among {names}: name it with", label="sort")
    if kind == "csv":
        assert [record.class_id for record in read(root, label="species")] == [0]


@pytest.mark.parametrize(("first", "separator"), [("\n", ","), ("\r\n \r\n", ";"), (",,\n", ","), ("sep=;\n\n", ";")])
def test_a_table_after_blank_lines(root: Path, first: str, separator: str) -> None:
    rows = [["file_name", "caption"], ["a.jpg", "one"], ["b.PNG", ""]]
    (root / "metadata.csv").write_bytes((first + "\n".join(map(separator.join, rows[:2]))).encode())
    assert [record.captions for record in read(root)] == [("one",)]
    (root / "metadata.csv").write_bytes((first + "\n".join(map(separator.join, rows))).encode())
    error(root, f"line {first.count(chr(10)) + 3}: the caption is blank")


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_bad_val_fraction(root: Path, fraction: float) -> None:
    error(root, r"val_fraction is .*--data\.source\.val_fraction", val_fraction=fraction)


@pytest.mark.parametrize("kind", ["text", "table"])
def test_captions_without_a_word_are_named_with_their_line(root: Path, kind: str) -> None:
    if kind == "table":
        jsonl(root, *({"file_name": name, "text": text} for name, text in zip(NAMES, ("a", "🌸", "b"), strict=True)))
        place = "metadata.jsonl, line 2"
    else:
        for name in NAMES:
            (root / name).with_suffix(".txt").write_text("one\n\n🌸\n" if name == "b.PNG" else "one", "utf-8")
        place = "b.txt, line 3"
    with collecting() as notes:
        assert sum("🌸" in record.captions for record in read(root)) == 1
    wanted = f"captions without a word; some text encoders read nothing in them: {root / place} ('🌸')"
    assert wanted in notes.remarks()


def test_a_column_is_named_where_captions_are_in_text_files(root: Path) -> None:
    for name in NAMES:
        (root / name).with_suffix(".txt").write_text("one", "utf-8")
    with collecting() as notes:
        read(root, label="kind")
    assert notes.remarks() == ["--data.source.label names a column and text files have none: kind"]
