"""Readers of precomputed text features, which all give one table of captions and vectors.

A file:

- ``.npz`` with ``sentence`` (N, D) and ``captions`` (N,), or ``images`` and ``numbers`` (N,) instead of the captions:
  an image's name and the line of its text file, counted from 0;
- ``.safetensors`` with ``sentence``, and beside it a ``.json`` of the same name with lists of those names;
- ``val_captions.t7`` of StackGAN, the captions from which it samples COCO.

A folder, searched recursively (so ``birds`` reads ``birds/train`` and ``birds/test``):

- ``char-CNN-RNN-embeddings.pickle`` with ``filenames.pickle`` (StackGAN, StackGAN++), which only names images;
- ``flower_tv.pkl`` with the four other files of TAC-GAN;
- ``.t7`` files, one for each image (GAN-CLS), which hold the first 201 characters of each caption; ignored beside
  pickles.
"""

from __future__ import annotations

import json
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.errors import T2IError
from t2i_zoo.files import decode_text, refuse_pointer
from t2i_zoo.legacy import read_reed_t7, read_stackgan, read_tacgan, read_val_captions_t7
from t2i_zoo.text.char_cnn_rnn_network import ALPHABET, LENGTH, NUMBERS

_STACKGAN, _TACGAN, _COCO = "char-CNN-RNN-embeddings.pickle", "flower_tv.pkl", "val_captions.t7"
_UNSEEN = "\ufffd"  # replaces the characters that the .t7 files do not keep
_FORMATS = f".npz, .safetensors, {_COCO}, or a folder with {_STACKGAN}, {_TACGAN} or .t7 files"

Vectors = NDArray[np.float32]


class Found(NamedTuple):
    """A table of features.

    Attributes:
        by_characters: whether some captions are keyed by the characters that ``kept`` leaves.
        keys: N normalized captions, each once.
        vectors: (N, D) float32.
    """

    by_characters: bool
    keys: list[str]
    vectors: Vectors


class _Rows(NamedTuple):
    """Vectors (N, D) and, for each, its caption, or its image and the number of the caption in the image's file.

    ``each`` is the number of captions that every image's file must have, if it is known; ``spelled`` says that the
    captions are what ``kept`` leaves.
    """

    vectors: NDArray[Any]
    captions: list[str] | None = None
    places: list[tuple[str, int]] | None = None
    each: int | None = None
    spelled: bool = False


def normal(caption: str) -> str:
    """A caption in the form in which captions are compared: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", caption).lower().split())


def kept(caption: str) -> str:
    """What the .t7 files keep of a caption: 201 characters, with a mark for any that is not among the 70."""
    return "".join(c if c in NUMBERS else _UNSEEN for c in caption[:LENGTH]).rstrip(_UNSEEN)


def read(path: str | Path, captions: str | Path | None = None) -> Found:
    """Read any of the formats that ``PrecomputedEncoder`` takes; equal captions become one.

    Raises:
        T2IError: a file is missing, damaged or holds something else, or does not match the captions.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise T2IError(
            f"found no precomputed features at {place}: put them there, or set text_encoder's path to {_FORMATS}"
        )
    parts = list(_folder(place) if place.is_dir() else [_file(place)])
    if not parts:
        raise T2IError(f"found no precomputed features in {place}, expected {_FORMATS}: check text_encoder's path")
    texts = _texts(captions, place) if any(part.captions is None for part in parts) else {}
    keys = [normal(text) for part in parts for text in part.captions or _looked_up(part, texts, captions)]
    widths = sorted({part.vectors.shape[1] for part in parts})
    if len(widths) > 1:
        raise T2IError(
            f"found vectors of dimensions {' and '.join(map(str, widths))} in {place}, expected one dimension: set "
            "text_encoder's path to one kind of features"
        )
    if blank := sum(not key for key in keys):
        raise T2IError(f"found {blank} blank captions in {place}, expected words: leave out their vectors")
    vectors = np.concatenate([part.vectors for part in parts]).astype(np.float32, copy=False)
    if not np.isfinite(vectors).all():
        raise T2IError(f"found NaN or infinity in the vectors of {place}, expected finite numbers: compute them again")
    return Found(any(part.spelled for part in parts), *_merged(keys, vectors, place))


def _merged(keys: list[str], vectors: Vectors, place: Path) -> tuple[list[str], Vectors]:
    """Each caption once, in the order of first occurrence, with the mean of its vectors."""
    first: dict[str, int] = {}
    owner = np.array([first.setdefault(key, len(first)) for key in keys], np.int64)
    if len(first) == len(keys):
        return keys, vectors
    start = np.unique(owner, return_index=True)[1]
    table = vectors[start]
    repeated = np.setdiff1d(np.arange(len(keys)), start)
    close = np.isclose(vectors[repeated], table[owner[repeated]], rtol=1e-3, atol=1e-5).all(1)  # equal but for rounding
    differing = np.unique(owner[repeated[~close]])
    order = np.argsort(owner, kind="stable")
    for row, (begin, end) in zip(differing, np.searchsorted(owner[order], [differing, differing + 1]).T, strict=True):
        table[row] = vectors[order[begin:end]].mean(0, dtype=np.float64)
    if len(differing):
        warnings.warn(
            f"{len(differing)} of {len(first)} captions in {place} have several vectors, and get their mean",
            stacklevel=4,
        )
    return list(first), table


