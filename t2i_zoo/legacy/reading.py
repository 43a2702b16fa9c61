"""What the readers of published files share: reading the bytes, and the error for a damaged file."""

from __future__ import annotations

import re
from pathlib import Path

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_pointer


def read_content(path: str | Path, expected: str) -> bytes:
    """All bytes of a file.

    Args:
        path: the file.
        expected: what the file should be, such as "a pickle", for the error.

    Raises:
        T2IError: the file is missing or empty, or is the web page of a dead download link.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise T2IError(f"{path} cannot be read ({reason}), expected {expected}: check the folder's name") from error
    if not data:
        raise T2IError(f"found an empty file in {path}, expected {expected}: download it again")
    refuse_pointer(path, data)
    if data[:100].lstrip().startswith(b"<"):
        remedy = "the download link is dead or asks for a login, open it in a browser"
        raise T2IError(f"found a web page in {path}, expected {expected}: {remedy}")
    return data


def broken(path: str | Path, expected: str, reason: object) -> T2IError:
    """The error for a file that ends early or cannot be parsed."""
    return T2IError(f"found damage in {path} ({brief(reason)}), expected {expected}: download it again in binary mode")


def brief(text: object) -> str:
    """Text from a file as one short line of ASCII, since it may hold anything."""
    line = " ".join(str(text).split()).encode("ascii", "backslashreplace").decode()
    line = re.sub(r"[\x00-\x1f\x7f]", "?", line)
    return line if len(line) <= 120 else line[:117] + "..."
