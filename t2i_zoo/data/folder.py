"""Your own images: a folder with metadata in any usual form, or with a text file for every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from t2i_zoo.data.columns import (
    CLASS_COLUMNS,
    FOREIGN_SUFFIXES,
    IMAGE_COLUMNS,
    IMAGE_FOLDERS,
    IMAGE_SUFFIXES,
    find_columns,
    missing,
    split_in,
    split_named,
)
from t2i_zoo.data.names import Names
from t2i_zoo.data.notes import remark, some, understood
from t2i_zoo.data.reading import inside, is_file
from t2i_zoo.data.records import Record, Source
from t2i_zoo.data.rows import (
    Entry,
    captions_in,
    check_share,
    merge,
    row_captions,
    row_label,
    row_split,
    show,
    to_records,
)
from t2i_zoo.data.tables import SUFFIXES, Find, is_table, table_rows
from t2i_zoo.data.twins import from_text_files
from t2i_zoo.errors import T2IError

METADATA_NAMES = tuple(
    f"{name}{kind}" for name in ("metadata", "captions") for kind in (".jsonl", ".csv", ".tsv", ".json", ".parquet")
)
#: read as metadata only if they have columns of images and captions: Flickr8k's, Flickr30k's, and older releases'
_MAYBE = ("captions.txt", "results.csv", "flickr8k.token.txt", "results_20130124.token")


@dataclass
class CaptionFolder(Source):
    """Images with captions in your own folder.

    With a metadata file (JSON lines, JSON, CSV with any separator, or parquet) a row holds ``file_name`` (or
    ``image``, ``path``, ...), its captions in ``caption`` (or ``text``, ``prompt``, ``sentences``, ...: text or a list)
    and in the columns ``caption_1``, ``caption_2``, ..., and optionally ``class`` (or ``label``) and ``split``. Several
    rows of one image are merged. The file is in the folder, or one is in each sub-folder, as the library ``datasets``
    has it.

    Without one, every image has a ``.txt`` of the same name, a caption a line: beside it, or below ``captions/`` as the
    image below ``images/``. The sub-folder is the class where there are at least two of them.

    A column ``split`` decides on the split, else folders named train, val (or valid, validation, dev) and test at the
    top; the classes are then below these. Classes are numbered from 0 in sorted order: as integers where all are
    integers, else as words.

    Args:
        root: the folder.
        captions: False lists the images alone, for models without text, and reads no captions.
        metadata: metadata file in the folder; None looks for metadata and captions as .jsonl, .csv, .tsv, .json and
            .parquet, then for text files, then for any table with columns of images and captions.
        image: column of the file names; None takes the first usual name, in any letter case.
        caption: column of the captions; None takes the first usual name, in any letter case.
        label: column of the classes; None takes ``class``, ``label`` or ``labels``.
        val_fraction: share, 0 to below 1, of the images without a split that becomes test.
        seed: of this random choice.
    """

    textless = ", or pass --data.source.captions false to train a model without text"

    root: str = ""
    captions: bool = True
    metadata: str | None = None
    image: str | None = None
    caption: str | None = None
    label: str | None = None
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
        names, find = Names(self.path), partial(find_columns, image=self.image, caption=self.caption, label=self.label)
        entries, tables = self._entries(names, find)
        used = {entry.image for entry in entries}  # a row may name a file of any format that Pillow reads
        foreign = [path for path in names.files if path.suffix.lower() in FOREIGN_SUFFIXES and path not in used]
        if not entries:
            remedy = (
                f"convert {foreign[0]} and others like it" if foreign else "add images or change --data.source.root"
            )
            raise T2IError(
                f"{' and '.join(map(str, tables)) or self.path} names no image, expected at least one "
                f"({' '.join(IMAGE_SUFFIXES)}): {remedy}"
            )
        for path in foreign:
            remark(f"pictures in the format {path.suffix.lower()} are not read: convert them to .jpg or .png", path)
        _from_folders(names, entries, classes=not tables)
        return to_records(entries, self.val_fraction, self.seed)

    def _entries(self, names: Names, find: Find) -> tuple[list[Entry], list[Path]]:
        """The images, and the metadata files that list them."""
        if not self.captions:
            understood("layout", "images alone (--data.source.captions false)")
            return [Entry(path, str(path)) for path in names.images], []
        tables = self._metadata(names, find)
        if not tables:
            entries = from_text_files(names)
            if any(entry.captions for entry in entries):
                for option in (name for name, column in find.keywords.items() if column is not None):
                    remark(f"--data.source.{option} names a column and text files have none", find.keywords[option])
                return entries, []
            tables = _any_tables(names, find)
            if not tables:
                return entries, []
        return _from_tables(names, tables, find), tables

    def _metadata(self, names: Names, find: Find) -> list[Path]:
        """The metadata file, or that of each sub-folder; none if captions are in text files."""
        if self.metadata is not None:
            path = inside(self.path, self.metadata)
            if path is None or not is_file(path) or path.suffix.lower() in IMAGE_SUFFIXES:
                kinds = ", ".join(SUFFIXES)
                raise T2IError(f"{self.metadata!r} is no {kinds} file in {self.path}: change --data.source.metadata")
            return [path]
        by_folder: dict[Path, dict[str, Path]] = {}
        for path in names.files:
            by_folder.setdefault(path.parent, {}).setdefault(path.name.lower(), path)
        found = []
        for folder, files in sorted(by_folder.items()):
            own = [files[n] for n in METADATA_NAMES if n in files and (folder == self.path or n.startswith("metadata"))]
            own += [files[name] for name in _MAYBE if name in files and is_table(files[name], find)]
            if len(own) > 1:
                remark(f"{own[0].name} is read and other metadata beside it is not", own[1])
            found += own[:1]
            if folder == self.path and found:
                break
        if rest := [str(path) for path in names.files if found and path.name.lower() in METADATA_NAMES]:
            others = [place for place in rest if Path(place).parent != self.path]
            if found[0].parent == self.path and others:
                remark(f"metadata in sub-folders is not read beside {found[0].name}", others[0])
        return found


def _any_tables(names: Names, find: Find) -> list[Path]:
    """Tables of any name at the top: a single one, or one for each split."""
    files = [path for path in names.files if path.parent == names.root and path.suffix.lower() in (*SUFFIXES, ".txt")]
    found = [path for path in files if is_table(path, find)]
    if len(found) > 1 and not all(split_in(path.name) for path in found):
        raise T2IError(
            f"{names.root} has several tables of captions ({some([path.name for path in found])}), expected one, or "
            "names with train, val and test: name one with --data.source.metadata"
        )
    return found


def _from_tables(names: Names, tables: Sequence[Path], find: Find) -> list[Entry]:
    entries: dict[Path | str, Entry] = {}
    seen = set[tuple[object, tuple[str, ...]]]()
    used, named = set[str](), dict[str, None]()
    for table in tables:
        split = split_in(table.name) if len(tables) > 1 and table.parent == names.root else None
        for line, row in table_rows(table, find):
            place, columns = f"{table}, line {line}", find(tuple(row))
            if columns.image is None:
                raise T2IError(f"{place}: {missing('file names', 'image', row, find.keywords['image'], IMAGE_COLUMNS)}")
            path, lost = _image(names, table.parent, row[columns.image], place)
            captions, lacks = row_captions(row, columns, place, find.keywords["caption"])
            entry = entries.setdefault(path or place, Entry(path or Path(place), place, lost=lost))
            if captions and (entry.image, tuple(captions)) in seen:
                remark("rows that repeat an image with its captions count once", place)
                captions = []
            seen.add((entry.image, tuple(captions)))
            entry.captions, entry.lacks = entry.captions + captions, lacks
            entry.label = merge(entry.label, row_label(columns.label and row[columns.label], place), "class", place)
            stated = row_split(columns.split and row[columns.split], place) or split
            entry.split = merge(entry.split, stated, "split", place)
            used.update(columns.captions)
            named.update(dict.fromkeys(row))  # of JSON lines each may have others
    asked = find.keywords["label"]
    if entries and asked is not None and find(tuple(named)).label is None:
        raise T2IError(f"{tables[0]}: {missing('classes', 'label', named, asked, CLASS_COLUMNS)}")
    for entry in entries.values():
        if not entry.captions and not entry.lost and isinstance(entry.image, Path):  # it may have a text file as well
            found, _ = captions_in(entry.image.with_suffix(".txt"))
            entry.captions += found
    for path in names.images:
        if path not in entries:
            remark("images without a row are not used", path)
    where = str(tables[0].relative_to(names.root)) if len(tables) == 1 else f"{tables[0].name} in {len(tables)} folders"
    if len(tables) > 1 and tables[0].parent == names.root:
        where = ", ".join(path.name for path in tables)
    understood("layout", f"{where}, captions in {', '.join(sorted(used)) or 'no column'}")
    if any(entry.split for entry in entries.values()):
        understood("split", "by the names of the tables" if split else "by the column split")
    return list(entries.values())


def _image(names: Names, folder: Path, name: object, place: str) -> tuple[Path | None, str]:
    """The image of a row, and why there is none."""
    if name is None or (isinstance(name, str) and not name.strip()):
        return None, f"{place}: the row names no image"
    if not isinstance(name, str):
        raise T2IError(
            f"{place}: the file name is {show(name)}, expected a path inside {folder}: correct that row, or read a "
            "table that holds images with --data.source HFDataset"
        )
    if found := names.find(folder, name.strip(), place):
        return found, ""
    path = inside(folder, name.strip()) or inside(names.root, name.strip())
    if path is None:
        raise T2IError(f"{place}: {show(name)} leaves the folder {folder}: move the image into it and correct the row")
    return path, f"{place}: there is no image {path}"


def _from_folders(names: Names, entries: Sequence[Entry], classes: bool) -> None:
    """Splits from the folders at the top where nothing else states them; classes from those below if asked for."""
    parts = {}
    for entry in entries:
        if isinstance(entry.image, Path) and entry.image.is_relative_to(names.root):
            folders = names.relative(entry.image)[:-1]
            parts[id(entry)] = [folder for folder in folders if folder.casefold() not in IMAGE_FOLDERS]
    first = {own[0] if own else "" for own in parts.values()}
    while len(first) == 1 and first != {""} and not split_named(next(iter(first))):  # one folder around all others
        parts = {key: own[1:] for key, own in parts.items()}
        first = {own[0] if own else "" for own in parts.values()}
    splits = {name: split for name in first if (split := split_named(name))}
    if first and (len(splits) == len(first) or len(set(splits.values())) > 1):
        stated = any(entry.split for entry in entries)
        for entry in entries:
            own = parts.get(id(entry), [])
            if own and own[0] in splits:
                entry.split = entry.split or splits[own.pop(0)]
        understood(
            "split", ("by the column split, else " if stated else "") + f"by the folders {', '.join(sorted(splits))}"
        )
    if classes and len({tuple(own) for own in parts.values() if own}) > 1:
        for entry in entries:
            entry.label = "/".join(parts[id(entry)]) or None
        understood("class", "by the sub-folders")
