"""Crops against slicing, mirrors, pyramids and the range."""

import numpy as np
import pytest
import torch
from PIL import Image

from t2i_zoo.data import pixels as pixels_module
from t2i_zoo.data.pixels import Pixels, copy_windows, index_windows
from t2i_zoo.data.transforms import Crops, centre_crops, draw_crops, normalise

SHAPES = ((19, 19), (16, 30), (22, 17), (19, 19))


@pytest.fixture(scope="module")
def pixels():
    """Six squares."""
    data = torch.randint(0, 256, (6, 19, 19, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Pixels(data, torch.full((6, 2), 19))


@pytest.fixture(scope="module")
def ragged():
    """Four pictures of different shapes, and the same as one flat store."""
    rng = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (*shape, 3), generator=rng, dtype=torch.uint8) for shape in SHAPES]
    starts = torch.tensor([0, *(p.numel() for p in pictures[:-1])]).cumsum(0)
    return pictures, Pixels(torch.cat([p.flatten() for p in pictures]), torch.tensor(SHAPES), starts)


def test_crops_are_slices(pixels):
    rows = torch.tensor([5, 0, 0, 3])
    crops = Crops(torch.tensor([0, 3, 1, 2]), torch.tensor([3, 0, 2, 2]), torch.zeros(4, dtype=torch.bool))
    out = pixels.gather(rows, crops, 16)
    assert out.shape == (4, 3, 16, 16)
    assert out.dtype == torch.uint8
    for i, (row, top, left) in enumerate(zip(rows, crops.top, crops.left, strict=True)):
        assert torch.equal(out[i], pixels.data[row, top : top + 16, left : left + 16].permute(2, 0, 1))


@pytest.mark.parametrize("way", [copy_windows, index_windows])
def test_crops_of_pictures_of_different_shapes(ragged, monkeypatch, way):
    monkeypatch.setattr(pixels_module, "copy_windows", way)  # a GPU takes the other one
    pictures, flat = ragged
    rows = torch.tensor([2, 1, 0, 1, 3])
    room = flat.shapes[rows] - 16
    for crops in (centre_crops(room), *(draw_crops(room, True, torch.Generator().manual_seed(s)) for s in range(9))):
        out = flat.gather(rows, crops, 16)
        assert out.dtype == torch.uint8
        for i, (row, top, left) in enumerate(zip(rows, crops.top, crops.left, strict=True)):
            wanted = pictures[row][top : top + 16, left : left + 16].permute(2, 0, 1)
            assert wanted.shape == (3, 16, 16)
            assert torch.equal(out[i], wanted)


def test_every_offset_within_the_room_is_drawn():
    room = torch.tensor([[0, 3], [2, 0]]).repeat(500, 1)
    crops = draw_crops(room, True, torch.Generator().manual_seed(0))
    for odd, top, left in ((0, {0}, {0, 1, 2, 3}), (1, {0, 1, 2}, {0})):
        assert set(crops.top[odd::2].tolist()) == top
        assert set(crops.left[odd::2].tolist()) == left
    assert 400 < int(crops.flip.sum()) < 600


def test_mirror_and_range(pixels):
    cut = pixels.gather(torch.arange(2), centre_crops(torch.full((2, 2), 3)), 16)
    cut[0, 0, 0, 0], cut[1, 0, 0, 0] = 0, 255
    (images,) = normalise(cut, torch.tensor([False, True]), [16])
    assert images.dtype == torch.float32
    assert images[0, 0, 0, 0] == -1.0
    assert images[1, 0, 0, -1] == 1.0  # mirrored
    assert torch.allclose(images[0], cut[0].float() / 127.5 - 1, atol=1e-6)
    assert torch.allclose(images[1], cut[1].flip(-1).float() / 127.5 - 1, atol=1e-6)
    assert images.abs().max() <= 1


def test_the_pyramid_is_what_pil_makes_of_the_same_crop(pixels):
    cut = pixels.gather(torch.arange(3), centre_crops(torch.full((3, 2), 3)), 16)
    pyramid = normalise(cut, torch.zeros(3, dtype=torch.bool), [4, 8, 16])
    assert [x.shape[-1] for x in pyramid] == [4, 8, 16]
    for size, images in zip((4, 8), pyramid, strict=False):
        for picture, image in zip(cut, images, strict=True):
            whole = Image.fromarray(picture.permute(1, 2, 0).numpy())
            wanted = np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 127.5 - 1
            assert np.abs(image.permute(1, 2, 0).numpy() - wanted).max() <= 1 / 127.5  # PIL rounds, twice


def test_without_room_the_crop_is_the_picture(pixels):
    crops = draw_crops(torch.zeros(6, 2, dtype=torch.int64), False, torch.Generator().manual_seed(0))
    assert torch.equal(pixels.gather(torch.arange(6), crops, 19), pixels.data.permute(0, 3, 1, 2))
