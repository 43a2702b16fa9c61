"""Any data set of images and captions of the Hugging Face library ``datasets``, which is imported lazily."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from t2i_zoo.data.reading import is_file, tree_fingerprint
from t2i_zoo.data.records import Embedded, Record, Source, Split
from t2i_zoo.data.rows import Entry, check_share, row_label, show, to_records
from t2i_zoo.errors import Noted, T2IError

_CAPTIONS = ("captions", "caption", "text", "texts", "sentences", "sentence", "description")
_CLASSES = ("label", "class", "labels")
_SPLITS: dict[str, Split] = {"train": "train", "val": "val", "dev": "val", "test": "test"}  # by how a name begins


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
        image: column of the images; by default the first one that holds images.
        caption: column of the captions, texts or lists of texts; by default the first of captions, caption, text,
            texts, sentences, sentence and description.
        label: column of the classes, integers or words; by default label, class or labels where there is one of
            integers or words.
        splits: split of ours for each split of the set, such as ``{train: train, dev: val}``; others are left out. By
            default train, val (or dev) and test by how their names begin; a single split is divided.
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
        begins = [split for begin, split in _SPLITS.items() if name.startswith(begin)]
        if not begins:
            raise T2IError(
                f"{self.root} has the splits {', '.join(parts)}, and {name!r} is none of train, val and test: say what "
                "they are with --data.source.splits, such as {train: train, " + name + ": test}"
            )
        return begins[0]

    def _entries(self, name: str, part: Any, split: str | None) -> Iterator[Entry]:
        if split == "":
            return
        import datasets

        image, caption, label = self._columns(part, datasets)
        images = part.select_columns([image]).cast_column(image, datasets.Image(decode=False))
        words = getattr(part.features[label], "names", None) if label else None
        rest = part.select_columns([caption, *([label] if label else [])])
        noted = Noted()
        for number, row in enumerate(rest):
            place = f"{self.root}, {name}[{number}]"
            with noted.one():
                captions, kind = self._texts(row[caption], caption, place), None
                if label is not None and not (words and row[label] == -1):  # means no class
                    kind = row_label({"class": row[label]}, place)
                yield Entry(Embedded(place, _reader(images, number, image, place)), place, captions, kind, split)
        noted.check()

    def _texts(self, given: Any, column: str, place: str) -> list[str]:
        """The captions in a cell, at least one."""
        found = given if isinstance(given, list) else [given]
        if not (captions := [text.strip() for text in found if isinstance(text, str) and text.strip()]):
            raise T2IError(
                f"{place}: {column} is {show(given)}, expected text: correct the row or change --data.source.caption"
            )
        return captions

    def _columns(self, part: Any, datasets: Any) -> tuple[str, str, str | None]:
        """The columns of images, captions and classes."""
        features = part.features
        for flag, name in (("image", self.image), ("caption", self.caption), ("label", self.label)):
            if name is not None and name not in features:
                raise T2IError(
                    f"{self.root} has no column {name!r}, found {', '.join(features)}: change --data.source.{flag}"
                )
        image = self.image or next((name for name in features if isinstance(features[name], datasets.Image)), None)
        caption = self.caption or next((name for name in _CAPTIONS if name in features), None)
        for flag, found, what in (("image", image, "images"), ("caption", caption, "captions")):
            if found is None:
                raise T2IError(
                    f"{self.root} has no column of {what} among {', '.join(features)}: name one with "
                    f"--data.source.{flag}"
                )
        label = self.label or next((n for n in _CLASSES if n != caption and _may_be_class(features.get(n))), None)
        assert image is not None
        assert caption is not None
        return image, caption, label


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
                continue
        kept.append(entry)
    return kept


def _reader(images: Any, number: int, column: str, place: str) -> Callable[[], bytes]:
    """A function that reads the encoded image of one row."""

    def read() -> bytes:
        found = images[number][column]
        if found is None or not (found.get("bytes") or found.get("path")):
            raise ValueError("the row has no image")
        content: bytes = found["bytes"] or Path(found["path"]).read_bytes()
        return content

    return read
