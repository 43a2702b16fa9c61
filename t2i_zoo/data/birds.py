"""CUB-200-2011 birds (Wah et al., 2011) with the captions of Reed et al. (2016), as published.

Images: https://www.vision.caltech.edu/datasets/cub_200_2011/ ; captions: https://github.com/reedscot/cvpr2016
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from t2i_zoo.data.download import Remote, fetch
from t2i_zoo.data.notes import understood
from t2i_zoo.data.reading import inside, is_file, lines_of, numbered_lines, read_text
from t2i_zoo.data.records import Record, Source, Split
from t2i_zoo.data.rows import captions_in
from t2i_zoo.data.splits import SplitLists, check_choice, random_splits
from t2i_zoo.errors import T2IError

BirdSplit = Literal["class_disjoint", "official", "random"]
Crop = Literal["box", "none"]
Box = tuple[float, float, float, float]
T = TypeVar("T")

FILES = ("images.txt", "image_class_labels.txt", "classes.txt")
CAPTIONS = ("text_c10", "text")  # in the release of Reed et al., and in the copy of AttnGAN and others

PICTURES = Remote(
    "CUB_200_2011.tgz",
    "CUB_200_2011",
    ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",),
    "https://www.vision.caltech.edu/datasets/cub_200_2011/",
    "md5:97eceeb196236b17998738112f37df78",
)
TEXTS = Remote(
    "cvpr2016_cub.tar.gz",
    "text_c10",
    page="https://drive.google.com/open?id=0B0ywwgffWnLLZW9uVHNjb2JmNlE, linked from https://github.com/reedscot/cvpr2016",
    strip=True,
)


@dataclass
class CUB200(Source):
    """CUB-200-2011 birds, or any folder in the same layout.

    The folder holds ``images.txt``, ``image_class_labels.txt``, ``classes.txt``, ``images/``, with ``crop: box``
    ``bounding_boxes.txt`` and with the official split ``train_test_split.txt``, all of them in it or in its folder
    ``CUB_200_2011``; and ``text_c10/<class>/<image>.txt`` (or ``text/``), a caption a line. The class-disjoint split
    reads ``trainvalclasses.txt`` and ``testclasses.txt``, which come with the captions, or ``train/filenames.pickle``
    and ``test/filenames.pickle``, which come with the embeddings of StackGAN.

    Args:
        root: folder of the data set.
        split: "class_disjoint" has 150 classes to train and 50 to test (Reed et al., 2016); "official" takes train and
            test from ``train_test_split.txt``; "random" draws a tenth of all images for test.
        crop: "box" cuts a square of 1.5 times the longer side of the bounding box about its centre, as far as it is
            inside the image (StackGAN and its successors); "none" keeps the whole image (GAN-CLS, TAC-GAN).
        seed: seed of the split "random".
        download: fetch missing images; the captions have to be put into the folder.
    """

    root: str = "data/birds"
    split: BirdSplit = "class_disjoint"
    crop: Crop = "box"
    seed: int = 0
    download: bool = field(default=False, kw_only=True)

    def fetch(self) -> None:
        """Download the images, and unpack captions that are in the folder, if ``download`` asks for it."""
        if not self.download:
            return
        wanted = [] if is_file(self.path / "images.txt") else [PICTURES]
        wanted += [] if any((self.path / name).is_dir() for name in CAPTIONS) else [TEXTS]
        fetch(wanted, self.path)

    def records(self) -> list[Record]:
        """List all images by their number; ``class_id`` is the published label less one.

        Raises:
            T2IError: if a file is missing, unreadable, or contradicts another.
        """
        check_choice("split", self.split, BirdSplit)
        check_choice("crop", self.crop, Crop)
        self.fetch()
        base, texts = self._places()
        names = _names(base)
        labels = _labels(base, names)
        boxes = _boxes(base / "bounding_boxes.txt", names) if self.crop == "box" else {}
        splits = self._splits(base, names, labels)
        understood("split", f"{self.split} (--data.source.split)")
        records = []
        for number, name in names.items():
            image, lost = _image(base, name)
            captions, lacks = captions_in(texts / f"{name.rsplit('.', 1)[0]}.txt")
            box = around(boxes[number]) if boxes else None
            records.append(Record(image, captions, labels[number] - 1, box, splits[number], lacks, lost))
        return records

    def _places(self) -> tuple[Path, Path]:
        """The folder of the lists and images, and that of the captions."""
        root = self.path
        base = next((path for path in (root, root / "CUB_200_2011") if is_file(path / "images.txt")), None)
        if base is None:
            found = f"{root} has no images.txt" if root.is_dir() else f"there is no folder {root}"
            raise T2IError(
                f"{found}: it should hold CUB-200-2011 (images from data.caltech.edu, captions from "
                f"https://github.com/reedscot/cvpr2016) as {', '.join(FILES)}, images/ and text_c10/; point "
                "--data.source.root at it, or pass --data.source.download true"
            )
        needed = [*FILES, "images", *(["bounding_boxes.txt"] if self.crop == "box" else [])]
        needed += ["train_test_split.txt"] if self.split == "official" else []
        for name in needed:
            if not (base / name).exists():
                raise T2IError(f"{base} has no {name}, which CUB-200-2011 has: unpack it again")
        texts = next((path / name for path in (root, base) for name in CAPTIONS if (path / name).is_dir()), None)
        if texts is None:
            raise T2IError(
                f"{root} has no captions, expected the folder text_c10 in it: download them from {TEXTS.page}"
            )
        return base, texts

    def _splits(self, base: Path, names: dict[int, str], labels: dict[int, int]) -> dict[int, Split]:
        """The split of every image by its number."""
        if self.split == "official":
            path = base / "train_test_split.txt"
            flags: dict[int, bool] = _column(path, names, lambda text: {"0": False, "1": True}[text], "0 or 1")
            return {number: "train" if flag else "test" for number, flag in flags.items()}
        if self.split == "random":
            return dict(zip(names, random_splits(len(names), self.seed), strict=True))
        folders = (self.path, base)
        if files := _first(folders, "trainvalclasses.txt", "testclasses.txt"):
            lists = SplitLists(*files, _listed_classes)
            return {n: lists.split_of(label := name.split("/")[0], f"the class {label}") for n, name in names.items()}
        if files := _first(folders, "train/filenames.pickle", "test/filenames.pickle"):
            lists = SplitLists(*files, _listed_images)
            stems = {number: name.removesuffix(".jpg") for number, name in names.items()}
            return {number: lists.split_of(stem, f"the image {stem}") for number, stem in stems.items()}
        raise T2IError(
            f"{self.path} has neither trainvalclasses.txt and testclasses.txt nor train/filenames.pickle and "
            "test/filenames.pickle, which split 'class_disjoint' reads: add them, or use --data.source.split official"
        )


def around(box: Box) -> Box:
    """The crop of StackGAN and its successors for a bird: a square about the centre of its bounding box.

    Half its side is R = int(0.75 max(w, h)), for a box of whole pixels. Outside the image it is cut off, so that it is
    not always a square.

    Args:
        box: x, y, width, height in pixels.
    """
    x, y, width, height = (int(number) for number in box)
    half = int(0.75 * max(width, height))
    left, top = int((2 * x + width) / 2) - half, int((2 * y + height) / 2) - half
    return (left, top, 2 * half, 2 * half)


def _names(base: Path) -> dict[int, str]:
    """Paths below images/ by the number of each image."""
    names: dict[int, str] = {}
    for place, (number, name) in numbered_lines(base / "images.txt", 2):
        if not number.isdecimal() or int(number[:18]) in names:
            raise T2IError(
                f"{place}: found the number {number[:18]!r}, expected one that no other line has: correct it"
            )
        if "/" not in name:
            raise T2IError(f"{place}: found {name!r}, expected class/image.jpg: correct it or download the file again")
        names[int(number[:18])] = name
    if not names:
        raise T2IError(f"{base / 'images.txt'} lists no image: download it again")
    return names


def _column(path: Path, names: dict[int, str], read: object, expected: str, fields: int = 2) -> dict[int, T]:
    """The values of every image in a list that has each image once."""
    found: dict[int, T] = {}
    for place, (number, *values) in numbered_lines(path, fields):
        try:
            key, value = int(number[:18]), read(*values)  # type: ignore[operator]
        except (ValueError, KeyError, OverflowError):
            raise T2IError(
                f"{place}: found {' '.join([number, *values])[:80]!r}, expected an image's number and {expected}: "
                "correct it or download the file again"
            ) from None
        if key in found or key not in names:
            wrong = "a second time" if key in found else "which is not in images.txt"
            raise T2IError(f"{place}: found image {key} {wrong}, expected each once: download the file again")
        found[key] = value
    for key in names:
        if key not in found:
            raise T2IError(f"{path} has no line for image {key} ({names[key]}): download the file again")
    return found


def _labels(base: Path, names: dict[int, str]) -> dict[int, int]:
    """1-based class of every image, checked against classes.txt and the image's folder."""
    lines = numbered_lines(base / "classes.txt", 2)
    classes = {int(number[:18]): name for _, (number, name) in lines if number.isdecimal()}
    path = base / "image_class_labels.txt"
    labels: dict[int, int] = _column(path, names, int, "a class")
    for number, label in labels.items():
        folder = names[number].split("/")[0]
        if classes.get(label) != folder:
            raise T2IError(
                f"{path} gives image {number} the class {label}, which classes.txt calls {classes.get(label)!r} and "
                f"images.txt {folder!r}: download the files again"
            )
    return labels


