"""Files of public data sets: fetched once, resumed where they broke off, checked, and unpacked all or not at all."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import json
import shutil
import ssl
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_zoo.errors import T2IError

_RECORD = "downloads.json"
BLOCK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a byte of progress, at each address
PAUSE = 1.0  # seconds before the second attempt, then twice as long each
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, RuntimeError)
#: what a broken connection raises, before an answer or while it is read
CONNECTION = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better later


@dataclass(frozen=True)
class Remote:
    """A file that a source needs.

    Attributes:
        name: of the file in the source's folder.
        gives: what lies in the folder once the file is unpacked; where that is there, nothing is fetched.
        urls: addresses, tried in turn; none where the file cannot or may not be fetched by a program.
        page: where people find it.
        hash: ``md5:...`` or ``sha256:...`` as published; None where nobody has published one, then that of the first
            download is kept in downloads.json and later downloads must have it.
        strip: leave out the one folder that holds everything in the archive.
    """

    name: str
    gives: str
    urls: tuple[str, ...] = ()
    page: str = ""
    hash: str | None = None
    strip: bool = False


def fetch(remotes: Sequence[Remote], folder: Path, progress: bool = True) -> None:
    """Bring the files of a data set into a folder; what is there stays as it is.

    Args:
        remotes: the files. One that was put into the folder by hand is checked and unpacked like a downloaded one.
        folder: of the data set; made where it is missing.
        progress: show bars on standard error.

    Raises:
        T2IError: where a file can be had from no address, has another hash, or where the disk is full.
    """
    if all((folder / remote.gives).exists() for remote in remotes):
        return
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            for remote in remotes:
                if not (folder / remote.gives).exists():  # another process may have brought it meanwhile
                    _bring(remote, folder, progress)
    except OSError as error:
        raise T2IError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or change --data.source.root"
        ) from error


def _bring(remote: Remote, folder: Path, progress: bool) -> None:
    file = folder / remote.name
    by_hand = file.is_file()
    if by_hand:
        if problem := _differs(remote, file, folder):
            raise T2IError(f"{file} {problem}: replace it, or delete it so that it is downloaded again")
    else:
        url = _download(remote, folder, progress)
        _remember(remote, folder, url)
    if remote.gives != remote.name:
        _unpack(remote, file, folder)
        if not by_hand:
            file.unlink()


def _download(remote: Remote, folder: Path, progress: bool) -> str:
    """Fetch into the folder from the first address that has the right file; returns that address."""
    place = f"put {remote.name} into {folder}" + (f" (it is found at {remote.page})" if remote.page else "")
    if not remote.urls:
        raise T2IError(f"{remote.name} cannot be downloaded by a program: {place} and run the same command again")
    part, problems = folder / f".{remote.name}.part", []
    for url in remote.urls:
        problem = _stubborn(url, part, progress) or _differs(remote, part, folder)
        if problem is None:
            part.replace(folder / remote.name)
            _tag(part).unlink(missing_ok=True)
            return url
        if problem.startswith("has the"):
            part.unlink()  # a whole file, and a wrong one: nothing to resume
        problems.append(f"{url} {problem}")
    kept = "what has arrived is kept: try again, or " if part.exists() else "try again, or "
    raise T2IError(f"{remote.name} cannot be downloaded ({'; '.join(problems)}): {kept}{place}")


def _stubborn(url: str, part: Path, progress: bool) -> str | None:
    """Fetch with pauses and resumptions; what is wrong in the end, or None."""
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            _receive(url, part, progress)
            return None
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:
                if error.headers.get("Content-Range", "").endswith(f"/{before}"):
                    return None  # it is whole: a run was killed just before it gave the file its name
                part.unlink(missing_ok=True)  # longer than the file: another file
            elif error.code not in PASSING:
                return f"answers {error.code} {error.reason}"
            reason = f"answers {error.code} {error.reason}"
        except CONNECTION as error:
            reason = f"is not reached ({getattr(error, 'reason', None) or error})"
        except _BrokeOffError:
            reason = "breaks off"
        idle = 0 if part.exists() and part.stat().st_size > before else idle + 1
        if idle >= ATTEMPTS:
            return reason
        time.sleep(PAUSE * 2 ** max(idle - 1, 0))


class _BrokeOffError(Exception):
    """Fewer bytes came than were announced."""


def _receive(url: str, part: Path, progress: bool) -> None:
    """One request, which goes on behind what is there where the server has the same file still."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "t2i-zoo"}
    if start and _tag(part).exists():
        headers |= {"Range": f"bytes={start}-", "If-Range": _tag(part).read_text("utf-8")}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
        if answer.status != 206:
            start = 0
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if tag and not tag.startswith("W/"):  # by a weak one nothing may be resumed
            _tag(part).write_text(tag, "utf-8")
        else:
            _tag(part).unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if total is not None and shutil.disk_usage(part.parent).free < total - start:
            raise OSError(f"{total - start:,} bytes are to come and fewer are free")
        with part.open("ab" if start else "wb") as file, _bar(part.name, total, start, progress) as step:
            while block := answer.read(BLOCK):
                file.write(block)
                step(len(block))
            end = file.tell()
    if total is not None and end < total:
        raise _BrokeOffError


