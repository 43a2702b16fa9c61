"""The files that skip-thought vectors come from: the authors' model, a run of ``SkipThought``, a second word table."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_code, refuse_pointer
from t2i_zoo.legacy import load_pickle
from t2i_zoo.paths import find_weights
from t2i_zoo.text.skip_thought_words import SPECIAL, Vocabulary, count_words

PUBLISHED = (
    *("dictionary.txt", "utable.npy", "btable.npy"),
    *("uni_skip.npz", "uni_skip.npz.pkl", "bi_skip.npz", "bi_skip.npz.pkl"),
)
TABLES = ("uni_words.weight", "bi_words.weight")  #: what the network calls its word tables

Floats = NDArray[np.float32]


class Found(NamedTuple):
    """Everything that makes an encoder.

    Attributes:
        words: known words, in the order of the tables' rows after those of ``SPECIAL``.
        state: the network's state dict.
        end: whether sentences end with ``<eos>``.
    """

    words: list[str]
    state: dict[str, Tensor]
    end: bool


def read(path: str, limit: int, vocabulary: str | None) -> Found:
    """Read a folder of the authors' files, or a run of ``SkipThought``.

    Args:
        path: the folder, or a .ckpt file.
        limit: the largest number of words that are kept.
        vocabulary: text whose words are kept, the most frequent first; by default all of the dictionary.

    Raises:
        T2IError: a file is missing, damaged or holds something else.
    """
    folder = Path(path).expanduser()
    wanted = count_words(_lines(vocabulary)) if vocabulary is not None else None
    if any((folder / name).is_file() for name in PUBLISHED):
        return _read_published(folder, limit, wanted)
    return _read_run(find_weights(folder), limit, wanted)


def _read_published(folder: Path, limit: int, wanted: Sequence[str] | None) -> Found:
    """The authors' combine-skip model.

    The rows of ``utable.npy`` and ``btable.npy`` belong to the lines of ``dictionary.txt``. Of several lines with one
    word the last one counts, as in the authors' code. The lines are not sorted by frequency.
    """
    for name in PUBLISHED:
        if not (folder / name).is_file():
            raise T2IError(f"found no {name} in {folder}, expected {', '.join(PUBLISHED)}: download it there")
    place = folder / "dictionary.txt"
    try:
        lines = (
            place.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
        )  # unlike splitlines, keep other line ends inside a word
    except UnicodeDecodeError as error:
        raise T2IError(f"{place} is not UTF-8 text ({error.reason}): download it again in binary mode") from error
    rows = {line.strip(): number for number, line in enumerate(lines)}
    for word in SPECIAL[1:]:
        if word not in rows:
            raise T2IError(f"found no line {word!r} in {place}, expected the authors' dictionary: download it again")
    words = [word for word in (rows if wanted is None else wanted) if word in rows and word not in SPECIAL]
    if wanted is None and len(words) > limit:
        raise T2IError(
            f"{place} has {len(words)} words in no useful order, more than max_vocabulary {limit}: give text_encoder a "
            "vocabulary, a text file or a folder of .txt files whose words are kept (such as your captions), or a "
            "larger max_vocabulary"
        )
    words = words[:limit]
    order = [rows[word] for word in (*SPECIAL[1:], *words)]
    state: dict[str, Tensor] = {}
    for network, letter, suffixes in (("uni", "u", [""]), ("bi", "b", ["", "_reverse"])):
        state |= _gru(folder, network, suffixes)
        table = _array(folder / f"{letter}table.npy", mmap_mode="r")
        width = state[f"{network}.weight_ih_l0"].shape[1]
        if table.shape != (len(lines), width):
            raise T2IError(
                f"{folder / letter}table.npy has the shape {table.shape}, expected {(len(lines), width)} by "
                f"dictionary.txt and {network}_skip.npz: download the three files again"
            )
        kept = np.asarray(table[order], np.float32)
        state[f"{network}_words.weight"] = torch.from_numpy(np.pad(kept, ((1, 0), (0, 0))))  # row 0 is the padding
    return Found(words, state, end=False)


def _gru(folder: Path, network: str, suffixes: Sequence[str]) -> dict[str, Tensor]:
    """One ``*_skip.npz`` as weights of ``nn.GRU``: gates r, z, n, one row for each unit, all biases in ``bias_ih``."""
    place = folder / f"{network}_skip.npz"
    options = load_pickle(f"{place}.pkl")
    if not isinstance(options, dict) or not {"dim", "dim_word"} <= options.keys():
        raise T2IError(f"found no dim and dim_word in {place}.pkl, expected the authors' options: download it again")
    units, width, kind = int(options["dim"]), int(options["dim_word"]), options.get("encoder", "gru")
    if kind != "gru":
        raise T2IError(f"found an encoder {kind!r} in {place}.pkl, expected 'gru': download the authors' model")
    shapes = {
        **{"W": (width, 2 * units), "U": (units, 2 * units), "b": (2 * units,)},
        **{"Wx": (width, units), "Ux": (units, units), "bx": (units,)},
    }
    archive = _array(place)
    state: dict[str, Tensor] = {}
    for suffix, prefix in zip(suffixes, ("encoder", "encoder_r"), strict=False):
        part: dict[str, Floats] = {}
        for name, shape in shapes.items():
            key = f"{prefix}_{name}"
            try:
                part[name] = np.asarray(archive[key], np.float32)
            except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
                raise T2IError(f"{place} has no readable array {key}: download it again in binary mode") from error
            if part[name].shape != shape:
                raise T2IError(
                    f"{key} in {place} has the shape {part[name].shape}, expected {shape} by {place.name}.pkl: "
                    "download both files again"
                )
        for ours, first, second in (("weight_ih", "W", "Wx"), ("weight_hh", "U", "Ux"), ("bias_ih", "b", "bx")):
            joined = np.concatenate([part[first].T, part[second].T])
            state[f"{network}.{ours}_l0{suffix}"] = torch.from_numpy(joined)
        state[f"{network}.bias_hh_l0{suffix}"] = torch.zeros(3 * units)
    return state


def _read_run(path: Path, limit: int, wanted: Sequence[str] | None) -> Found:
    """The encoder in a checkpoint of ``SkipThought``, without its decoders; its words are sorted by frequency."""
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        words: list[str] = checkpoint["t2i_zoo"]["words"]
        state = {k.removeprefix("encoder."): v for k, v in checkpoint["state_dict"].items() if k.startswith("encoder.")}
        tables = {name: state[name] for name in TABLES}
    except Exception as error:  # torch.load raises many kinds
        refuse_code(path, error)
        raise T2IError(
            f"{path} is no readable checkpoint of SkipThought ({type(error).__name__}): set text_encoder's path to a "
            "run of SkipThought, or to a folder with the authors' files"
        ) from error
    known = Vocabulary(words)
    kept = words if wanted is None else [word for word in wanted if word in known]
    rows = [*range(len(SPECIAL)), *(known.number(word) for word in kept[:limit])]
    state = {name: tensor.clone() for name, tensor in state.items() if name not in TABLES}
    return Found(kept[:limit], state | {name: table[rows].clone() for name, table in tables.items()}, end=True)


def expand(found: Found, path: str, limit: int, vocabulary: str | None) -> Found:
    """Vocabulary expansion (paper, section 2.2): words of a second table, mapped into the space of the RNN's words.

    A linear map with an offset, as in the authors' code, is fitted by least squares to the words that both tables have,
    once for each of the encoder's two word tables.

    Args:
        found: the encoder.
        path: the second table, as text with a line ``word v1 v2 ...`` for each word (word2vec, GloVe), or as .npy
            beside a .txt of the same name with one word in each line.
        limit: the largest number of words, including the encoder's own; the first ones of the second table are taken.
        vocabulary: text to which the new words are restricted.

    Raises:
        T2IError: the table cannot be read, or shares too few words with the encoder.
    """
    known = Vocabulary(found.words)
    wanted = None if vocabulary is None else set(count_words(_lines(vocabulary)))
    shared: dict[str, Floats] = {}
    fresh: dict[str, Floats] = {}
    for word, vector in _word_vectors(Path(path).expanduser()):
        if word in known:
            shared[word] = vector
        # captions are read in lower case
        elif len(found.words) + len(fresh) < limit and word == word.lower() and (wanted is None or word in wanted):
            fresh[word] = vector
    width = 1 + len(next(iter(shared.values()), ()))
    if not shared or len(shared) < width:
        raise T2IError(
            f"{path} shares {len(shared)} words with the encoder, expected at least {width} to fit a map: set "
            "text_encoder's expansion to a larger table, or to one of the same language"
        )
    if not fresh:
        return found
    source = _with_offset(shared)
    state, rows = dict(found.state), [known.number(word) for word in shared]
    for name in TABLES:
        table = found.state[name]
        matrix = np.linalg.lstsq(source, table[rows].double().numpy(), rcond=None)[0]
        mapped = torch.from_numpy((_with_offset(fresh) @ matrix).astype(np.float32))
        state[name] = torch.cat([table, mapped])
    return Found([*found.words, *fresh], state, found.end)


def _word_vectors(path: Path) -> Iterator[tuple[str, Floats]]:
    if path.suffix == ".npy":
        names = path.with_suffix(".txt")
        table, words = _array(path, mmap_mode="r"), list(_lines(str(names)))
        if table.ndim != 2 or len(table) != len(words):
            raise T2IError(
                f"{path} has the shape {table.shape}, expected one row for each of the {len(words)} lines of {names}: "
                "write both files again"
            )
        yield from ((word, np.asarray(row, np.float32)) for word, row in zip(words, table, strict=True))
        return
    width = 0
    for number, line in enumerate(_lines(str(path)), start=1):
        fields = line.split(" ")
        if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
            continue  # word2vec's header: the number of words and their dimension
        width = width or len(fields) - 1
        try:
            if not 0 < width < len(fields):
                raise ValueError("too few numbers")
            vector = np.array(fields[len(fields) - width :], np.float32)
        except ValueError as error:
            raise T2IError(
                f"{path}, line {number}: {str(error)[:80]}, expected a word and {width or 'its'} numbers: give a table "
                "of word vectors as text, or as .npy beside a .txt"
            ) from error
        yield " ".join(fields[: len(fields) - width]), vector


def _lines(path: str) -> Iterator[str]:
    """Lines of a text file, or of all .txt files below a folder, without their line ends."""
    place = Path(path).expanduser()
    files = sorted(place.rglob("*.txt")) if place.is_dir() else [place]
    if not files or not all(file.is_file() for file in files):
        raise T2IError(f"found no text at {path}, expected a text file or a folder of .txt files: correct text_encoder")
    for file in files:
        try:
            with file.open(encoding="utf-8", newline="\n") as text:
                yield from (line.rstrip("\r\n ") for line in text)
        except UnicodeDecodeError as error:
            raise T2IError(f"{file} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


def _array(path: Path, **options: Any) -> Any:
    """An array or an archive of arrays, without pickles."""
    refuse_pointer(path)
    try:
        return np.load(path, allow_pickle=False, **options)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:80]
        raise T2IError(f"{path} holds no readable NumPy array ({reason}): download it again in binary mode") from error


def _with_offset(vectors: dict[str, Floats]) -> NDArray[np.float64]:
    """The vectors as rows (N, D + 1) with a column of ones."""
    return np.pad(np.array(list(vectors.values()), np.float64), ((0, 0), (0, 1)), constant_values=1)
