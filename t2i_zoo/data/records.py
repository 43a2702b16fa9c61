"""What a source of captioned pictures lists, and the base class of all sources."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Record:
    """One picture with its captions.

    Attributes:
        image: path of the picture file.
        captions: at least one caption, none of them blank; or none, for every picture of a source alike.
        class_id: 0-based class, or None where the source knows no classes.
        box: x, y, width, height in pixels of the object, or None.
        split: the part of the data set that the picture belongs to.
    """

    image: Path
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

    def options(self) -> dict[str, Any]:
        """What was asked for, as plain values; part of the key under which a store is kept."""
        return {**vars(self), "root": str(self.path.resolve()), "kind": type(self).__name__}
