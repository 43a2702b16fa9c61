"""How sources read files: text, tables, paths that stay inside a folder, a fingerprint of a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from t2i_zoo import files
from t2i_zoo.data.notes import remark
from t2i_zoo.errors import T2IError
from t2i_zoo.files import RUN_FILES, refuse_pointer


def read_text(path: Path) -> str:
    """Read a text file: UTF-8 with or without a byte order mark, UTF-16, else Windows-1252 with a remark.

    All line endings become newlines.

    Raises:
        T2IError: if the file is none of these or cannot be read.
    """
    return decode_text(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        T2IError: if it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise T2IError(f"{path} cannot be read ({error.strerror}): check that it exists and its permissions") from None
    refuse_pointer(path, content)
    return content


def decode_text(content: bytes, name: str) -> str:
    """As ``read_text``, for bytes; ``name`` is what errors call them."""
    text, encoding = files.decode_text(content, name)
    if encoding != "utf-8-sig":
        remark(f"read as {'Windows-1252' if encoding == 'cp1252' else 'UTF-16'}, since it is not UTF-8", name)
    return text


def lines_of(text: str) -> tuple[str, ...]:
    """The lines of a text that are not blank, stripped: one caption each."""
    return tuple(line for raw in text.split("\n") if (line := raw.strip()))


def numbered_lines(path: Path, fields: int) -> Iterator[tuple[str, list[str]]]:
    """The lines of a table whose fields are separated by spaces; the last field may contain spaces.

    Yields:
        For each line that is not blank its place, for errors, and its fields.

    Raises:
        T2IError: if a line has too few fields.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        found = line.split(maxsplit=fields - 1)
        if len(found) < fields:
            raise T2IError(
                f"{path}, line {number}: found {line.strip()[:80]!r}, expected {fields} fields with a space between: "
                "correct that line or download the file again"
            )
        yield f"{path}, line {number}", [field.strip() for field in found]


def is_file(path: Path) -> bool:
    """Whether the file exists; False also for impossible names, such as one with a zero byte."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with characters that no file name has
        return False


def inside(root: Path, name: str) -> Path | None:
    """The path of a name in a folder, or None if it leaves the folder; symbolic links are followed."""
    if "\0" in name:
        return None
    path = Path(os.path.normpath(root / name))
    return path if path.is_relative_to(os.path.normpath(root)) else None


def walk(root: Path, without: Path | None = None) -> Iterator[os.DirEntry[str]]:
    """Every file below a folder except hidden ones; links are followed, and each folder is read once.

    What runs and caches of text features have written below it is left out: their images are no data, and a source
    must not count as changed because a run has trained on it.

    Args:
        root: where to begin.
        without: a folder to leave out.

    Raises:
        T2IError: if a folder cannot be read.
    """
    pending, links = [str(root)], list[str]()
    seen = set[tuple[int, int]]()
    left_out = os.path.realpath(without) if without is not None else None
    while pending or links:
        folder = pending.pop() if pending else links.pop()  # links last, so that files keep their own names
        try:
            info = os.stat(folder)  # noqa: PTH116  # tens of thousands of calls: no Path objects
            if (info.st_dev, info.st_ino) in seen or os.path.realpath(folder) == left_out:
                continue  # a link to a folder that was read already
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise T2IError(
                f"the folder {folder} cannot be read ({error.strerror}): check its permissions, or change "
                "--data.source.root"
            ) from error
        if folder != str(root) and _is_ours({entry.name for entry in entries}):
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_dir(entry):
                (links if entry.is_symlink() else pending).append(entry.path)
            else:
                yield entry


def left_out(root: Path, folder: Path) -> Path:
    """What a fingerprint of ``root`` leaves out: the cache around ``folder``, which may be inside the source.

    If that cache is ``root`` itself, only ``folder`` is left out.
    """
    return folder if folder.parent.resolve() == root.resolve() else folder.parent


def tree_fingerprint(root: Path, without: Path | None = None) -> str:
    """Digest of the names, sizes and times of all files under ``root``, which shows whether a source has changed.

    Args:
        root: folder of the source.
        without: a folder to leave out, such as a cache inside the source.

    Raises:
        T2IError: if a folder cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for entry in walk(root, without):
        try:
            info = entry.stat()
            sign = f"{info.st_size}\0{info.st_mtime_ns}"
        except OSError:
            sign = "broken"  # a broken link; it matters only if the source lists it
        digest.update(f"{entry.path[len(str(root)) :]}\0{sign}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _is_ours(names: set[str]) -> bool:
    """Whether a folder with these files is that of a run, or a segment of a cache of text features."""
    return not names.isdisjoint(RUN_FILES) or {"keys.npy", "sentence.npy"} <= names


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
