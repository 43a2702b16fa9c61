"""Photographs as the protocols see them."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.data.store import open_store
from t2i_zoo.metrics.photographs import Photographs


def test_photographs_packed_at_the_measured_size_are_read_without_a_warning(cache_folder: Any) -> None:
    module = CaptionDataModule(SyntheticFlowers(images=24, size=16), image_size=16, load_size=16)
    photographs = Photographs(open_store(module.spec, module.cache / "stores"), 16)
    torch.set_warn_always(True)  # by default once for each process, which another test may have used up
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert photographs.images(torch.arange(3)).shape == (3, 3, 16, 16)
    finally:
        torch.set_warn_always(False)
