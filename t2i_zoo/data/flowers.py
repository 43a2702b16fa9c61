"""Oxford-102 flowers (Nilsback and Zisserman, 2008) with the captions of Reed et al. (2016), as published.

Pictures: https://www.robots.ox.ac.uk/~vgg/data/flowers/102/ ; captions: https://github.com/reedscot/icml2016
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from t2i_zoo.data.download import Remote, fetch
from t2i_zoo.data.reading import lines_of, read_text
from t2i_zoo.data.records import Record, Source, Split
from t2i_zoo.errors import T2IError

if TYPE_CHECKING:
    from collections.abc import Iterator

FlowerSplit = Literal["class_disjoint", "official", "random"]

LAYOUT = "jpg/, imagelabels.mat, setid.mat, text_c10/, trainvalclasses.txt and testclasses.txt"
_HOST = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
_TEST_SHARE = 0.1  # of the split "random"
_IMAGE = re.compile(r"image_(\d{5,})\.(?:jpg|txt)", re.ASCII)
_CLASS = re.compile(r"class_(\d{5,})", re.ASCII)


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
            ``setid.mat``; "random" draws a tenth of all pictures for test.
        seed: seed of the split "random".
    """

    root: str = "data/oxford102"
    split: FlowerSplit = "class_disjoint"
    seed: int = 0

    def records(self) -> list[Record]:
        """List all pictures by their number; ``class_id`` is the label of the .mat file less one.

        Raises:
            T2IError: where a file is missing, unreadable, or contradicts another.
        """
        if self.split not in get_args(FlowerSplit):
            raise T2IError(
                f"unknown split {self.split!r}: set --data.source.split to one of {', '.join(get_args(FlowerSplit))}"
            )
        root = self.path
        if not root.is_dir():
            raise T2IError(
                f"there is no folder {root}: it should hold Oxford-102 as {LAYOUT}; point --data.source.root at it"
            )
        needed = {
            "class_disjoint": ["trainvalclasses.txt", "testclasses.txt"],
            "official": ["setid.mat"],
            "random": [],
        }[self.split]
        for name in ["jpg", "imagelabels.mat", "text_c10", *needed]:
            if not (root / name).exists():
                raise T2IError(
                    f"{root} has no {name}, which split {self.split!r} reads: a folder in the layout of "
                    f"Oxford-102 "
                    f"holds {LAYOUT}; complete it or change --data.source.root"
                )
        labels = _labels(root)
        captions = _captions(root, labels)
        splits = self._splits(root, labels)
        return [
            Record(root / "jpg" / f"image_{n:05d}.jpg", captions[n], label - 1, None, splits[n - 1])
            for n, label in enumerate(labels, start=1)
        ]

    def _splits(self, root: Path, labels: list[int]) -> list[Split]:
        """The part of every picture, in the order of their numbers."""
        if self.split == "official":
            return _official(root / "setid.mat", len(labels))
        if self.split == "random":
            import numpy as np

            held_out = np.random.default_rng(self.seed).permutation(len(labels)) < round(_TEST_SHARE * len(labels))
            return ["test" if out else "train" for out in held_out.tolist()]
        part_of: dict[int, Split] = {}
        parts: tuple[tuple[str, Split], ...] = (("trainvalclasses.txt", "train"), ("testclasses.txt", "test"))
        for name, part in parts:
            for class_number in _class_list(root / name):
                if part_of.setdefault(class_number, part) != part:
                    raise T2IError(
                        f"class_{class_number:05d} stands in both trainvalclasses.txt and testclasses.txt "
                        f"of {root}, "
                        f"expected in one: delete its line in one of them"
                    )
        for n, label in enumerate(labels, start=1):
            if label not in part_of:
                raise T2IError(
                    f"class_{label:05d} of image_{n:05d}.jpg stands neither in trainvalclasses.txt nor in "
                    f"testclasses.txt of {root}: add it to one, or use --data.source.split random"
                )
        return [part_of[label] for label in labels]


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
class Flowers102(FlowerFolder):
    """Oxford-102 flowers, or any folder in the same layout with fewer classes.

    The folder holds ``jpg/image_00001.jpg``, ``imagelabels.mat``, ``text_c10/class_00001/image_00001.txt``
    (a caption a line) and, by the split chosen, ``setid.mat`` or ``trainvalclasses.txt`` and
    ``testclasses.txt``.

    Args:
        root: folder of the data set.
        split: "class_disjoint" puts the classes of ``trainvalclasses.txt`` into train and those of
            ``testclasses.txt`` into test (Reed et al., 2016); "official" takes train, val and test from
            ``setid.mat``; "random" draws a tenth of all pictures for test.
        seed: seed of the split "random".
        download: fetch pictures, labels and ``setid.mat`` where they are missing; the captions, with the lists of
            classes, have to be put into the folder.
    """

    download: bool = field(default=False, kw_only=True)

    def fetch(self) -> None:
        """Download what is missing, and unpack the captions that lie in the folder, where it was asked for."""
        if self.download:
            fetch(REMOTES, self.path)

    def records(self) -> list[Record]:
        """List all pictures by their number; ``class_id`` is the label of the .mat file less one.

        Raises:
            T2IError: where a file is missing, unreadable, or contradicts another.
        """
        self.fetch()
        return super().records()


