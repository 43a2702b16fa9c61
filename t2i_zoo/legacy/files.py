"""The published data files of GAN-CLS, StackGAN, TAC-GAN and AttnGAN, as arrays and lists of known shape."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.errors import T2IError
from t2i_zoo.legacy.pickles import load_pickle
from t2i_zoo.legacy.reading import brief
from t2i_zoo.legacy.torch7 import load_t7

CHAR_CNN_RNN = 1024  # dimension of the embeddings by Reed et al., which GAN-CLS and StackGAN use
SKIP_THOUGHTS = 4800  # dimension of TAC-GAN's: 2400 each of the uni- and the bidirectional encoder
TACGAN_CAPTIONS = 5  # TAC-GAN takes the first five of ten
FLOWERS = 102  # classes
CHARACTERS = 201  # length to which Reed et al. cut captions
ALPHABET = 70  # their characters are numbered from 1; 0 is any other character


class StackGANFiles(NamedTuple):
    """One split of StackGAN's data; the three lists are in the same order.

    Attributes:
        filenames: N image names without a suffix, such as ``jpg/image_00001``.
        class_ids: (N,) int64 as the authors number the classes, or None if the data has none (COCO).
        embeddings: (N, k, 1024) float32, one for each caption: k is 10 for birds and flowers, 5 for COCO.
    """

    filenames: list[str]
    class_ids: NDArray[np.int64] | None
    embeddings: NDArray[np.float32]


class TACGANFiles(NamedTuple):
    """TAC-GAN's flowers; the first four lists are in the same order, sorted by name.

    Attributes:
        filenames: N image names, such as ``image_00001.jpg``.
        captions: five for each image.
        embeddings: (N, 5, 4800) float32, the skip-thought vectors of the captions.
        class_ids: (N,) int64 in 0..101, in the order of ``allclasses.txt``.
        train: names of the training images.
        val: names of the held-out images. One image may be in neither: the authors' split loses its last one.
    """

    filenames: list[str]
    captions: list[list[str]]
    embeddings: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    train: list[str]
    val: list[str]


class ReedRecord(NamedTuple):
    """One image of ``cub_icml``, ``flowers_icml`` or ``train2014_ex_t7``.

    Attributes:
        image: path below the image folder.
        embeddings: (k, 1024) float32, one for each caption.
        characters: (201, k) uint8, the captions as numbers of the 70 characters; 0 is any other character, or none.
    """

    image: str
    embeddings: NDArray[np.float32]
    characters: NDArray[np.uint8]


class ValCaptions(NamedTuple):
    """The captions from which StackGAN samples COCO.

    Attributes:
        captions: N texts.
        embeddings: (N, 1024) float32, one for each caption.
    """

    captions: list[str]
    embeddings: NDArray[np.float32]


class AttnGANCaptions(NamedTuple):
    """Tokenised captions and the vocabulary that the DAMSM encoders were trained with.

    Attributes:
        train: word numbers of each training caption; the captions of one image follow each other.
        test: the same for the test captions.
        ixtoword: the word of each number; 0 is ``<end>``, which is also the padding.
        wordtoix: the number of each word.
    """

    train: list[list[int]]
    test: list[list[int]]
    ixtoword: dict[int, str]
    wordtoix: dict[str, int]


def read_stackgan(folder: str | Path) -> StackGANFiles:
    """Read one split of the data that StackGAN and StackGAN++ share, such as ``flowers/train``.

    Source: ``filenames.pickle``, ``char-CNN-RNN-embeddings.pickle`` and, if it exists, ``class_info.pickle``, as
    hanzhanggit/StackGAN publishes them.

    Raises:
        T2IError: a file is missing, damaged or holds something else, or the files differ in length.
    """
    names_path = Path(folder) / "filenames.pickle"
    path = Path(folder) / "char-CNN-RNN-embeddings.pickle"
    class_path = Path(folder) / "class_info.pickle"
    filenames = _strings(load_pickle(names_path), names_path, "image names")
    embeddings = _stack(load_pickle(path), path)
    _same_length(len(filenames), names_path, len(embeddings), path)
    if not class_path.exists():
        return StackGANFiles(filenames, None, embeddings)
    classes = _array(load_pickle(class_path), class_path, "iu", (None,), "numbers of classes")
    _same_length(len(filenames), names_path, len(classes), class_path)
    return StackGANFiles(filenames, classes.astype(np.int64), embeddings)


def read_tacgan(folder: str | Path) -> TACGANFiles:
    """Read the five pickles of TAC-GAN: ``flowers_caps``, ``flower_tv``, ``flower_tc``, ``train_ids``, ``val_ids``.

    Source: ``dataprep.py`` and ``train.py`` of dashayushman/TAC-GAN.

    Raises:
        T2IError: a file is missing, damaged or holds something else, or the files do not name the same images.
    """
    caps_path, vectors_path, classes_path, train_path, val_path = (
        Path(folder) / f"{name}.pkl" for name in ("flowers_caps", "flower_tv", "flower_tc", "train_ids", "val_ids")
    )
    caps, vectors, classes = (_by_name(load_pickle(path), path) for path in (caps_path, vectors_path, classes_path))
    for other, path in ((vectors, vectors_path), (classes, classes_path)):
        _same_images(caps, caps_path, other, path)
        _same_images(other, path, caps, caps_path)
    splits = []
    for path in (train_path, val_path):
        splits.append(_strings(load_pickle(path), path, "image names"))
        _same_images(splits[-1], path, caps, caps_path)
    filenames = sorted(caps)
    captions = []
    embeddings = np.empty((len(filenames), TACGAN_CAPTIONS, SKIP_THOUGHTS), np.float32)
    class_ids = np.empty(len(filenames), np.int64)
    for i, name in enumerate(filenames):
        captions.append(_strings(caps[name], caps_path, "captions"))
        if len(captions[-1]) != TACGAN_CAPTIONS:
            raise _wrong(
                caps_path, f"{len(captions[-1])} captions of {brief(name)}", f"{TACGAN_CAPTIONS} for each image"
            )
        embeddings[i] = _array(vectors[name], vectors_path, "f", embeddings.shape[1:], "skip-thought vectors")
        one_hot = _array(classes[name], classes_path, "fiub", (FLOWERS,), "a one-hot vector of the class")
        if np.count_nonzero(one_hot) != 1 or one_hot.max() != 1:
            raise _wrong(classes_path, f"{np.count_nonzero(one_hot)} classes of {brief(name)}", "exactly one")
        class_ids[i] = one_hot.argmax()
    return TACGANFiles(filenames, captions, embeddings, class_ids, *splits)


def read_reed_t7(path: str | Path) -> ReedRecord:
    """Read one image's table {img, txt, char} of the data of GAN-CLS, such as ``flowers_icml/class_00001/*.t7``.

    Source: the files that reedscot/icml2016 publishes.

    Raises:
        T2IError: the file is missing, damaged or holds something else.
    """
    image, embeddings, characters = _fields(load_t7(path), path, ("img", "txt", "char"))
    if type(image) is not str:
        raise _wrong(path, f"{type(image).__name__} for 'img'", "the path of an image")
    embeddings = _array(embeddings, path, "f", (None, CHAR_CNN_RNN), "embeddings in 'txt'")
    characters = _array(characters, path, "fiu", (CHARACTERS, len(embeddings)), "the captions' characters in 'char'")
    if not np.isin(characters, np.arange(ALPHABET + 1)).all():
        raise _wrong(path, "other values in 'char'", f"integers from 0 to {ALPHABET}")
    return ReedRecord(image, embeddings.astype(np.float32), characters.astype(np.uint8))


def read_val_captions_t7(path: str | Path) -> ValCaptions:
    """Read the table {raw_txt, fea_txt} of ``coco/test/val_captions.t7``.

    Source: the file that hanzhanggit/StackGAN-Pytorch publishes; its ``trainer.py`` concatenates ``fea_txt``.

    Raises:
        T2IError: the file is missing, damaged or holds something else.
    """
    texts, features = _fields(load_t7(path), path, ("raw_txt", "fea_txt"))
    captions = _strings(texts, path, "captions in 'raw_txt'")
    parts = features if type(features) is list else [features]
    parts = [_array(part, path, "f", (None, CHAR_CNN_RNN), "embeddings in 'fea_txt'") for part in parts]
    embeddings = np.concatenate([np.empty((0, CHAR_CNN_RNN), np.float32), *parts]).astype(np.float32)
    if len(captions) != len(embeddings):
        raise _wrong(path, f"{len(captions)} captions and {len(embeddings)} embeddings", "equally many")
    return ValCaptions(captions, embeddings)


def read_attngan_captions(path: str | Path) -> AttnGANCaptions:
    """Read ``captions.pickle`` (in MirrorGAN ``bird_captions.pickle``, in DF-GAN ``captions_DAMSM.pickle``).

    Source: taoxugit/AttnGAN, ``code/datasets.py``: the list [train, test, ixtoword, wordtoix].

    Raises:
        T2IError: the file is missing, damaged or holds something else, its dictionaries are not each other's inverse,
            or a caption has a number without a word.
    """
    value = load_pickle(path)
    if type(value) not in (list, tuple) or len(value) != 4:
        raise _wrong(path, _kind(value), "[train captions, test captions, ixtoword, wordtoix]")
    train, test, ixtoword, wordtoix = value
    if type(ixtoword) is not dict or type(wordtoix) is not dict:
        raise _wrong(path, f"{_kind(ixtoword)} and {_kind(wordtoix)}", "two dictionaries, ixtoword and wordtoix")
    if not {int}.issuperset(map(type, [*ixtoword, *wordtoix.values()])):
        raise _wrong(path, "a word's number that is no integer", "ixtoword from numbers to words and wordtoix back")
    words = dict(zip(ixtoword, _strings(list(ixtoword.values()), path, "words in ixtoword"), strict=True))
    numbers = dict(zip(_strings(list(wordtoix), path, "words in wordtoix"), wordtoix.values(), strict=True))
    if numbers != {word: number for number, word in words.items()} or len(numbers) != len(words):
        found = f"ixtoword of {len(words)} words and wordtoix of {len(numbers)} that do not fit"
        raise _wrong(path, found, "each to be the other's inverse")
    for name, captions in (("train", train), ("test", test)):
        if type(captions) is not list or not {list}.issuperset(map(type, captions)):
            raise _wrong(path, _kind(captions), f"a list of {name} captions, each a list of numbers")
        for i, caption in enumerate(captions):
            if not {int}.issuperset(map(type, caption)) or not words.keys() >= set(caption):
                raise _wrong(path, f"a number without a word in {name} caption {i}", "only numbers of ixtoword")
    return AttnGANCaptions(train, test, words, numbers)


def _wrong(path: str | Path, found: str, expected: str) -> T2IError:
    return T2IError(f"found {found} in {path}, expected {expected}: take the file that the authors publish")


def _kind(value: Any) -> str:
    """The type of a value, and its size."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else type(value).__name__


