"""Synthetic captioned flowers with known attributes, drawn by code and written in the layout of Oxford-102."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i_zoo.data.drawing import (
    BACKGROUNDS,
    CENTRE_COLOURS,
    PETAL_COLOURS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    Flower,
    draw_flower,
)
from t2i_zoo.data.flowers import FlowerFolder
from t2i_zoo.data.reading import read_text
from t2i_zoo.data.records import Record
from t2i_zoo.errors import T2IError
from t2i_zoo.paths import cache_folder

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1  # raise it with any change of the images or captions: it is part of the folder's name
CLASSES = tuple((colour, shape) for colour in PETAL_COLOURS for shape in PETAL_SHAPES)
# a sixth of the classes: every colour and every shape also occurs in training, only the pairing is new
HELD_OUT = (("red", "narrow"), ("yellow", "round"), ("purple", "pointed"), ("white", "narrow"))

COUNT_WORDS = {4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
PLACES = {
    "green": "on a green background",
    "dark": "on a dark background",
    "sky": "against the sky",
    "sand": "on the sand",
}
PHRASINGS = (
    "this flower has {count} {shape} {colour} petals and a {centre} centre",
    "a {colour} flower with {shape} petals {place}",
    "this flower is {colour} with {count} petals around a {centre} centre",
    "the petals of this flower are {colour} and {shape}",
    "a flower with {count} {colour} petals {place}",
    "this {colour} flower has {shape} petals and a {centre} middle",
    "{count} {shape} petals in {colour} surround a {centre} centre",
    "a {colour} blossom {place}",
    "the flower has {colour} petals that are {shape} and its centre is {centre}",
    "a single {colour} flower with {count} petals",
    "{place} there is a {colour} flower with {count} {shape} petals",
    "a {colour} bloom with a {centre} centre {place}",
    "this flower shows {count} {colour} petals which are {shape}",
    "a flower with {shape} {colour} petals a {centre} centre and {count} petals in all {place}",
)
_CAPTIONS = (6, 10)  # of an image, both included
_SIZES = (16, 1024)
_SETTINGS = "synthetic.json"


@dataclass
class SyntheticFlowers(FlowerFolder):
    """Flowers drawn by code on first use; needs no download and no network.

    A class is a pair of petal colour and petal shape, 24 in all, 4 of them held out by the split
    "class_disjoint". Besides the files of Oxford-102 the folder holds the truth: ``attributes.jsonl`` and
    ``masks/image_00001.png`` (uint8: 0 background, 1 petals, 2 centre).

    Args:
        root: folder to draw into or to read again; "" is a folder of this size, number and seed under
            ``$T2I_ZOO_CACHE``, or under the user's cache where that is not set.
        images: number of images, at least one of each class.
        size: side of an image in pixels, 16 to 1024.
        seed: seed of the attributes, drawings and captions, and of the split "random".
    """

    root: str = ""
    images: int = 2000
    size: int = 96

    @property
    def path(self) -> Path:
        """The folder of the images, whether it exists or not."""
        if self.root:
            return super().path
        return cache_folder() / f"synthetic-{self.images}-{self.size}-{self.seed}-v{FORMAT}"

    def records(self) -> list[Record]:
        """Draw the images unless they exist, and list them as ``Flowers102`` does.

        Raises:
            T2IError: if the settings are out of range or the folder holds something else.
        """
        self._check()
        root = self.path
        if not self._present():
            from filelock import FileLock

            try:
                root.parent.mkdir(parents=True, exist_ok=True)
                with FileLock(root.parent / f"{root.name}.lock"):
                    if not self._present():  # another process may have drawn them meanwhile
                        self._generate()
            except OSError as error:
                raise T2IError(
                    f"the synthetic flowers cannot be written to {root} ({error.strerror}): choose another "
                    f"--data.source.root or set T2I_ZOO_CACHE to a folder you may write to"
                ) from error
        return super().records()

    def _check(self) -> None:
        if self.images < len(CLASSES):
            raise T2IError(
                f"found {self.images} images, expected at least {len(CLASSES)}, one of each class: raise "
                "--data.source.images"
            )
        if not _SIZES[0] <= self.size <= _SIZES[1]:
            raise T2IError(
                f"found a size of {self.size} pixels, expected {_SIZES[0]} to {_SIZES[1]}: change --data.source.size"
            )
        if self.seed < 0:
            raise T2IError(f"the seed is {self.seed}, expected 0 or more: change --data.source.seed")

    @property
    def _settings(self) -> dict[str, int]:
        return {"images": self.images, "size": self.size, "seed": self.seed, "format": FORMAT}

    def _present(self) -> bool:
        """Whether the folder holds these images; anything else in it is an error."""
        root = self.path
        if not root.exists() or (root.is_dir() and not any(root.iterdir())):
            return False
        settings = root / _SETTINGS
        found = settings.read_text("utf-8").strip() if settings.is_file() else "something else"
        if found != json.dumps(self._settings):
            raise T2IError(
                f"{root} holds {found} instead of the synthetic flowers {json.dumps(self._settings)}: choose another "
                "--data.source.root"
            )
        return True

    def _generate(self) -> None:
        """Draw into a sibling folder and rename it, so that a killed run leaves nothing unfinished."""
        root = self.path
        unfinished = root.parent / f".{root.name}.unfinished"  # the lock makes it ours
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            _write_layout(unfinished, self.images, self.size, self.seed)
            (unfinished / _SETTINGS).write_text(json.dumps(self._settings) + "\n", "utf-8")
            if root.exists():
                root.rmdir()  # empty, by _present; some systems cannot rename onto a folder
            unfinished.replace(root)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def read_attributes(root: str | Path) -> list[dict[str, Any]]:
    """The truth about every image of a synthetic folder, in the order of their numbers.

    Args:
        root: folder of the set, ``SyntheticFlowers(...).path``.

    Returns:
        A dict for each image: file_name (``image_00001.jpg``), petal_colour, petal_count (int), petal_shape,
        centre_colour, background.

    Raises:
        T2IError: if the folder has no attributes.jsonl.
    """
    path = Path(root).expanduser() / "attributes.jsonl"
    if not path.is_file():
        raise T2IError(f"there is no {path}, expected the folder of SyntheticFlowers: change its root")
    return [json.loads(line) for line in read_text(path).splitlines()]


def write_captions(flower: Flower, rng: np.random.Generator) -> list[str]:
    """Six to ten different true captions in lower case without punctuation; all name the petal colour."""
    words = {
        "colour": flower.petal_colour,
        "count": COUNT_WORDS[flower.petal_count],
        "shape": flower.petal_shape,
        "centre": flower.centre_colour,
        "place": PLACES[flower.background],
    }
    chosen = rng.permutation(len(PHRASINGS))[: rng.integers(_CAPTIONS[0], _CAPTIONS[1] + 1)]
    return [re.sub(r"\ba (?=orange)", "an ", PHRASINGS[i].format(**words)) for i in chosen]


def _flowers(images: int, seed: int) -> list[tuple[int, Flower]]:
    """1-based class and attributes of every image: classes as evenly as possible, attributes uniformly."""
    import numpy as np

    rng = np.random.default_rng([seed, 0])
    drawn = []
    for index in rng.permutation(images) % len(CLASSES):
        colour, shape = CLASSES[index]
        centres = [name for name in CENTRE_COLOURS if name != colour]  # yellow on yellow would not be seen
        flower = Flower(
            petal_colour=colour,
            petal_count=int(rng.choice(PETAL_COUNTS)),
            petal_shape=shape,
            centre_colour=str(rng.choice(centres)),
            background=str(rng.choice(list(BACKGROUNDS))),
        )
        drawn.append((int(index) + 1, flower))
    return drawn


def _write_layout(root: Path, images: int, size: int, seed: int) -> None:
    import numpy as np
    from PIL import Image

    flowers = _flowers(images, seed)
    for name in ["jpg", "masks", *(f"text_c10/class_{n:05d}" for n in range(1, len(CLASSES) + 1))]:
        (root / name).mkdir(parents=True)
    truth = []
    for n, (class_number, flower) in enumerate(flowers, start=1):
        rng = np.random.default_rng([seed, n])  # one for each image, so that none depends on the others
        image, mask = draw_flower(flower, size, rng)
        stem = f"image_{n:05d}"
        Image.fromarray(image).save(root / "jpg" / f"{stem}.jpg", quality=95, subsampling=0)
        Image.fromarray(mask).save(root / "masks" / f"{stem}.png", compress_level=1)
        captions = "\n".join(write_captions(flower, rng)) + "\n"
        (root / f"text_c10/class_{class_number:05d}/{stem}.txt").write_bytes(captions.encode())
        truth.append(json.dumps({"file_name": f"{stem}.jpg", **asdict(flower)}) + "\n")
    (root / "attributes.jsonl").write_text("".join(truth), "utf-8")
    _write_lists(root, [class_number for class_number, _ in flowers], np.random.default_rng([seed, 0, 1]))


def _write_lists(root: Path, labels: list[int], rng: np.random.Generator) -> None:
    """Labels, splits and class names in the files of Oxford-102."""
    import numpy as np
    from scipy.io import savemat

    savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    order = rng.permutation(len(labels)) + 1
    tenth = max(1, len(labels) // 10)
    parts = {"valid": order[:tenth], "tstid": order[tenth : 2 * tenth], "trnid": order[2 * tenth :]}
    savemat(root / "setid.mat", {key: np.sort(ids)[None].astype(np.uint32) for key, ids in parts.items()})
    for name, held_out in (("trainvalclasses.txt", False), ("testclasses.txt", True)):
        lines = [f"class_{n:05d}\n" for n, pair in enumerate(CLASSES, start=1) if (pair in HELD_OUT) == held_out]
        (root / name).write_text("".join(lines), "utf-8")
    names = {str(n): f"{colour} {shape}-petalled flower" for n, (colour, shape) in enumerate(CLASSES, start=1)}
    (root / "cat_to_name.json").write_text(json.dumps(names, indent=0) + "\n", "utf-8")
