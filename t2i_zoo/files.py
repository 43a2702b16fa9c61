"""Writing files whole, and telling files apart by their content."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from t2i_zoo.errors import T2IError

#: the lock of a training run, and the configs that other commands save: where one of them is, is the folder of a run
RUN_FILES = ("run.lock", *(f"config_{command}.yaml" for command in ("validate", "test", "predict")))
_POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to, and rename it into place at the end.

    A reader never meets half a file, and a failed or killed writer leaves the former one whole. The suffix is kept,
    since Pillow and others choose the format by it. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks (``hashlib.file_digest`` needs Python 3.11)."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def decode_text(content: bytes, name: object) -> tuple[str, str]:
    """The text of a file, with newlines for all line endings, and the encoding that it is found to be in.

    UTF-8 with or without a byte order mark (``utf-8-sig``), UTF-16, else Windows-1252 (``cp1252``).

    Args:
        content: of the file.
        name: what errors call it.

    Raises:
        T2IError: if it is none of these.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif b"\0" in content:  # as UTF-16 without a mark has beside each ASCII letter
        encodings = ["utf-16-le" if content[1::2].count(0) > content[::2].count(0) else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        with suppress(UnicodeDecodeError):
            text = content.decode(encoding)
            if "\0" not in text:
                return text.replace("\r\n", "\n").replace("\r", "\n"), encoding
    raise T2IError(f"{name} is not text in UTF-8, UTF-16 or Windows-1252: save it as UTF-8")


def refuse_pointer(path: Path | str, content: bytes | None = None) -> None:
    """Raise for a small text file that Git LFS leaves in place of a file that was not downloaded.

    Args:
        path: the file; one that is not there is no pointer.
        content: its first bytes, if they were read.

    Raises:
        T2IError: if it is a pointer.
    """
    if content is None:
        try:
            with Path(path).open("rb") as file:
                content = file.read(len(_POINTER))
        except (OSError, ValueError):
            return  # the caller says what is wrong
    if content.startswith(_POINTER):
        raise T2IError(f"{path} is a Git LFS pointer, expected the file itself: run git lfs pull in its repository")


def refuse_code(path: Path | str, error: Exception) -> None:
    """Raise if torch refused a file since it names something that could run code; ``error`` is torch's.

    Raises:
        T2IError: with the name.
    """
    if found := re.search(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)|call function '?([\w.]+)", str(error)):
        name = next(filter(None, found.groups()))
        raise T2IError(
            f"{path} holds {name}, which could run code, and is not read: give a file of weights alone"
        ) from error