def _folder(place: Path) -> Iterator[_Rows]:
    """All features below a folder."""
    pickles = [_stackgan(file.parent) for file in sorted(place.rglob(_STACKGAN))]
    pickles += [_tacgan(file.parent) for file in sorted(place.rglob(_TACGAN))]
    yield from pickles
    # beside pickles, .t7 files are those of the archive of the captions, which hold images and texts but no features
    files = [] if pickles else sorted(file for file in place.rglob("*.t7") if file.name != _COCO)
    if records := [read_reed_t7(file) for file in files]:
        texts = [_spelled(column) for record in records for column in record.characters.T]
        yield _Rows(np.concatenate([record.embeddings for record in records]), texts, spelled=True)
    yield from map(_file, sorted(place.rglob(_COCO)))


def _spelled(numbers: NDArray[np.uint8]) -> str:
    """The text of a column of character numbers."""
    return "".join(ALPHABET[n - 1] if n else _UNSEEN for n in numbers.tolist()).rstrip(_UNSEEN)


def _stackgan(folder: Path) -> _Rows:
    found = read_stackgan(folder)
    count, each, dim = found.embeddings.shape
    places = [(name, number) for name in found.filenames for number in range(each)]
    return _Rows(found.embeddings.reshape(count * each, dim), places=places, each=each)


def _tacgan(folder: Path) -> _Rows:
    found = read_tacgan(folder)
    captions = [caption for row in found.captions for caption in row]
    return _Rows(found.embeddings.reshape(len(captions), -1), captions)


def _file(place: Path) -> _Rows:
    """A single file."""
    if place.suffix == ".t7":
        if place.name != _COCO:
            raise T2IError(f"found {place}, the captions of one image: set text_encoder's path to its folder")
        coco = read_val_captions_t7(place)
        return _Rows(coco.embeddings, coco.captions)
    if place.suffix == ".pickle":
        return _stackgan(place.parent)
    refuse_pointer(place)
    try:
        columns = {name: np.asarray(column) for name, column in _columns(place).items()}
        vectors = columns.pop("sentence")
    except Exception as error:  # numpy, zipfile and safetensors raise many kinds
        raise T2IError(
            f"cannot read {place} as precomputed features ({type(error).__name__}: {' '.join(str(error).split())}): "
            "write sentence (N, D) and captions (N,) with numpy.savez, the captions as numpy.array of str"
        ) from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.size:
        raise T2IError(
            f"found sentence of {vectors.dtype} {vectors.shape} in {place}, expected floats (N, D): write one vector "
            "for each caption"
        )
    for name, column in columns.items():
        if column.shape != vectors.shape[:1]:
            raise T2IError(
                f"found {column.size} {name} and {len(vectors)} vectors in {place}, expected equally many: write one "
                "of each for every caption"
            )
    if "captions" in columns:
        return _Rows(vectors, _strings(columns["captions"]))
    if not {"images", "numbers"} <= columns.keys():
        raise T2IError(f"found no captions in {place}, expected captions, or images and numbers: add one of these")
    return _Rows(vectors, places=list(zip(_strings(columns["images"]), map(int, columns["numbers"]), strict=True)))


def _strings(column: NDArray[Any]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in column.tolist()]


def _columns(place: Path) -> dict[str, Any]:
    if place.suffix == ".npz":
        with np.load(place, allow_pickle=False) as found:
            return {name: found[name] for name in ("sentence", "captions", "images", "numbers") if name in found}
    if place.suffix == ".safetensors":
        from safetensors.numpy import load_file

        index = json.loads(place.with_suffix(".json").read_text("utf-8-sig"))
        return {**index, "sentence": load_file(place)["sentence"]}
    raise ValueError(f"its name ends in {place.suffix or 'nothing'}")


def _texts(folder: str | Path | None, place: Path) -> dict[str, Path]:
    """The caption files below a folder, by their path without suffix, and by their bare name if it is unique."""
    if folder is None:
        raise T2IError(
            f"{place} names images and holds no captions: set text_encoder's captions to the folder of their .txt "
            "files, such as text_c10"
        )
    root = Path(folder).expanduser()
    files = sorted(root.rglob("*.txt"))
    if not files:
        raise T2IError(f"found no .txt file below {root}: set text_encoder's captions to the folder of the captions")
    by_name: dict[str, Path] = {}
    twice = {file.stem for file in files if by_name.setdefault(file.stem, file) != file}
    alone = {name: file for name, file in by_name.items() if name not in twice}
    return {**alone, **{file.relative_to(root).with_suffix("").as_posix(): file for file in files}}


def _looked_up(part: _Rows, texts: dict[str, Path], folder: str | Path | None) -> Iterator[str]:
    """The captions of images, from the lines of their files that are not blank."""
    lines: dict[str, list[str]] = {}
    for image, number in part.places or []:
        if image not in lines:
            plain = image if image in texts else image.removesuffix(Path(image).suffix)
            file = texts.get(plain) or texts.get(plain.rpartition("/")[2])
            if file is None:
                raise T2IError(
                    f"found no captions of {image} below {folder}: set text_encoder's captions to their folder"
                )
            content, _ = decode_text(file.read_bytes(), file)  # as the sources read it
            lines[image] = [line for line in content.split("\n") if line.strip()]  # splitlines would cut at U+2028
        count = len(lines[image])
        if count != (part.each or count) or not 0 <= number < count:
            raise T2IError(
                f"found {count} captions of {image} below {folder}, expected {part.each or f'number {number}'}, as its "
                "vectors have: give the captions that the vectors were computed from"
            )
        yield lines[image][number]
