"""Captioned images: sources, the packed store and the data module, imported on first use so that ``list`` is quick."""

from __future__ import annotations

from typing import TYPE_CHECKING

from t2i_zoo.data.records import Embedded, Record, Source
from t2i_zoo.lazy import lazily

if TYPE_CHECKING:
    from t2i_zoo.data.birds import CUB200
    from t2i_zoo.data.coco import COCOCaptions
    from t2i_zoo.data.flowers import Flowers102
    from t2i_zoo.data.folder import CaptionFolder
    from t2i_zoo.data.hf import HFDataset
    from t2i_zoo.data.module import CaptionDataModule
    from t2i_zoo.data.stream import StreamDataModule
    from t2i_zoo.data.synthetic import SyntheticFlowers
    from t2i_zoo.data.webdataset import WebDataset

#: every source: its module and one line about it
SOURCES = {
    "Flowers102": ("flowers", "Oxford-102 flowers with the ten captions of Reed et al."),
    "CaptionFolder": (
        "folder",
        "your own images: metadata.jsonl, CSV or TSV, or a .txt beside each image",
    ),
    "SyntheticFlowers": (
        "synthetic",
        "flowers drawn by code, with captions whose truth is known; needs no download",
    ),
    "CUB200": ("birds", "CUB-200-2011 birds with the ten captions of Reed et al."),
    "COCOCaptions": ("coco", "COCO of 2014 or 2017 with its five captions"),
    "HFDataset": ("hf", "a Hugging Face data set with images and texts, from a folder or the hub"),
    "WebDataset": ("webdataset", "shards of a set too large to pack: streamed, from a folder or over HTTP"),
}
_PLACES = {name: module for name, (module, _) in SOURCES.items()}
_PLACES |= {"CaptionDataModule": "module", "StreamDataModule": "stream"}

__all__ = [
    "COCOCaptions",
    "CUB200",
    "CaptionDataModule",
    "CaptionFolder",
    "Embedded",
    "Flowers102",
    "HFDataset",
    "Record",
    "SOURCES",
    "Source",
    "StreamDataModule",
    "SyntheticFlowers",
    "WebDataset",
]

__getattr__ = lazily(__name__, _PLACES)