def _tag(part: Path) -> Path:
    """Where the server's mark of the version of a half file is kept."""
    return part.with_name(f"{part.name}.tag")


@contextlib.contextmanager
def _bar(name: str, total: int | None, start: int, show: bool) -> Any:
    if not show:
        yield lambda size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(name.strip(".").removesuffix(".part"), total=total, completed=start)
        yield lambda size: bars.advance(task, size)


def _digest(file: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _differs(remote: Remote, file: Path, folder: Path) -> str | None:
    """How a file is not the one that is meant, or None."""
    expected = remote.hash or _records(folder).get(remote.name, {}).get("hash")
    if expected is None:
        return None
    kind, _, digits = expected.partition(":")
    found = _digest(file, kind)
    origin = "published" if remote.hash else f"of the first download, which {_RECORD} holds,"
    return None if found == digits else f"has the {kind} {found}, and the one {origin} is {digits}"


def _records(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _RECORD).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _remember(remote: Remote, folder: Path, url: str) -> None:
    """Note where a file came from and its hash."""
    file = folder / remote.name
    entry = {"url": url, "bytes": file.stat().st_size, "hash": remote.hash or f"sha256:{_digest(file, 'sha256')}"}
    beside = folder / f".{_RECORD}.unfinished"
    beside.write_text(json.dumps({**_records(folder), remote.name: entry}, indent=1) + "\n", "utf-8")
    beside.replace(folder / _RECORD)


def _unpack(remote: Remote, file: Path, folder: Path) -> None:
    """Unpack beside, then move into place, what the source looks for last of all."""
    beside = folder / f".{remote.name}.unfinished"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        try:
            _extract(file, beside)
        except _BROKEN as error:
            raise T2IError(f"{file} cannot be unpacked ({error}): delete it and run the same command again") from error
        top = list(beside.iterdir())
        root = top[0] if remote.strip and len(top) == 1 and top[0].is_dir() else beside
        if not (root / remote.gives).exists():
            raise T2IError(f"{file} holds no {remote.gives}, expected the archive at {remote.page or remote.urls}")
        first = Path(remote.gives).parts[0]
        for entry in sorted(root.iterdir(), key=lambda path: path.name == first):
            _move(entry, folder / entry.name, Path(remote.gives).name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(file: Path, folder: Path) -> None:
    """An archive into a folder, whose names cannot leave it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            packed.extractall(folder)  # drops what would lead out of the folder
        return
    with tarfile.open(file) as archive:
        for member in archive:  # as the filter "data" of newer Pythons does
            path = (folder / member.name).resolve()
            if not (member.isfile() or member.isdir()) or not path.is_relative_to(folder.resolve()):
                if member.issym() or member.islnk():
                    continue
                raise ValueError(f"{member.name!r} is no plain file inside")
            member.mode = 0o755 if member.isdir() else 0o644
            options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extract(member, folder, set_attrs=False, **options)


def _move(source: Path, target: Path, last: str) -> None:
    """Move a file or folder, into a folder that is there already where there is one; ``last`` comes last."""
    if not (source.is_dir() and target.is_dir()):
        source.replace(target)
        return
    for entry in sorted(source.iterdir(), key=lambda path: path.name == last):
        _move(entry, target / entry.name, last)
