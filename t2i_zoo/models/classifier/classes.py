"""Which classes of the data a classifier learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from t2i_zoo.batch import CaptionedData
from t2i_zoo.errors import T2IError


def find_classes(data: CaptionedData | None, which: str) -> list[int]:
    """Row of each class of the data, in order, and -1 of classes that are not learned.

    Args:
        data: a data module that is set up.
        which: ``all``, or ``test``: those that the class-disjoint split of its source holds out.

    Raises:
        T2IError: for data without classes, or without such a split.
    """
    count = data.num_classes if data is not None else 0
    if data is None or count < 2:
        raise T2IError(
            f"found {count or 'no'} classes in the data, expected at least 2: choose data with class labels by "
            "--data.source"
        )
    wanted = range(count) if which == "all" else _held_out(data.source)
    rows = {label: row for row, label in enumerate(wanted)}
    return [rows.get(label, -1) for label in range(count)]


def _held_out(source: Any) -> list[int]:
    """The classes of the test part of the class-disjoint split, whatever the split in use."""
    try:
        records = dataclasses.replace(source, split="class_disjoint").records()
    except TypeError as error:  # no such field
        raise T2IError(
            f"found --model.classes test with a {type(source).__name__}, which has no class-disjoint split: set it to "
            "all"
        ) from error
    found = sorted({record.class_id for record in records if record.split == "test" and record.class_id is not None})
    if len(found) < 2:
        raise T2IError(
            f"found {len(found)} test classes in {source.path}, expected at least 2: set --model.classes to all"
        )
    return found


def check_held_out(data: CaptionedData, table: Sequence[int]) -> None:
    """Raise if no held-out image has a class that is learned: the accuracy would mean nothing.

    Streamed shards, whose labels are not known beforehand, are not checked.
    """
    if (trained := data.classes_of("train")) is None:
        return
    learned = {label for label in trained if table[label] >= 0}
    if not learned.intersection(data.classes_of("val") or data.classes_of("test") or ()):
        raise T2IError(
            f"found no held-out image of the {len(learned)} classes of the training images, expected some to "
            "measure the accuracy with: choose another split, such as --data.source.split random"
        )
