"""Your own images: a folder with a metadata file, or with a text file beside every image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2i_zoo.data.reading import inside, is_file, lines_of, other_case, read_text, walk
from t2i_zoo.data.records import Record, Source, Split
from t2i_zoo.data.rows import (
    FILE_KEYS,
    Entry,
    Row,
    check_share,
    json_rows,
    merge,
    row_captions,
    row_label,
    row_split,
    show,
    table_rows,
    to_records,
    value,
)
from t2i_zoo.errors import Noted, T2IError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
METADATA_NAMES = tuple(f"{stem}.{kind}" for stem in ("metadata", "captions") for kind in ("jsonl", "csv", "tsv"))
#: folders at the top that are splits
_SPLITS: dict[str, Split] = {
    "train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"
}  # fmt: skip


@dataclass
class CaptionFolder(Source):
    """Images with captions in your own folder.

    With a metadata file (one JSON object a line, CSV or TSV with a header) a row holds ``file_name`` (or
    ``image``, ``file``; a path inside the folder), its captions under the first present of ``caption``,
    ``text``, ``captions`` (a string, or a list in JSON) and in the columns ``caption_1``, ``caption_2``, ...
    whose empty cells are skipped, and optionally ``class`` (or ``label``) and ``split`` (train, val or test).
    Several rows of one image are merged; two equal rows are a mistake. Images without a row are ignored.

    Without one, every image has a ``.txt`` of the same name beside it, a caption a line, in any depth of
    sub-folders. The sub-folder is the class where there are at least two of them; where the first level holds
    train, val (or valid, validation, dev) and test and nothing else, it is the split instead and the sub-folder
    below it the class.

    Classes are numbered from 0 in sorted order: as integers where all are integers, else as words.

    Args:
        root: the folder.
        captions: False lists the images alone, for models without text, and reads no captions.
        metadata: name of the metadata file in the folder; None looks for metadata.jsonl, .csv, .tsv, then for
            captions.jsonl, .csv, .tsv, and else reads the text files beside the images.
        val_fraction: share, 0 to below 1, of the images without a split that becomes test.
        seed: of this random choice.
    """

    root: str = ""
    captions: bool = True
    metadata: str | None = None
    val_fraction: float = 0.1
    seed: int = 0

    def records(self) -> list[Record]:
        """List the images in the order of the metadata file, or sorted by path.

        Raises:
            T2IError: names the wrong file and line.
        """
        if not self.root or not self.path.is_dir():
            found = f"there is no folder {self.path}" if self.root else "no folder of images is given"
            raise T2IError(f"{found}, expected one with images and captions: set --data.source.root to it")
        check_share(self.val_fraction)
        metadata = self._metadata() if self.captions else None
        entries = _from_metadata(self.path, metadata) if metadata else _from_files(self.path, self.captions)
        if not entries:
            raise T2IError(
                f"{metadata or self.path} names no image, expected at least one ({' '.join(SUFFIXES)}): add images "
                "or change --data.source.root"
            )
        return to_records(entries, self.val_fraction, self.seed)

    def _metadata(self) -> Path | None:
        if self.metadata is None:
            return next((self.path / name for name in METADATA_NAMES if (self.path / name).is_file()), None)
        path = inside(self.path, self.metadata)
        if path is None or not is_file(path) or path.suffix.lower() not in (".jsonl", ".csv", ".tsv"):
            raise T2IError(
                f"{self.metadata!r} is no .jsonl, .csv or .tsv file in {self.path}: change --data.source.metadata"
            )
        return path


def _from_metadata(root: Path, metadata: Path) -> list[Entry]:
    entries: dict[Path, Entry] = {}
    noted = Noted()
    rows = json_rows(metadata, noted) if metadata.suffix.lower() == ".jsonl" else table_rows(metadata)
    seen: dict[tuple[Path, tuple[str, ...]], int] = {}
    for line, row in rows:
        with noted.one():
            _add_row(root, row, f"{metadata}, line {line}", line, entries, seen)
    noted.check()
    return list(entries.values())


def _add_row(
    root: Path,
    row: Row,
    place: str,
    line: int,
    entries: dict[Path, Entry],
    seen: dict[tuple[Path, tuple[str, ...]], int],
) -> None:
    path = _image(root, value(row, FILE_KEYS, place), place)
    entry = entries.get(path)
    if entry is None:
        if not is_file(path):
            raise T2IError(f"{place}: there is no image {path}{other_case(path)}: add it or delete the row")
        entry = entries[path] = Entry(path, place)
    captions = row_captions(row, place)
    if (first := seen.setdefault((path, tuple(captions)), line)) != line:
        raise T2IError(f"{place}: the same image and captions as in line {first}: delete one of the two rows")
    entry.captions += captions
    entry.label = merge(entry.label, row_label(row, place), "class", place)
    entry.split = merge(entry.split, row_split(row, place), "split", place)


def _image(root: Path, name: object, place: str) -> Path:
    """The path in a row."""
    if not isinstance(name, str) or not name.strip():
        raise T2IError(f"{place}: the file name is {show(name)}, expected a path inside {root}: correct that row")
    path = inside(root, name.strip())
    if path is None:
        raise T2IError(f"{place}: {show(name)} leaves the folder {root}: move the image into it and correct the row")
    if path.suffix.lower() not in SUFFIXES:
        raise T2IError(
            f"{place}: {show(name)} is not an image, expected {' '.join(SUFFIXES)}: convert it or drop the row"
        )
    return path


def _from_files(root: Path, captioned: bool) -> list[Entry]:
    """Every image in the folder, with the captions of the text file beside it if ``captioned``."""
    files = [Path(entry.path) for entry in walk(root)]
    images = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not captioned:
        entries = [Entry(path, str(path)) for path in images]
        _classes_from_folders(root, entries)
        return entries
    texts = {path for path in files if path.suffix == ".txt"}
    stems, noted = {path.with_suffix("") for path in images}, Noted()
    for path in sorted(texts):
        with noted.one():
            if path.with_suffix("") not in stems:
                raise T2IError(f"caption file {path} has no image beside it: add the image or delete the file")
    entries = []
    for path in images:
        with noted.one():
            entries.append(Entry(path, str(path), _captions_beside(path, texts)))
    noted.check()
    _classes_from_folders(root, entries)
    return entries


def _captions_beside(path: Path, texts: set[Path]) -> list[str]:
    """The captions in the text file beside an image, which must be one of ``texts``."""
    text = path.with_suffix(".txt")
    if text not in texts:
        raise T2IError(
            f"{path} has no caption, expected {text.name} beside it{other_case(text)}: write that file or a "
            "metadata file, or pass --data.source.captions false to train a model without text"
        )
    if not (captions := lines_of(read_text(text))):
        raise T2IError(f"{text}, line 1: holds blank lines only, expected a caption a line: write one")
    return list(captions)


def _classes_from_folders(root: Path, entries: list[Entry]) -> None:
    parts = [Path(str(entry.image)).relative_to(root).parts[:-1] for entry in entries]
    first = {part[0] if part else "" for part in parts}
    if first and first <= set(_SPLITS):
        for entry, part in zip(entries, parts, strict=True):
            entry.split = _SPLITS[part[0]]
        parts = [part[1:] for part in parts]
    if len({part for part in parts if part}) > 1:  # a single folder such as "images" is not a class
        for entry, part in zip(entries, parts, strict=True):
            entry.label = "/".join(part) or None
