"""Files of public data sets: downloaded once, resumed where they broke off, checked, and unpacked all or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing

_RECORD = "downloads.json"
BLOCK = 1 << 15  # bytes; an unfinished block is lost when a connection breaks off
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a byte of progress, at each address
PAUSE = 1.0  # seconds before the second attempt; doubled after each further one
PASSING = (408, 416, 425, 429, 500, 502, 503, 504)  # status codes that another attempt may not meet
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)

pooch.get_logger().setLevel(logging.WARNING)  # its notes on each download and hash are for developers


@dataclass(frozen=True)
class Remote:
    """A file that a source needs.

    Attributes:
        name: file name in the source's folder.
        gives: what is in the folder once the file is unpacked; if that exists, nothing is downloaded.
        urls: addresses, tried in turn; empty if a program cannot or may not download the file.
        page: where people find it.
        hash: published hash, ``md5:...`` or ``sha256:...``. If nobody has published one, the hash of the first download
            is kept in downloads.json, and later downloads must match it.
        strip: leave out the single folder that holds everything in the archive.
    """

    name: str
    gives: str
    urls: tuple[str, ...] = ()
    page: str = ""
    hash: str | None = None
    strip: bool = False


def fetch(remotes: Sequence[Remote], folder: Path, progress: bool = True) -> None:
    """Bring the files of a data set into a folder; files that are there already stay as they are.

    Args:
        remotes: the files. One that the user has put into the folder is checked and unpacked like a downloaded one.
        folder: folder of the data set; created if it is missing.
        progress: show progress bars on standard error.

    Raises:
        T2IError: if a file is available from no address, has another hash, or the disk is full.
    """
    from filelock import FileLock

    if all((folder / remote.gives).exists() for remote in remotes):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            for remote in remotes:
                if not (folder / remote.gives).exists():  # another process may have brought it in the meantime
                    _bring(remote, folder, progress)
    except OSError as error:
        raise T2IError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or change --data.source.root"
        ) from error


def _bring(remote: Remote, folder: Path, progress: bool) -> None:
    file = folder / remote.name
    known = remote.hash or _records(folder).get(remote.name, {}).get("hash")
    if by_hand := file.is_file():
        kind, _, digits = (known or "").partition(":")
        if known and (found := pooch.file_hash(str(file), kind)) != digits:
            raise T2IError(
                f"{file} has the {kind} {found}, expected {digits}: move it elsewhere, and the same command "
                "downloads it again"
            )
    else:
        url = _download(remote, folder, known, progress)
        entry = {"url": url, "bytes": file.stat().st_size, "hash": known or f"sha256:{pooch.file_hash(str(file))}"}
        with replacing(folder / _RECORD) as beside:
            beside.write_text(json.dumps({**_records(folder), remote.name: entry}, indent=1) + "\n", "utf-8")
    if remote.gives != remote.name:
        _unpack(remote, file, folder)
        if not by_hand:
            file.unlink()


def _records(folder: Path) -> dict[str, Any]:
    """What downloads.json says of earlier downloads: address, size and hash by file name."""
    try:
        found = json.loads((folder / _RECORD).read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _download(remote: Remote, folder: Path, known: str | None, progress: bool) -> str:
    """Download from the first address that has the right file, and return that address."""
    place = f"put {remote.name} into {folder}" + (f" (it is found at {remote.page})" if remote.page else "")
    if not remote.urls:
        raise T2IError(f"{remote.name} cannot be downloaded by a program: {place} and run the same command again")
    part, problems = folder / f".{remote.name}.part", []

    def resumed(url: str, target: str, _: Any) -> None:
        receive(url, part, progress)
        part.replace(target)
        _tag(part).unlink(missing_ok=True)

    for url in remote.urls:
        try:
            pooch.retrieve(url, known, remote.name, folder, downloader=resumed)
            return url
        except requests.RequestException as error:
            problems.append(f"{url}: {error}")
        except ValueError as error:  # another hash; pooch has deleted the file
            origin = "" if remote.hash else f", the one that {_RECORD} holds of the first download"
            problems.append(f"{url}: {str(error).split('. Deleted')[0]}{origin}")
    kept = "what has arrived is kept: try again, or " if part.exists() else "try again, or "
    raise T2IError(f"{remote.name} cannot be downloaded ({'; '.join(problems)}): {kept}{place}")


def receive(url: str, part: Path, progress: bool = False) -> None:
    """Download a file, continuing what is there of it; pooch would start again whenever a connection breaks off.

    Args:
        url: HTTP address.
        part: where to. What a broken download has left there is continued if the server still has the same version of
            the file, by its ETag, which is kept in ``part``.tag.
        progress: show a progress bar on standard error.

    Raises:
        requests.RequestException: with a phrase about the server, after several attempts.
    """
    idle = 0
    while True:
        before = _size(part)
        try:
            return _request(url, part, progress)
        except requests.RequestException as error:
            reason = _reason(error)
            if error.response is not None and error.response.status_code not in PASSING:
                raise requests.HTTPError(reason) from error
        idle = 0 if _size(part) > before else idle + 1
        if idle == ATTEMPTS:
            raise requests.ConnectionError(reason)
        time.sleep(PAUSE * 2 ** max(idle - 1, 0))


def _reason(error: requests.RequestException) -> str:
    """What is wrong with a server, for a sentence."""
    if (answer := error.response) is not None:
        return f"the server answers {answer.status_code} {answer.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection breaks off"
    cause = getattr(error.args[0], "reason", error) if error.args else error
    said = str(cause).rsplit(": ", 1)[-1]  # urllib3 ends with what the system said
    return f"the server is not reached ({said})"


def _tag(part: Path) -> Path:
    """Where the ETag of an unfinished file is kept."""
    return part.with_name(f"{part.name}.tag")


def _request(url: str, part: Path, progress: bool) -> None:
    """Make one request; the server continues behind what is there if it still has the same version."""
    start, headers = _size(part), {"User-Agent": "t2i-zoo", "Accept-Encoding": "identity"}
    version = _tag(part).read_text("utf-8") if start and _tag(part).exists() else ""
    if version and not version.startswith("W/"):  # a weak tag does not promise equal bytes
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        whole = (
            answer.headers.get("Content-Range") == f"bytes */{start}"
        )  # it is complete: a run was killed before it renamed the file
        if answer.status_code == 416 and not whole:
            part.unlink()  # longer than the file: a part of another one
        if not whole:
            answer.raise_for_status()
            _save(answer, part, start if answer.status_code == 206 else 0, progress)


def _save(answer: requests.Response, part: Path, start: int, progress: bool) -> None:
    """Write the body of an answer, behind the first ``start`` bytes."""
    _tag(part).write_text(answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "", "utf-8")
    length = answer.headers.get("Content-Length", "")
    total = start + int(length) if length.isdigit() else None
    if total is not None and shutil.disk_usage(part.parent).free < total - start:
        raise OSError(f"{total - start:,} bytes are missing and less is free")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True, force_jupyter=False), disable=not progress)
    with part.open("ab" if start else "wb") as file, bars:
        task = bars.add_task(part.name.strip(".").removesuffix(".part"), total=total, completed=start)
        for block in answer.iter_content(BLOCK):
            file.write(block)
            bars.advance(task, len(block))
    if total is not None and _size(part) < total:  # urllib3 before 2.0 does not notice
        raise requests.exceptions.ChunkedEncodingError


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _unpack(remote: Remote, file: Path, folder: Path) -> None:
    """Unpack beside, then move into place, what the source looks for last of all."""
    beside = folder / f".{remote.name}.unfinished"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        try:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as packed:
                    packed.extractall(beside)  # leaves out whatever part of a name leads out of the folder
            else:
                with tarfile.open(file) as archive:
                    _extract(archive, beside)
        except _BROKEN as error:
            raise T2IError(
                f"{file} cannot be unpacked ({error}): move it elsewhere, and the same command downloads it again"
            ) from error
        top = list(beside.iterdir())
        root = top[0] if remote.strip and len(top) == 1 and top[0].is_dir() else beside
        last = root / remote.gives
        if not last.exists():
            raise T2IError(f"{file} holds no {remote.gives}, expected the archive at {remote.page or remote.urls}")

        def without_last(place: str, names: list[str]) -> set[str]:
            return {last.name} if Path(place) == last.parent else set()

        shutil.copytree(root, folder, copy_function=os.replace, dirs_exist_ok=True, ignore=without_last)
        last.replace(folder / remote.gives)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Unpack nothing that leads out of the folder, on Python before 3.10.12 and 3.11.4 too, which have no filters."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
        return
    for member in archive:
        for name in (member.name, member.linkname):
            if Path(name).anchor or ".." in Path(name).parts:
                raise tarfile.TarError(f"{name!r} would lead out of the folder")
        if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
            raise tarfile.TarError(f"{member.name!r} is a device")
    archive.extractall(folder)