def _boxes(path: Path, names: dict[int, str]) -> dict[int, Box]:
    def read(*values: str) -> Box:
        x, y, width, height = (float(value) for value in values)
        if not (width >= 1 and height >= 1 and max(abs(x), abs(y), width, height) < 1e6):
            raise ValueError
        return x, y, width, height

    return _column(path, names, read, "x, y, width and height in pixels", fields=5)


def _image(base: Path, name: str) -> tuple[Path, str]:
    """The image of a name, and why there is none."""
    path = inside(base / "images", name)
    if path is None:
        raise T2IError(f"{base / 'images.txt'}: {name!r} leaves the folder of images: correct that line")
    return path, "" if is_file(path) else f"there is no image {path}, which images.txt lists"


def _first(folders: tuple[Path, ...], train: str, test: str) -> tuple[Path, Path] | None:
    """Both files in the first folder that has them."""
    return next(((f / train, f / test) for f in folders if is_file(f / train) and is_file(f / test)), None)


def _listed_classes(path: Path) -> tuple[str, ...]:
    return lines_of(read_text(path))


def _listed_images(path: Path) -> list[str]:
    from t2i_zoo.legacy import load_pickle

    names = load_pickle(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise T2IError(f"{path} holds no list of names, expected StackGAN's filenames.pickle: download it again")
    return names
