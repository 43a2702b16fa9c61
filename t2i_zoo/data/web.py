"""Files on the web that are read while they come, from the beginning to the end, as shards are."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from typing import Any

from t2i_zoo.data import download
from t2i_zoo.errors import T2IError


def fetched_text(url: str) -> str:
    """A small file in UTF-8.

    Raises:
        T2IError: where it cannot be read.
    """
    try:
        with WebFile(url) as file:
            return file.read().decode("utf-8")
    except (OSError, ValueError) as error:
        raise T2IError(
            f"{url} cannot be read ({error}), and shards on the web need it: write them with t2i-zoo prepare --to "
            "webdataset, or change --data.source.root"
        ) from error


class WebFile(io.RawIOBase):
    """A file on the web that is read from its beginning to its end; a broken connection is opened again behind it.

    Args:
        url: its address.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self._answer: Any = None
        self._at = 0
        self._total: int | None = None
        self._same: dict[str, str] = {}

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as there is something; 0 at the end.

        Raises:
            OSError: where the server cannot be reached in several attempts, or has no such file.
        """
        if self._total is not None and self._at >= self._total:
            return 0
        reason: Any = "breaks off"
        for attempt in range(download.ATTEMPTS):
            try:
                if self._answer is None:
                    self._open()
                block = self._answer.read(min(len(buffer), download.BLOCK))
                if block or self._total is None:
                    buffer[: len(block)] = block
                    self._at += len(block)
                    return len(block)
            except urllib.error.HTTPError as error:
                reason = f"answers {error.code} {error.reason}"
                if error.code not in download.PASSING:
                    raise OSError(f"the server {reason}") from error
            except download.CONNECTION as error:
                reason = getattr(error, "reason", None) or error
            self._shut()
            time.sleep(download.PAUSE * 2**attempt)
        raise OSError(f"the server {reason}")

    def _open(self) -> None:
        headers = {"User-Agent": "t2i-zoo"} | ({"Range": f"bytes={self._at}-", **self._same} if self._at else {})
        request = urllib.request.Request(self.url, headers=headers)
        self._answer = urllib.request.urlopen(request, timeout=download.TIMEOUT)
        if self._at and self._answer.status != 206:  # it begins anew: pass over what is known
            left = self._at
            while left and (block := self._answer.read(min(left, download.BLOCK))):
                left -= len(block)
        elif not self._at:
            length = self._answer.headers.get("Content-Length")
            self._total = int(length) if length and length.isdigit() else None
            if (tag := self._answer.headers.get("ETag") or "").startswith('"'):
                self._same = {"If-Range": tag}

    def _shut(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def close(self) -> None:
        """Close the connection."""
        self._shut()
        super().close()
