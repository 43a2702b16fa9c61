"""Small files in the layouts of the published ones: Torch7's .t7, StackGAN's and TAC-GAN's pickles."""

from __future__ import annotations

import itertools
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "


def t7(value: Any, numbers: Any = None) -> bytes:
    """What Torch7 writes in binary form for tables, strings and tensors of float or byte; no object is shared."""
    numbers = numbers or itertools.count(1)
    if isinstance(value, str):
        content = value.encode()
        return struct.pack("<ii", 2, len(content)) + content
    if isinstance(value, float):
        return struct.pack("<id", 1, value)
    if isinstance(value, list):
        value = {float(i): item for i, item in enumerate(value, 1)}
    if isinstance(value, dict):
        head = struct.pack("<iii", 3, next(numbers), len(value))
        return head + b"".join(t7(key, numbers) + t7(item, numbers) for key, item in value.items())
    kind = {"f4": "Float", "u1": "Byte"}[value.dtype.str[1:]]

    def head(name: str) -> bytes:
        whole = f"torch.{kind}{name}".encode()
        return struct.pack("<iii3si", 4, next(numbers), 3, b"V 1", len(whole)) + whole

    value = np.ascontiguousarray(value)
    steps = [stride // value.itemsize for stride in value.strides]
    sizes = struct.pack(f"<i{2 * value.ndim + 1}q", value.ndim, *value.shape, *steps, 1)
    return head("Tensor") + sizes + head("Storage") + struct.pack("<q", value.size) + value.tobytes()


def write_t7(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(t7(value))
    return path


def characters(caption: str) -> np.ndarray:
    """A column of 201 character numbers: of two equal characters the later number, 0 for any other."""
    column = np.zeros(201, np.uint8)
    for place, character in enumerate(caption[:201]):
        column[place] = ALPHABET.rfind(character) + 1
    return column


def write_reed(path: Path, captions: list[str], vectors: np.ndarray) -> Path:
    """One picture's table of GAN-CLS."""
    columns = np.stack([characters(caption) for caption in captions], 1)
    return write_t7(path, {"img": "a/b.jpg", "txt": vectors, "char": columns})


def write_pickle(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, 2))


def write_stackgan(folder: Path, names: list[str], vectors: np.ndarray) -> Path:
    write_pickle(folder / "filenames.pickle", names)
    write_pickle(folder / "char-CNN-RNN-embeddings.pickle", list(vectors))
    return folder


def write_tacgan(folder: Path, names: list[str], captions: list[list[str]], vectors: np.ndarray) -> Path:
    one_hot = np.eye(102)[0]
    write_pickle(folder / "flowers_caps.pkl", dict(zip(names, captions, strict=True)))
    write_pickle(folder / "flower_tv.pkl", dict(zip(names, vectors, strict=True)))
    write_pickle(folder / "flower_tc.pkl", dict.fromkeys(names, one_hot))
    write_pickle(folder / "train_ids.pkl", names)
    write_pickle(folder / "val_ids.pkl", [])
    return folder
