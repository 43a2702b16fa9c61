"""What a source of captioned pictures lists, and the base class of all sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from t2i_zoo.data.reading import tree_fingerprint
from t2i_zoo.errors import T2IError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Embedded:
    """A picture that is no file of its own but lies in an archive or a table.

    Attributes:
        name: what a sentence calls it.
        read: gives the bytes of the encoded picture (JPEG, PNG, ...).
    """

    name: str
    read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Record:
    """One picture with its captions.

    Attributes:
        image: path of the picture file, or what reads it from elsewhere.
        captions: at least one caption, none of them blank; or none, for every picture of a source alike.
        class_id: 0-based class, or None where the source knows no classes.
        box: x, y, width, height in pixels of what is cut out of the picture before all else, as far as it lies inside;
            None takes the whole.
        split: the part of the data set that the picture belongs to.
    """

    image: Path | Embedded
    captions: tuple[str, ...]
    class_id: int | None = None
    box: tuple[float, float, float, float] | None = None
    split: Split = "train"


class Source:
    """A source of captioned pictures: a new one is one file with a dataclass below this one that writes ``records``.

    Attributes:
        root: folder of the source.
    """

    root: str

    @property
    def path(self) -> Path:
        """The source's folder with ``~`` expanded."""
        return Path(self.root).expanduser()

    def records(self) -> list[Record]:
        """List every picture of every split in a stable order.

        Raises:
            T2IError: where files are missing or a row is bad; names the file, the line and the remedy.
        """
        raise NotImplementedError

    def fetch(self) -> None:
        """Bring what is missing into the folder, where the source can; called ahead of all else, and quick if whole."""

    def fingerprint(self, without: Path | None = None) -> str:
        """A sign that changes whenever a file of the source does; ``without`` is a folder to leave out.

        Raises:
            T2IError: the source's own sentence where its folder is missing.
        """
        if not self.path.is_dir():
            records = self.records()  # makes built-in data, or raises
            if not self.path.is_dir():
                raise T2IError(f"found no folder {self.path} ({len(records)} records): correct --data.source.root")
        return tree_fingerprint(self.path, without)

    def options(self) -> dict[str, Any]:
        """What was asked for, as plain values; part of the key under which a store is kept."""
        asked = {name: value for name, value in vars(self).items() if name != "download"}
        return {**asked, "root": str(self.path.resolve()), "kind": type(self).__name__}
