"""A store that is larger than the memory of many machines."""

import json
from pathlib import Path

import numpy as np
import torch

from t2i_zoo.data.store import Store
from t2i_zoo.data.transforms import draw_crops


def test_a_store_of_the_size_of_coco_is_mapped_and_never_read_whole(tmp_path: Path) -> None:
    """83,000 pictures of 256 x 341 pixels, five captions each, in a sparse file of 20 GiB."""
    count, shape = 83_000, (256, 341)
    size = 3 * shape[0] * shape[1]
    with (tmp_path / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count * size,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * size)
    np.savez(
        tmp_path / "table.npz",
        starts=np.arange(count) * size,
        shapes=np.tile(shape, (count, 1)),
        labels=np.full(count, -1),
        splits=np.zeros(count, np.int8),
        offsets=np.arange(count + 1) * 5,
        boxes=np.full((count, 4), np.nan, np.float32),
    )
    (tmp_path / "captions.json").write_text(json.dumps([f"caption {i}" for i in range(5 * count)]))
    (tmp_path / "manifest.json").write_text("{}")
    store = Store(tmp_path)
    assert store.images.mode == "r"  # a system that promises no more memory than it has refuses a private mapping
    pixels = store.pixels()
    rows = torch.tensor([0, count - 1, 41_000])
    cut = pixels.gather(rows, draw_crops(pixels.shapes[rows] - 224, True, torch.Generator().manual_seed(0)), 224)
    assert cut.shape == (3, 3, 224, 224)
    assert not cut.any()
    assert store.captions_of(count - 1)[-1] == f"caption {5 * count - 1}"
    assert (tmp_path / "images.npy").stat().st_blocks * 512 < 2**20
