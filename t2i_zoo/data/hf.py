"""Any data set of images and captions of the Hugging Face library ``datasets``, which is imported lazily."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from t2i_zoo.data.columns import CAPTION_COLUMNS, CLASS_COLUMNS, Columns, find_columns, missing, split_in
from t2i_zoo.data.notes import remark, understood
from t2i_zoo.data.reading import is_file, tree_fingerprint
from t2i_zoo.data.records import Embedded, Record, Source, Split
from t2i_zoo.data.rows import Entry, check_share, row_label, texts, to_records
from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_pointer


@dataclass
class HFDataset(Source):
    """A data set of the library ``datasets`` with images and captions, from a folder or from the hub.

    Images are read from the library's files, without a copy ahead of packing. If rows hold one caption each, equal
    images of a split and class become one, with the captions of all their rows.

    Args:
        root: a folder that ``save_to_disk`` has written, a folder of parquet files or of images with a
            ``metadata.jsonl``, or the name of a data set on the hub, such as ``owner/name``.
        config: which of the set's configurations.
        revision: which commit, branch or tag of the set on the hub; a commit never changes.
        image: column of the images, or of their paths; by default the first one that holds images, else the first usual
            name, in any letter case.
        caption: column of the captions, texts or lists of texts; by default the first usual name, as in
            ``CaptionFolder``.
        label: column of the classes, integers or words; by default class, label or labels where there is one of
            integers or words.
        splits: split of ours for each split of the set, such as ``{train: train, dev: val}``; others are left out. By
            default those with train, val (or valid, dev) and test in their names; a single split is divided.
        val_fraction: share, 0 to below 1, of the images without a split that becomes test.
        seed: of this random choice.
    """

    root: str = ""
    config: str | None = None
    revision: str | None = None
    image: str | None = None
    caption: str | None = None
    label: str | None = None
    splits: dict[str, Split] | None = None
    val_fraction: float = 0.1
    seed: int = 0

    def records(self) -> list[Record]:
        """List all images, split by split in the order of the set.

        Raises:
            T2IError: if the set cannot be loaded or a row has no image, caption or class.
        """
        check_share(self.val_fraction)
        parts = self._load()
        entries = _merged(
            entry for name, part in parts.items() for entry in self._entries(name, part, self._split(name, parts))
        )
        if not entries:
            raise T2IError(f"{self.root} has no rows: change --data.source.root or --data.source.splits")
        return to_records(entries, self.val_fraction, self.seed)

    def fingerprint(self, without: Path | None = None) -> str:
        """Digest of a folder's files, or the library's own fingerprint of a set on the hub."""
        if self.path.is_dir():
            return tree_fingerprint(self.path, without)
        return "-".join(str(part._fingerprint) for part in self._load().values())

    def options(self) -> dict[str, Any]:
        """As of every source, but a name on the hub is not made a path."""
        found = super().options()
        return found if self.path.is_dir() else {**found, "root": self.root}

    def _load(self) -> dict[str, Any]:
        """The splits by name."""
        if not self.root:
            raise T2IError("no data set is given: set --data.source.root to a folder or to a name on the hub")
        try:
            import datasets  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise T2IError("HFDataset needs the library datasets: pip install 't2i-zoo[hf]'") from error
        folder = self.path
        saved = any(is_file(folder / name) for name in ("dataset_dict.json", "dataset_info.json", "state.json"))
        try:
            found = (
                datasets.load_from_disk(str(folder))
                if saved
                else datasets.load_dataset(
                    str(folder) if folder.is_dir() else self.root, self.config, revision=self.revision
                )
            )
        except Exception as error:  # the library, pyarrow and the network raise dozens of kinds
            reason = " ".join(str(error).split())[:200]
            if folder.is_dir():
                for file in sorted(folder.rglob("*.*")):
                    refuse_pointer(file)
                raise T2IError(
                    f"{folder} cannot be loaded as a data set ({type(error).__name__}: {reason}): save it again with "
                    "save_to_disk, or change --data.source.root"
                ) from error
            raise T2IError(
                f"{self.root!r} is not a folder, and the hub did not return a data set of that name "
                f"({type(error).__name__}: {reason}): check the name and the network, or give a "
                "folder that save_to_disk has written"
            ) from error
        return dict(found) if isinstance(found, dict) else {str(found.split or "all"): found}

    def _split(self, name: str, parts: dict[str, Any]) -> str | None:
        """Our split for a split of the set; None if it is to be divided, "" if it is left out."""
        if self.splits is not None:
            for given, ours in self.splits.items():
                if given not in parts or ours not in get_args(Split):
                    raise T2IError(
                        f"found {given}: {ours} in --data.source.splits, expected one of {', '.join(parts)} as train, "
                        "val or test: correct it"
                    )
            return self.splits.get(name, "")
        if len(parts) == 1:
            return None
        understood("split", f"by the splits of the set: {', '.join(parts)}")
        if (found := split_in(name)) is None:
            raise T2IError(
                f"{self.root} has the splits {', '.join(parts)}, and {name!r} is none of train, val and test: say what "
                "they are with --data.source.splits, such as {train: train, " + name + ": test}"
            )
        return found

    def _entries(self, name: str, part: Any, split: str | None) -> Iterator[Entry]:
        if split == "":
            return
        import datasets

        columns = self._columns(part, datasets)
        image, label = columns.image, columns.label
        assert image is not None
        images = part.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        words = getattr(part.features[label], "names", None) if label else None
        rest = part.select_columns([*columns.captions, *([label] if label else [])])
        understood("layout", f"images in the column {image}, captions in {', '.join(columns.captions)}")
        for number, row in enumerate(rest):
            place = f"{self.root}, {name}[{number}]"
            captions, lacks = texts([row[column] for column in columns.captions], place)
            kind = None
            if label is not None and not (words and row[label] == -1):  # means no class
                kind = row_label(row[label], place)
            read = _reader(images, number, image, self.path)
            yield Entry(Embedded(place, read), place, captions, kind, split, lacks)

    def _columns(self, part: Any, datasets: Any) -> Columns:
        """The columns of images, captions and classes."""
        features = part.features
        asked = {"image": self.image, "caption": self.caption, "label": self.label}
        holding = next((name for name in features if isinstance(features[name], datasets.Image)), None)
        columns = find_columns(tuple(features), self.image or holding, self.caption, self.label)
        for flag, found, usual in (
            ("image", columns.image, ("image",)),
            ("caption", columns.captions, CAPTION_COLUMNS),
            ("label", columns.label or not self.label, CLASS_COLUMNS),
        ):
            if not found:
                raise T2IError(f"{self.root} has {missing(f'{flag}s', flag, tuple(features), asked[flag], usual)}")
        fits = self.label or (columns.label not in columns.captions and _may_be_class(features.get(columns.label)))
        return columns if fits else replace(columns, label=None)


def _may_be_class(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint", "string"))


def _merged(entries: Iterable[Entry]) -> list[Entry]:
    """Join the rows of each image, so that its captions are not in two splits.

    Only rows with one caption are compared: a row with a list holds all captions of its image.
    """
    kept: list[Entry] = []
    first: dict[tuple[str | None, str | None, bytes], Entry] = {}
    for entry in entries:
        if len(entry.captions) == 1 and isinstance(entry.image, Embedded):
            try:
                digest = hashlib.blake2b(entry.image.read(), digest_size=16).digest()
            except (OSError, ValueError):  # packing reports it, or leaves it out
                kept.append(entry)
                continue
            if (same := first.setdefault((entry.split, entry.label, digest), entry)) is not entry:
                same.captions += entry.captions
                remark("rows of one image were merged, since their images are equal", entry.place)
                continue
        kept.append(entry)
    return kept


def _reader(images: Any, number: int, column: str, root: Path) -> Callable[[], bytes]:
    """A function that reads the encoded image of one row."""

    def read() -> bytes:
        found = images[number][column]
        if found is None or not (found.get("bytes") or found.get("path")):
            raise ValueError("the row has no image")
        content: bytes = found["bytes"] or (root / found["path"]).read_bytes()  # an absolute path stays as it is
        return content

    return read
