"""Captioned pictures: sources, the packed store and the data module; imported on first use, for ``list`` is quick."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from t2i_zoo.data.records import Record, Source

if TYPE_CHECKING:
    from t2i_zoo.data.flowers import Flowers102
    from t2i_zoo.data.folder import CaptionFolder
    from t2i_zoo.data.module import CaptionDataModule
    from t2i_zoo.data.synthetic import SyntheticFlowers

#: every source: its module and one line about it
SOURCES = {
    "Flowers102": ("flowers", "Oxford-102 flowers with the ten captions of Reed et al."),
    "CaptionFolder": (
        "folder",
        "your own pictures: metadata.jsonl, CSV or TSV, or a .txt beside each picture",
    ),
    "SyntheticFlowers": (
        "synthetic",
        "flowers drawn by code, with captions whose truth is known; needs no download",
    ),
}
_PLACES = {**{name: module for name, (module, _) in SOURCES.items()}, "CaptionDataModule": "module"}

__all__ = [
    "CaptionDataModule",
    "CaptionFolder",
    "Flowers102",
    "Record",
    "SOURCES",
    "Source",
    "SyntheticFlowers",
]


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"t2i_zoo.data.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
