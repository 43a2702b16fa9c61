"""What is done with images that are not there and with captions that are missing: raise, or skip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from t2i_zoo.data.notes import by_number, some
from t2i_zoo.data.records import Record, Source
from t2i_zoo.errors import Noted, T2IError

OnBad = Literal["raise", "skip"]

_MOST_CLASSES = 1_000_000
SPLITS = ("train", "val", "test")


def usable(
    records: Sequence[Record], source: Source, on_bad_image: OnBad, on_bad_caption: OnBad
) -> tuple[list[Record], list[str], list[str]]:
    """The records that can be packed, ahead of decoding.

    Args:
        records: of the source, at least one.
        source: where they come from, for errors.
        on_bad_image, on_bad_caption: stop at an image that is not there or has no caption, or leave it out. No caption
            for any image is a source without text, unless the source says what is wrong.

    Returns:
        The records to keep, a sentence for each image that is not there, and one for each without a caption.

    Raises:
        T2IError: names the first five places and the number of the others.
    """
    captioned = any(record.captions for record in records)
    lost = [record.lost for record in records if record.lost]
    unsaid = [record for record in records if not any(caption.strip() for caption in record.captions)]
    lacks = [r.lacks or f"{r.image}: no caption" for r in unsaid if (captioned or r.lacks) and not r.lost]
    what = f"of the {len(records):,} images of {source.path}"
    noted = Noted()
    if lost and (on_bad_image == "raise" or len(lost) == len(records)):
        are = by_number(len(lost), "is", "are")
        skip = "" if len(lost) == len(records) else ", or pass --data.on_bad_image skip to leave them out"
        noted.sentences.append(
            f"{len(lost):,} {what} {are} missing ({some(lost)}): correct the names or add the files{skip}"
        )
    if lacks and (on_bad_caption == "raise" or not captioned):
        skip = ", or pass --data.on_bad_caption skip to leave these images out" if captioned else ""
        none = "" if captioned else source.textless
        have = by_number(len(lacks), "has", "have")
        noted.sentences.append(f"{len(lacks):,} {what} {have} no caption ({some(lacks)}): write them{skip}{none}")
    noted.check()
    out = {id(record) for record in unsaid} if lacks else set[int]()
    kept = [record for record in records if not record.lost and id(record) not in out]
    _check(kept)
    return kept, lost, lacks


def _check(records: Sequence[Record]) -> None:
    """Raise for records that contradict each other."""
    without = [str(record.image) for record in records if record.class_id is None]
    if without and len(without) < len(records):
        raise T2IError(
            f"{len(without):,} of {len(records):,} images have no class and the others have one ({some(without)}): "
            "give every image a class, or none"
        )
    for record in records:
        if record.class_id is not None and not 0 <= record.class_id < _MOST_CLASSES:
            raise T2IError(
                f"{record.image} has the label {record.class_id}, expected 0 to {_MOST_CLASSES - 1}: number the "
                "classes from 0"
            )
        if record.split not in SPLITS:
            raise T2IError(f"{record.image} is in the split {record.split!r}, expected one of {', '.join(SPLITS)}")