def _text(value: str) -> str:
    """Python 2 wrote bytes, which were read as latin1; decode them as UTF-8 if they are valid UTF-8."""
    try:
        return value.encode("latin1").decode("utf-8")
    except UnicodeError:
        return value


def _strings(value: Any, path: str | Path, what: str) -> list[str]:
    if type(value) not in (list, tuple):
        raise _wrong(path, _kind(value), f"a list of {what}")
    for i, item in enumerate(value):
        if type(item) is not str:
            raise _wrong(path, f"{_kind(item)} at index {i}", what)
    return [_text(item) for item in value]


def _array(value: Any, path: str | Path, kinds: str, shape: tuple[int | None, ...], what: str) -> NDArray:
    """The value as an array whose dtype is of one of the given kinds; None in the shape allows any length."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise _wrong(path, "rows of unequal length or too large numbers", what) from error
    fits = array.ndim == len(shape) and all(want in (None, side) for want, side in zip(shape, array.shape, strict=True))
    if array.dtype.kind not in kinds or not fits:
        sides = ", ".join("any" if side is None else str(side) for side in shape)
        raise _wrong(path, _kind(array), f"{what} of shape ({sides})")
    return array


def _stack(value: Any, path: Path) -> NDArray[np.float32]:
    """StackGAN's embeddings, which are one array or a list with one array for each image."""
    if not isinstance(value, (list, np.ndarray)):
        raise _wrong(path, _kind(value), "a list of arrays")
    what = "embeddings"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _array(value, path, "f", (None, None, CHAR_CNN_RNN), what).astype(np.float32, copy=False)
    if len(value) == 0:
        raise _wrong(path, "no embeddings", "those of every image")
    first = _array(value[0], path, "f", (None, CHAR_CNN_RNN), what)
    stacked = np.empty((len(value), *first.shape), np.float32)
    for i, item in enumerate(value):
        stacked[i] = _array(item, path, "f", first.shape, f"{what} of image {i}")
    return stacked


def _fields(value: Any, path: str | Path, names: tuple[str, ...]) -> list[Any]:
    if type(value) is not dict or not value.keys() >= set(names):
        found = f"a table with {brief(', '.join(map(str, value)))}" if type(value) is dict else _kind(value)
        raise _wrong(path, found, f"a table with {', '.join(names)}")
    return [value[name] for name in names]


def _by_name(value: Any, path: Path) -> dict[str, Any]:
    if type(value) is not dict:
        raise _wrong(path, _kind(value), "a dictionary by image name")
    return dict(zip(_strings(list(value), path, "image names"), value.values(), strict=True))


def _same_images(names: Iterable[str], path: Path, known: dict[str, Any], other: Path) -> None:
    for name in names:
        if name not in known:
            raise T2IError(
                f"found {brief(name)} in {path} but not in {other}, expected the same images: take all five files "
                "from the same run of dataprep.py"
            )


def _same_length(count: int, path: Path, other_count: int, other: Path) -> None:
    if count != other_count:
        raise T2IError(
            f"found {count} entries in {path} but {other_count} in {other}, expected the same number: take both files "
            "from the same download"
        )
