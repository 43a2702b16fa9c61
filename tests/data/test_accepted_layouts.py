"""Every layout of docs/own_data.md: a folder of each is made, read, and trained on for two batches."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2i_zoo.data import CaptionFolder, WebDataset
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.models.gancls import GANCLS

COUNT = 10
NAMES = [f"p{i}.jpg" for i in range(COUNT)]
PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"


def images(folder: Path, names: list[str] = NAMES) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((16, 16, 3), 20 * i % 255, np.uint8)
        pixels[4:12, 4:12] = (200, 25 * i % 255, 60)
        Image.fromarray(pixels).save(folder / name, "JPEG")


def caption(i: int) -> str:
    return f"a red square number {i}"


def table(path: Path, names: list[str], head: str, comma: str = ",", encoding: str = "utf-8") -> None:
    rows = [head, *(f"{name}{comma}{caption(i)}" for i, name in enumerate(names))]
    path.write_text("\n".join(rows) + "\n", encoding)


def json_lines(root: Path) -> None:
    images(root)
    rows = [{"file_name": name, "text": [caption(i)], "class": i % 2} for i, name in enumerate(NAMES)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def json_array(root: Path) -> None:
    images(root)
    rows = [{"image_path": name, "prompt": caption(i)} for i, name in enumerate(NAMES)]
    (root / "metadata.json").write_text(json.dumps(rows, indent=2))


def comma_separated(root: Path) -> None:
    images(root)
    table(root / "metadata.csv", NAMES, "filename,description")


def semicolons_of_a_spreadsheet(root: Path) -> None:
    images(root)
    table(root / "metadata.csv", NAMES, "sep=;\nFile Name;Caption", ";", "utf-16")


def tabs(root: Path) -> None:
    images(root)
    table(root / "metadata.tsv", NAMES, "file_name\tsentences", "\t", "cp1252")


def parquet(root: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow, which the extra hf brings")
    from pyarrow import parquet as files

    images(root)
    columns = {"file_name": NAMES, "text": [caption(i) for i in range(COUNT)]}
    files.write_table(pyarrow.table(columns), root / "metadata.parquet")


def imagefolder_with_splits(root: Path) -> None:
    """As the library ``datasets`` and the scripts of ``diffusers`` have it."""
    for split in ("train", "test"):
        images(root / split)
        table(root / split / "metadata.csv", NAMES, "file_name,text")


def text_beside_image(root: Path) -> None:
    images(root)
    for i, name in enumerate(NAMES):
        (root / name).with_suffix(".txt").write_text(caption(i))
    (root / "README.txt").write_text("about these images")


def text_in_a_twin_folder(root: Path) -> None:
    images(root / "images", [name.replace(".jpg", ".jfif") for name in NAMES])
    (root / "captions").mkdir()
    for i in range(COUNT):
        (root / "captions" / f"p{i}.txt").write_text(caption(i))


def folders_of_splits_and_classes(root: Path) -> None:
    for split in ("training", "validation", "test"):
        for kind in ("square", "circle"):
            images(root / split / kind)
            for i, name in enumerate(NAMES):
                (root / split / kind / name).with_suffix(".txt").write_text(caption(i))


def flickr8k(root: Path) -> None:
    images(root / "Images")
    table(root / "captions.txt", NAMES, "image,caption")


def flickr30k(root: Path) -> None:
    images(root / "flickr30k_images")
    rows = [f"{name}| {i}| {caption(i)} ." for k, name in enumerate(NAMES) for i in (k, 0)]
    (root / "results.csv").write_text("image_name| comment_number| comment\n" + "\n".join(rows))


def shards(root: Path) -> None:
    images(root / "files")
    for i, name in enumerate(NAMES):
        (root / "files" / name).with_suffix(".txt").write_text(caption(i))
    with tarfile.open(root / "data-train-000.tar.gz", "w:gz") as tar:
        for path in sorted((root / "files").iterdir()):
            tar.add(path, path.name)


FOLDERS: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        *(json_lines, json_array, comma_separated, semicolons_of_a_spreadsheet, tabs, parquet),
        *(imagefolder_with_splits, text_beside_image, text_in_a_twin_folder, folders_of_splits_and_classes),
        *(flickr8k, flickr30k, shards),
    )
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_layout_is_read_and_trained_on(
    name: str, tmp_path: Path, tiny_options: dict[str, Any], build_trainer: Any
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    FOLDERS[name](root)
    source: Any = CaptionFolder(str(root))
    if name == "shards":
        source = WebDataset(str(root), stream=False)
    data = CaptionDataModule(source, image_size=16, batch_size=4, cache_dir=str(tmp_path / "cache"))
    model = GANCLS(generator_width=4, discriminator_width=4, projection_dim=4, **tiny_options)
    build_trainer(limit_train_batches=2, limit_val_batches=0).fit(model, data)
    assert model.clock == 2
    captions = {text for i in data.store.rows("train").tolist() for text in data.store.captions_of(i)}
    assert captions <= {caption(i) for i in range(COUNT)} | {f"{caption(i)} ." for i in range(COUNT)}
    assert len(captions) >= 8


def test_the_page_names_every_layout() -> None:
    text = PAGE.read_text("utf-8")
    for said in ("metadata.json", "metadata.csv", "metadata.tsv", "metadata.parquet", "captions.txt", "results.csv"):
        assert f"`{said}`" in text
    for said in ("images/", "train/", "imagefolder", "diffusers", ".tar"):
        assert said in text
