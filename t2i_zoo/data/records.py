"""A captioned image of a source, and the base class of all sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from t2i_zoo.data.reading import tree_fingerprint
from t2i_zoo.errors import T2IError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Embedded:
    """An image inside an archive or a table.

    Attributes:
        name: what errors call it.
        read: returns the encoded bytes (JPEG, PNG, ...).
    """

    name: str
    read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Record:
    """One image with its captions.

    Attributes:
        image: path of the file, or an embedded image.
        captions: none of them blank; no captions for all images of a source is one without text.
        class_id: 0-based class, or None for a source without classes.
        box: x, y, width, height in pixels of what is cut out first, as far as it is inside the image; None keeps all.
        split: the split that the image belongs to.
        lacks: why there is no caption, with file and line; what is done then is up to ``on_bad_caption``.
        lost: why there is no image, with file and line; what is done then is up to ``on_bad_image``.
    """

    image: Path | Embedded
    captions: tuple[str, ...]
    class_id: int | None = None
    box: tuple[float, float, float, float] | None = None
    split: Split = "train"
    lacks: str = field(default="", compare=False)
    lost: str = field(default="", compare=False)


class Source:
    """Base of all sources of captioned images; a subclass is a dataclass that writes ``records``.

    Attributes:
        root: folder of the source.
    """

    root: str
    #: how a model without text is trained where no image has a caption; not annotated, so that it is no field
    textless = ""

    @property
    def path(self) -> Path:
        """The source's folder with ``~`` expanded."""
        return Path(self.root).expanduser()

    def records(self) -> list[Record]:
        """List every image of every split in a stable order.

        Raises:
            T2IError: for missing files and bad rows; names the file, the line and the remedy.
        """
        raise NotImplementedError

    def fetch(self) -> None:
        """Download missing files, if the source can; called first, and quick if nothing is missing."""

    def fingerprint(self, without: Path | None = None) -> str:
        """A digest that changes whenever a file of the source does; ``without`` is a folder to leave out.

        Raises:
            T2IError: if the folder of the source is missing.
        """
        if not self.path.is_dir():
            records = self.records()  # draws built-in data, or raises
            if not self.path.is_dir():
                raise T2IError(f"found no folder {self.path} ({len(records)} records): correct --data.source.root")
        return tree_fingerprint(self.path, without)

    def options(self) -> dict[str, Any]:
        """The options as plain values, which are part of a store's key."""
        asked = {name: value for name, value in vars(self).items() if name != "download" and name[0] != "_"}
        return {**asked, "root": str(self.path.resolve()), "kind": type(self).__name__}
