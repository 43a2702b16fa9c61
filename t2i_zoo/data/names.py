"""Image files by the names that metadata and caption files give them, however these are written."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath

from t2i_zoo.data.columns import IMAGE_FOLDERS, IMAGE_SUFFIXES, TEXT_FOLDERS
from t2i_zoo.data.notes import remark
from t2i_zoo.data.reading import inside, is_file, walk
from t2i_zoo.errors import T2IError

Key = tuple[str, ...]

_HOW = {
    "keys": "names matched though letter case, Unicode form, slashes or a folder of images differ",
    "stems": "images found by a name without its extension",
    "names": "images found in another folder than their row says",
    "bare": "images found in another folder by a name without its extension",
}


def fold(parts: Iterable[str]) -> Key:
    """Parts of a path in one letter case and Unicode form, without folders that only separate images from texts."""
    *folders, last = (unicodedata.normalize("NFC", part).casefold() for part in parts)
    return (*(part for part in folders if part not in IMAGE_FOLDERS | TEXT_FOLDERS), last)


def stem(path: PurePath) -> PurePath:
    """A path without the extension of an image; other dots stay."""
    return path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path


class Names:
    """All files below a folder, and its images by name.

    Attributes:
        root: the folder.
        files: every file, sorted.
        images: those with the suffix of an image.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        files = [Path(entry.path) for entry in walk(root)]
        stores = {path.parent for path in files if path.name == "images.npy"}  # of a cache inside the folder
        self.files = sorted(path for path in files if path.parent not in stores)
        self.images = [path for path in self.files if path.suffix.lower() in IMAGE_SUFFIXES]

    def relative(self, path: Path) -> tuple[str, ...]:
        """The parts of a path below the root."""
        return path.relative_to(self.root).parts

    @cached_property
    def _tables(self) -> dict[str, dict[Key, list[Path]]]:
        tables: dict[str, dict[Key, list[Path]]] = {name: defaultdict(list) for name in _HOW}
        for path in self.images:
            parts = self.relative(path)
            without = stem(PurePath(*parts)).parts
            for name, key in zip(_HOW, (parts, without, parts[-1:], without[-1:]), strict=True):
                tables[name][fold(key)].append(path)
        return tables

    def find(self, folder: Path, name: str, place: str) -> Path | None:
        """The image that a row means, or None.

        Tried in turn: the very path; the same in another letter case or Unicode form, with backslashes, or below a
        folder such as ``images``; without its extension; a file of that name in any folder. All but the first is
        remarked.

        Args:
            folder: that of the metadata file.
            name: as the row has it.
            place: of the row.

        Raises:
            T2IError: if two images fit equally.
        """
        path = inside(folder, name)
        if path is not None and is_file(path):
            return path
        parts = PurePosixPath(re.sub(r"#\d+$", "", name.replace("\\", "/"))).parts  # Flickr8k numbers captions by #0
        if not parts:
            return None
        whole = (*self.relative(folder), *(part for part in parts if part != "."))
        for (how, table), key in zip(self._tables.items(), (whole, whole, parts[-1:], parts[-1:]), strict=True):
            found = table.get(fold(key), [])
            if len(found) > 1:
                raise T2IError(
                    f"{place}: {name!r} may be {found[0]} or {found[1]}, expected one: write the path and extension"
                )
            if found:
                if found[0].name != name:  # a table of file names and one folder of images is nothing odd
                    remark(_HOW[how], f"{found[0]} for {name!r} ({place})")
                elif how == "names":
                    remark(_HOW[how], f"{found[0]} ({place})")
                return found[0]
        return None