def _read_mat(path: Path, key: str) -> list[int]:
    """One integer array of a MATLAB file, flattened."""
    from scipy.io import loadmat

    try:
        array = loadmat(path)[key].ravel()
        numbers = [int(value) for value in array.tolist()]
    except KeyError:
        raise T2IError(f"{path} holds no array {key!r}, which the file of Oxford-102 has: download it again") from None
    except Exception as error:  # scipy raises half a dozen kinds, by the place of the damage
        raise T2IError(f"{path} cannot be read as a MATLAB file ({type(error).__name__}): download it again") from error
    return numbers


def _numbered(folder: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Number and name of the entries of a folder whose name fits the pattern; others are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := pattern.fullmatch(entry.name):
                yield int(match[1]), entry.name


def _labels(root: Path) -> list[int]:
    """1-based labels of the pictures 1..n, checked against jpg/ and the class folders."""
    pictures = {n for n, name in _numbered(root / "jpg", _IMAGE) if name.endswith(".jpg")}
    labels = _read_mat(root / "imagelabels.mat", "labels")
    if len(labels) != len(pictures) or not labels:
        raise T2IError(
            f"{root / 'imagelabels.mat'} has {len(labels)} labels but {root / 'jpg'} has {len(pictures)} "
            f"pictures "
            f"image_*.jpg, expected one label a picture: unpack the pictures again or change "
            f"--data.source.root"
        )
    for n in range(1, len(labels) + 1):
        if n not in pictures:
            raise T2IError(
                f"{root / 'jpg'} has no image_{n:05d}.jpg, expected the numbers 1 to {len(labels)} without "
                f"a gap: "
                f"unpack the pictures again"
            )
    # the class folders say how many classes there are: 102 in the real set, fewer in others of this layout
    classes = max((n for n, _ in _numbered(root / "text_c10", _CLASS)), default=0)
    for n, label in enumerate(labels, start=1):
        if not 1 <= label <= classes:
            raise T2IError(
                f"label {label} of image_{n:05d}.jpg in {root / 'imagelabels.mat'} is outside 1..{classes}, "
                f"the class "
                f"folders of text_c10: correct the label or add the folder class_{label:05d}"
            )
    return labels


def _captions(root: Path, labels: list[int]) -> dict[int, tuple[str, ...]]:
    """Captions by picture number; every text file is read once."""
    captions: dict[int, tuple[str, ...]] = {}
    text = root / "text_c10"
    for class_number, folder in _numbered(text, _CLASS):
        for n, name in _numbered(text / folder, _IMAGE):
            if not name.endswith(".txt"):
                continue
            path = text / folder / name
            if not 1 <= n <= len(labels):
                raise T2IError(
                    f"caption file {path} has no picture jpg/image_{n:05d}.jpg: add the picture or delete the file"
                )
            if labels[n - 1] != class_number:
                raise T2IError(
                    f"caption file {path} lies in {folder} but imagelabels.mat gives image_{n:05d}.jpg the "
                    f"label "
                    f"{labels[n - 1]}: move the file to class_{labels[n - 1]:05d}"
                )
            captions[n] = lines_of(read_text(path))
    for n, label in enumerate(labels, start=1):
        if not captions.get(n):
            path = text / f"class_{label:05d}" / f"image_{n:05d}.txt"
            found = "holds blank lines only" if n in captions else "is missing"
            raise T2IError(f"image_{n:05d}.jpg has no caption ({path} {found}), expected one a line: write that file")
    return captions


def _class_list(path: Path) -> list[int]:
    """Class numbers of trainvalclasses.txt or testclasses.txt."""
    numbers = []
    for line, name in enumerate(read_text(path).split("\n"), start=1):
        if not name.strip():
            continue
        match = _CLASS.fullmatch(name.strip())
        if not match:
            raise T2IError(
                f"{path}, line {line}: found {name.strip()!r}, expected a class like class_00001: correct that line"
            )
        numbers.append(int(match[1]))
    return numbers


def _official(path: Path, images: int) -> list[Split]:
    """The parts of setid.mat: every picture must stand in exactly one."""
    parts: dict[int, Split] = {}
    keys: tuple[tuple[str, Split], ...] = (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
    for key, part in keys:
        for n in _read_mat(path, key):
            if not 1 <= n <= images or n in parts:
                found = f"image {n} a second time" if n in parts else f"image {n}, outside 1..{images}"
                raise T2IError(
                    f"{path} lists {found} in {key!r}, expected each picture once: download it again or use "
                    f"--data.source.split random"
                )
            parts[n] = part
    for n in range(1, images + 1):
        if n not in parts:
            raise T2IError(
                f"{path} lists image {n} in none of trnid, valid and tstid, expected each picture once: "
                f"download it "
                f"again or use --data.source.split random"
            )
    return [parts[n] for n in range(1, images + 1)]
