"""COCO images with their captions (Lin et al., 2014; Chen et al., 2015), the sets of 2014 and 2017, as published.

Images and annotations: https://cocodataset.org/#download
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from t2i_zoo.data.download import Remote, fetch
from t2i_zoo.data.notes import understood
from t2i_zoo.data.reading import inside, is_file, read_text
from t2i_zoo.data.records import Record, Source, Split
from t2i_zoo.data.rows import show, texts
from t2i_zoo.data.splits import check_choice
from t2i_zoo.errors import T2IError

Year = Literal["2014", "2017"]
Classes = Literal["none", "largest"]

_HOST = "http://images.cocodataset.org"
_PAGE = "https://cocodataset.org/#download"
_PARTS: tuple[tuple[str, Split], ...] = (("train", "train"), ("val", "test"))


@dataclass
class COCOCaptions(Source):
    """COCO with its captions, or any folder in the same layout.

    The folder holds ``annotations/captions_train2014.json`` and ``captions_val2014.json``, and the images in
    ``train2014/`` and ``val2014/``; the same with 2017. The training set is the split train, the validation set the
    split test, as in all papers.

    Args:
        root: folder of the data set.
        year: "2014" (the papers': 82,783 and 40,504 images) or "2017".
        captions_per_picture: how many of each image's captions are kept, the first ones in the order of the file;
            nearly all have 5, some hundred more, and the authors of StackGAN and AttnGAN take 5. 0 keeps all.
        classes: "none", as in the papers; "largest" takes the category of the object with the largest area from
            ``instances_*.json``, and one more class for images without an object.
        download: fetch missing files, about 19 GB.
    """

    root: str = "data/coco"
    year: Year = "2014"
    captions_per_picture: int = 5
    classes: Classes = "none"
    download: bool = field(default=False, kw_only=True)

    def fetch(self) -> None:
        """Download images and annotations if ``download`` asks for it; no hashes of them are published."""
        if not self.download:
            return
        self._check()
        annotations = f"annotations_trainval{self.year}.zip"
        remotes = [
            Remote(
                annotations,
                f"annotations/captions_val{self.year}.json",
                (f"{_HOST}/annotations/{annotations}",),
                _PAGE,
            )
        ]
        for part, _ in _PARTS:
            name = f"{part}{self.year}"
            remotes.append(Remote(f"{name}.zip", name, (f"{_HOST}/zips/{name}.zip",), _PAGE))
        fetch(remotes, self.path)

    def records(self) -> list[Record]:
        """List the training images and then those of the validation set, each in the order of its file.

        Raises:
            T2IError: if a file is missing, unreadable, or contradicts another.
        """
        self._check()
        self.fetch()
        if not self.path.is_dir():
            raise T2IError(
                f"there is no folder {self.path}: it should hold COCO (from {_PAGE}) as annotations/, "
                f"train{self.year}/ and val{self.year}/; point --data.source.root at it, or pass "
                "--data.source.download true"
            )
        records = []
        numbers: dict[int, int] | None = None
        for part, split in _PARTS:
            name = f"{part}{self.year}"
            images, captions = self._captions(name)
            labels: dict[int, int] = {}
            if self.classes == "largest":
                categories, labels = self._largest(name)
                # both files list the same categories; numbers without gaps come from the first
                numbers = numbers or {key: number for number, key in enumerate(sorted(categories))}
            understood("split", f"by the files of train{self.year} and val{self.year}, the latter for test")
            for key, (path, lost) in images.items():
                label = None
                if numbers is not None:
                    label = numbers.get(labels[key], len(numbers)) if key in labels else len(numbers)
                kept = captions[key][: self.captions_per_picture or None]
                lacks = "" if kept else f"{path.name}: captions_{name}.json holds no caption of it"
                records.append(Record(path, tuple(kept), label, None, split, lacks, lost))
        return records

    def _check(self) -> None:
        check_choice("year", self.year, Year)
        check_choice("classes", self.classes, Classes)
        if self.captions_per_picture < 0:
            raise T2IError(
                f"captions_per_picture is {self.captions_per_picture}, expected 0 or more: change "
                "--data.source.captions_per_picture"
            )

    def _captions(self, name: str) -> tuple[dict[int, tuple[Path, str]], dict[int, list[str]]]:
        """Files (and why they are not there) and captions by the numbers of the images, in the order of the file."""
        path = self.path / "annotations" / f"captions_{name}.json"
        content = _load(path)
        images: dict[int, tuple[Path, str]] = {}
        for place, row in _rows(content, "images", path):
            key, file = _get(row, "id", int, place), _get(row, "file_name", str, place)
            image = inside(self.path / name, file)
            if image is None or key in images:
                wrong = "leaves the folder of images" if image is None else f"has the id {key} of another image"
                raise T2IError(f"{place}: {show(file)} {wrong}: download the annotations again")
            images[key] = image, "" if is_file(image) else f"there is no image {image}, which {place} lists"
        captions: dict[int, list[str]] = {key: [] for key in images}
        for place, row in _rows(content, "annotations", path):
            key = _get(row, "image_id", int, place)
            if key not in captions:
                raise T2IError(f"{place}: the caption is of image {key}, which the file does not list: correct it")
            found, _ = texts(row.get("caption"), place)
            captions[key] += [" ".join(text.split()) for text in found]  # some of the published ones hold line ends
        if not images:
            raise T2IError(f"{path} lists no image: download the annotations again")
        return images, captions

    def _largest(self, name: str) -> tuple[set[int], dict[int, int]]:
        """All categories, and that of the largest object of each image with objects; the first of equal ones."""
        path = self.path / "annotations" / f"instances_{name}.json"
        content = _load(path)
        categories = {_get(row, "id", int, place) for place, row in _rows(content, "categories", path)}
        areas: dict[int, float] = {}
        labels: dict[int, int] = {}
        for place, row in _rows(content, "annotations", path):
            key, category = _get(row, "image_id", int, place), _get(row, "category_id", int, place)
            area = _get(row, "area", float, place)
            if category not in categories:
                raise T2IError(f"{place}: category {category} is not in the file's list: download it again")
            if area > areas.get(key, -1):
                areas[key], labels[key] = area, category
        return categories, labels


def _load(path: Path) -> dict[str, Any]:
    if not is_file(path):
        raise T2IError(
            f"there is no {path}, expected the annotations of COCO ({_PAGE}): unpack them there, change "
            "--data.source.year, or pass --data.source.download true"
        )
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise T2IError(f"{path} is broken JSON ({error}): download the annotations again") from None
    if not isinstance(content, dict):
        raise T2IError(f"{path} holds {type(content).__name__}, expected an object: download the annotations again")
    return content


def _rows(content: dict[str, Any], key: str, path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a list, each with its place for errors."""
    rows = content.get(key)
    if not isinstance(rows, list):
        raise T2IError(f"{path} has no list {key!r}, expected the annotations of COCO: download them again")
    for number, row in enumerate(rows):
        yield f"{path}, {key}[{number}]", row


def _get(row: Any, key: str, kind: type, place: str) -> Any:
    found = row.get(key) if isinstance(row, dict) else None
    whole = isinstance(found, int) and not isinstance(found, bool)
    if not (whole if kind is int else whole or isinstance(found, float) if kind is float else isinstance(found, kind)):
        words = {int: "an integer", float: "a number", str: "text"}[kind]
        raise T2IError(f"{place}: {key} is {show(found)}, expected {words}: correct it or download the file again")
    return found
