"""Crops against slicing, mirrors, pyramids and the range."""

import pytest
import torch

from t2i_zoo.data.transforms import Crops, centre_crops, draw_crops, gather, normalise


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(0, 256, (6, 19, 19, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_crops_are_slices(pixels):
    rows = torch.tensor([5, 0, 0, 3])
    crops = Crops(torch.tensor([0, 3, 1, 2]), torch.tensor([3, 0, 2, 2]), torch.zeros(4, dtype=torch.bool))
    out = gather(pixels, rows, crops, 16)
    assert out.shape == (4, 3, 16, 16)
    assert out.dtype == torch.uint8
    for i, (row, top, left) in enumerate(zip(rows, crops.top, crops.left, strict=True)):
        assert torch.equal(out[i], pixels[row, top : top + 16, left : left + 16].permute(2, 0, 1))


def test_mirror_and_range(pixels):
    cut = gather(pixels, torch.arange(2), centre_crops(2, 3), 16)
    cut[0, 0, 0, 0], cut[1, 0, 0, 0] = 0, 255
    (images,) = normalise(cut, torch.tensor([False, True]), [16])
    assert images.dtype == torch.float32
    assert images[0, 0, 0, 0] == -1.0
    assert images[1, 0, 0, -1] == 1.0  # mirrored
    assert torch.allclose(images[0], cut[0].float() / 127.5 - 1, atol=1e-6)
    assert torch.allclose(images[1], cut[1].flip(-1).float() / 127.5 - 1, atol=1e-6)
    assert images.abs().max() <= 1


def test_pyramid_is_the_area_average(pixels):
    cut = gather(pixels, torch.arange(3), centre_crops(3, 3), 16)
    small, middle, full = normalise(cut, torch.zeros(3, dtype=torch.bool), [4, 8, 16])
    assert [x.shape[-1] for x in (small, middle, full)] == [4, 8, 16]
    assert torch.allclose(middle, full.view(3, 3, 8, 2, 8, 2).mean((3, 5)), atol=1e-6)
    assert torch.allclose(small, full.view(3, 3, 4, 4, 4, 4).mean((3, 5)), atol=1e-6)


def test_without_a_margin_the_crop_is_the_picture(pixels):
    crops = draw_crops(6, 0, False, torch.Generator().manual_seed(0))
    assert torch.equal(gather(pixels, torch.arange(6), crops, 19), pixels.permute(0, 3, 1, 2))
