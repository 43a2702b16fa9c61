"""Oxford-102 flowers (Nilsback and Zisserman, 2008) with the captions of Reed et al. (2016), as published.

Images: https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ ; captions: https://github.com/reedscot/icml2016
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from t2i_zoo.data.download import Remote, fetch
from t2i_zoo.data.notes import remark, understood
from t2i_zoo.data.reading import numbered_lines
from t2i_zoo.data.records import Record, Source, Split
from t2i_zoo.data.rows import captions_in
from t2i_zoo.data.splits import SplitLists, check_choice, random_splits
from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_pointer

FlowerSplit = Literal["class_disjoint", "official", "random"]

LAYOUT = "jpg/, imagelabels.mat, setid.mat, text_c10/, trainvalclasses.txt and testclasses.txt"
_HOST = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
_IMAGE = re.compile(r"image_(\d{5,})\.(?:jpg|txt)", re.ASCII)
_CLASS = re.compile(r"class_(\d{5,})", re.ASCII)
_NEEDED = {
    "class_disjoint": ["trainvalclasses.txt", "testclasses.txt"],
    "official": ["setid.mat"],
    "random": [],
}  #: beside what every split reads

REMOTES = (
    Remote("102flowers.tgz", "jpg", (f"{_HOST}/102flowers.tgz",), f"{_HOST}/", "md5:52808999861908f626f3c1f4e79d11fa"),
    Remote(
        "imagelabels.mat",
        "imagelabels.mat",
        (f"{_HOST}/imagelabels.mat",),
        f"{_HOST}/",
        "md5:e0620be6f572b9609742df49c70aed4d",
    ),
    Remote("setid.mat", "setid.mat", (f"{_HOST}/setid.mat",), f"{_HOST}/", "md5:a5357ecc9cb78c4bef273ce3793fc85c"),
    Remote(
        "cvpr2016_flowers.tar.gz",
        "text_c10",
        page="https://drive.google.com/open?id=0B0ywwgffWnLLcms2WWJQRFNSWXM, linked from https://github.com/reedscot/cvpr2016",
        strip=True,
    ),
)  # the hashes are those of torchvision's Flowers102


@dataclass
class FlowerFolder(Source):
    """A folder in the layout of Oxford-102, with as many classes as it has.

    The folder holds ``jpg/image_00001.jpg``, ``imagelabels.mat``, ``text_c10/class_00001/image_00001.txt``
    (a caption a line) and, by the split chosen, ``setid.mat`` or ``trainvalclasses.txt`` and
    ``testclasses.txt``.

    Args:
        root: folder of the data set.
        split: "class_disjoint" puts the classes of ``trainvalclasses.txt`` into train and those of
            ``testclasses.txt`` into test (Reed et al., 2016); "official" takes train, val and test from
            ``setid.mat``; "random" draws a tenth of all images for test.
        seed: seed of the split "random".
    """

    root: str = "data/oxford102"
    split: FlowerSplit = "class_disjoint"
    seed: int = 0

    def records(self) -> list[Record]:
        """List all images by their number; ``class_id`` is the label of the .mat file less one.

        Raises:
            T2IError: where a file is missing, unreadable, or contradicts another.
        """
        check_choice("split", self.split, FlowerSplit)
        self.fetch()
        root = self.path
        if not root.is_dir():
            raise T2IError(
                f"there is no folder {root}: it should hold Oxford-102 (images from {_HOST}, captions from "
                f"https://github.com/reedscot/cvpr2016) as {LAYOUT}; point --data.source.root at it"
            )
        for name in ["jpg", "imagelabels.mat", "text_c10", *_NEEDED[self.split]]:
            if not (root / name).exists():
                raise T2IError(
                    f"{root} has no {name}, which split {self.split!r} reads: a folder in the layout of Oxford-102 "
                    f"holds {LAYOUT}; complete it or change --data.source.root"
                )
        labels, images = _labels(root)
        captions = _captions(root, labels)
        splits = self._splits(root, labels)
        understood("split", f"{self.split} (--data.source.split)")
        return [
            Record(image, captions[n][0], label - 1, None, splits[n - 1], captions[n][1], lost)
            for n, label in enumerate(labels, start=1)
            for image, lost in [images[n]]
        ]

    def _splits(self, root: Path, labels: list[int]) -> list[Split]:
        """The split of every image, in the order of their numbers."""
        if self.split == "official":
            return _official(root / "setid.mat", len(labels))
        if self.split == "random":
            return random_splits(len(labels), self.seed)
        lists = SplitLists(root / "trainvalclasses.txt", root / "testclasses.txt", _class_list)
        return [
            lists.split_of(f"class_{label:05d}", f"class_{label:05d} of image_{n:05d}.jpg")
            for n, label in enumerate(labels, start=1)
        ]


@dataclass
class Flowers102(FlowerFolder):
    """Oxford-102 flowers, or any folder in the same layout with fewer classes; see ``FlowerFolder``.

    Args:
        download: fetch missing images, labels and ``setid.mat``; the captions, with the lists of classes, have to be
            put into the folder.
    """

    download: bool = field(default=False, kw_only=True)

    def fetch(self) -> None:
        """Download what is missing, and unpack captions that are in the folder, if ``download`` asks for it."""
        if self.download:
            fetch(REMOTES, self.path)


def _read_mat(path: Path, key: str) -> list[int]:
    """One integer array of a MATLAB file, flattened."""
    from scipy.io import loadmat

    refuse_pointer(path)
    try:
        return [int(value) for value in loadmat(path)[key].ravel().tolist()]
    except KeyError:
        raise T2IError(f"{path} holds no array {key!r}, which the file of Oxford-102 has: download it again") from None
    except Exception as error:  # scipy raises half a dozen kinds, by the place of the damage
        raise T2IError(f"{path} cannot be read as a MATLAB file ({type(error).__name__}): download it again") from error


def _numbered(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Number and name of the entries of a folder whose name fits the pattern; others are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := pattern.fullmatch(entry.name):
                yield int(match[1]), entry.name


def _labels(root: Path) -> tuple[list[int], dict[int, tuple[Path, str]]]:
    """1-based labels of the images 1..n, checked against the class folders, and by number each image or its lack."""
    images = {n for n, name in _numbered(root / "jpg", _IMAGE) if name.endswith(".jpg")}
    labels = _read_mat(root / "imagelabels.mat", "labels")
    if max(images, default=0) > len(labels) or not images:
        raise T2IError(
            f"{root / 'imagelabels.mat'} has {len(labels)} labels but {root / 'jpg'} has {len(images)} images up to "
            f"image_{max(images, default=0):05d}.jpg, expected one label an image: unpack the images again or change "
            "--data.source.root"
        )
    # the class folders say how many classes there are: 102 in the real set, fewer in others of this layout
    classes = max((n for n, _ in _numbered(root / "text_c10", _CLASS)), default=0)
    for n, label in enumerate(labels, start=1):
        if not 1 <= label <= classes:
            raise T2IError(
                f"label {label} of image_{n:05d}.jpg in {root / 'imagelabels.mat'} is outside 1..{classes}, the class "
                f"folders of text_c10: correct the label or add the folder class_{label:05d}"
            )
    files = {n: root / "jpg" / f"image_{n:05d}.jpg" for n in range(1, len(labels) + 1)}
    return labels, {n: (path, "" if n in images else f"there is no image {path}") for n, path in files.items()}


def _captions(root: Path, labels: list[int]) -> dict[int, tuple[tuple[str, ...], str]]:
    """Captions by image number, and why there are none."""
    text = root / "text_c10"
    for class_number, folder in _numbered(text, _CLASS):
        for n, name in _numbered(text / folder, _IMAGE):
            if not name.endswith(".txt"):
                continue
            path = text / folder / name
            if not 1 <= n <= len(labels):
                remark("text files that no image belongs to are not read", path)
                continue
            if labels[n - 1] != class_number:
                raise T2IError(
                    f"caption file {path} is in {folder} but imagelabels.mat gives image_{n:05d}.jpg the label "
                    f"{labels[n - 1]}: move the file to class_{labels[n - 1]:05d}"
                )
    return {
        n: captions_in(text / f"class_{label:05d}" / f"image_{n:05d}.txt") for n, label in enumerate(labels, start=1)
    }


def _class_list(path: Path) -> Iterator[str]:
    """The classes of trainvalclasses.txt or testclasses.txt."""
    for place, (name,) in numbered_lines(path, 1):
        if not _CLASS.fullmatch(name):
            raise T2IError(f"{place}: found {name!r}, expected a class such as class_00001: correct that line")
        yield name


def _official(path: Path, images: int) -> list[Split]:
    """The splits of setid.mat: every image must be in exactly one."""
    found: dict[int, Split] = {}
    keys: tuple[tuple[str, Split], ...] = (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
    remedy = "expected each image once: download it again or use --data.source.split random"
    for key, split in keys:
        for n in _read_mat(path, key):
            if not 1 <= n <= images or n in found:
                what = f"image {n} a second time" if n in found else f"image {n}, outside 1..{images}"
                raise T2IError(f"{path} lists {what} in {key!r}, {remedy}")
            found[n] = split
    if missing := next((n for n in range(1, images + 1) if n not in found), None):
        raise T2IError(f"{path} lists image {missing} in none of trnid, valid and tstid, {remedy}")
    return [found[n] for n in range(1, images + 1)]
