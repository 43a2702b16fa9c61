"""Crops against slicing, mirrors, pyramids and the range."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from t2i_zoo.data import pixels as pixels_module
from t2i_zoo.data.drawing import Flower, draw_flower
from t2i_zoo.data.pixels import StoreImages, copy_windows, index_windows
from t2i_zoo.data.transforms import Crops, centre_crops, draw_crops, normalise

SHAPES = ((19, 19), (16, 30), (22, 17), (19, 19))


@pytest.fixture(scope="module")
def pixels():
    """Six squares."""
    data = torch.randint(0, 256, (6, 19, 19, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return StoreImages(data, torch.full((6, 2), 19))


@pytest.fixture(scope="module")
def ragged():
    """Four pictures of different shapes, and the same as one flat store."""
    rng = torch.Generator().manual_seed(1)
    pictures = [torch.randint(0, 256, (*shape, 3), generator=rng, dtype=torch.uint8) for shape in SHAPES]
    starts = torch.tensor([0, *(p.numel() for p in pictures[:-1])]).cumsum(0)
    return pictures, StoreImages(torch.cat([p.flatten() for p in pictures]), torch.tensor(SHAPES), starts)


def cut(picture, top, left, flip, size=16):
    window = picture[top : top + size, left : left + size].permute(2, 0, 1)
    return window.flip(-1) if flip else window


@pytest.mark.parametrize("way", [copy_windows, index_windows])
def test_crops_are_slices(pixels, monkeypatch, way):
    monkeypatch.setattr(pixels_module, "copy_windows", way)  # a GPU takes the other one
    rows = torch.tensor([5, 0, 0, 3])
    crops = Crops(torch.tensor([0, 3, 1, 2]), torch.tensor([3, 0, 2, 2]), torch.tensor([False, True, False, True]))
    out = pixels.gather(rows, crops, 16)
    assert out.shape == (4, 3, 16, 16)
    assert out.dtype == torch.uint8
    for picture, row, top, left, flip in zip(out, rows, *crops, strict=True):
        assert torch.equal(picture, cut(pixels.data[row], top, left, flip))


@pytest.mark.parametrize("way", [copy_windows, index_windows])
def test_crops_of_pictures_of_different_shapes(ragged, monkeypatch, way):
    monkeypatch.setattr(pixels_module, "copy_windows", way)
    pictures, flat = ragged
    rows = torch.tensor([2, 1, 0, 1, 3])
    room = flat.shapes[rows] - 16
    mirrored = 0
    for crops in (centre_crops(room), *(draw_crops(room, True, torch.Generator().manual_seed(s)) for s in range(9))):
        out = flat.gather(rows, crops, 16)
        assert out.dtype == torch.uint8
        mirrored += int(crops.flip.sum())
        for picture, row, top, left, flip in zip(out, rows, *crops, strict=True):
            wanted = cut(pictures[row], top, left, flip)
            assert wanted.shape == (3, 16, 16)
            assert torch.equal(picture, wanted)
    assert 0 < mirrored < 45


def test_every_offset_within_the_room_is_drawn():
    room = torch.tensor([[0, 3], [2, 0]]).repeat(500, 1)
    crops = draw_crops(room, True, torch.Generator().manual_seed(0))
    for odd, top, left in ((0, {0}, {0, 1, 2, 3}), (1, {0, 1, 2}, {0})):
        assert set(crops.top[odd::2].tolist()) == top
        assert set(crops.left[odd::2].tolist()) == left
    assert 400 < int(crops.flip.sum()) < 600


def test_range(pixels):
    cut = pixels.gather(torch.arange(2), centre_crops(torch.full((2, 2), 3)), 16)
    cut[0, 0, 0, 0], cut[1, 0, 0, 0] = 0, 255
    (images,) = normalise(cut, [16])
    assert images.dtype == torch.float32
    assert images.is_contiguous()
    assert images[0, 0, 0, 0] == -1.0
    assert images[1, 0, 0, 0] == 1.0
    assert torch.allclose(images, cut.float() / 127.5 - 1, atol=1e-6)
    assert images.abs().max() <= 1


def photographs(side):
    """Like photographs: a drawn flower on a gradient, and the noise of a camera."""
    rng = np.random.default_rng(0)
    flowers = [Flower("red", 6, "round", "yellow", "green"), Flower("white", 5, "pointed", "black", "sky")]
    drawn = [draw_flower(flower, side, rng)[0].astype(np.float32) for flower in flowers]
    slope = np.linspace(-40, 40, side)[:, None, None]
    noisy = [np.clip(picture + slope + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8) for picture in drawn]
    return torch.from_numpy(np.stack(noisy)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("side", "sizes"), [(256, [64, 128, 256]), (100, [37, 99, 100])])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_pyramid_is_what_pil_makes_of_the_same_crop(side, sizes, layout):
    pictures = photographs(side)
    pyramid = normalise(pictures.contiguous(memory_format=layout), sizes)
    assert [tuple(images.shape) for images in pyramid] == [(2, 3, s, s) for s in sizes]
    for size, images in zip(sizes, pyramid, strict=True):
        assert images.is_contiguous()
        for picture, image in zip(pictures, images, strict=True):
            whole = Image.fromarray(picture.permute(1, 2, 0).numpy())
            wanted = np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR), np.float32)
            found = (image.permute(1, 2, 0).numpy() + 1) * 127.5
            assert np.abs(found - wanted).max() <= 1.01  # mostly 0: the last step may round elsewhere
            assert np.abs(found - wanted).mean() < 0.01


def in_floats(pictures, size):
    images = pictures.float() / 127.5 - 1
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def test_the_pyramid_beside_one_in_floating_point():
    pictures = photographs(128)
    for size, images in zip((32, 64), normalise(pictures, [32, 64]), strict=True):
        assert (images - in_floats(pictures, size)).abs().max() <= 1.1 / 127.5  # half a level for each of two passes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_pyramid_in_floating_point():
    pictures = photographs(64)
    on_gpu = normalise(pictures.cuda(), [32, 64])
    assert all(images.is_contiguous() for images in on_gpu)
    torch.testing.assert_close(on_gpu[0].cpu(), in_floats(pictures, 32), rtol=0, atol=1e-5)
    torch.testing.assert_close(on_gpu[1].cpu(), normalise(pictures, [64])[0], rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_cuts_as_a_cpu_does(pixels, ragged):
    for held in (pixels, ragged[1]):
        rows = torch.tensor([0, 3, 2, 3])
        crops = draw_crops(held.shapes[rows] - 16, True, torch.Generator().manual_seed(0))
        there = Crops(*(part.cuda() for part in crops))
        assert torch.equal(held.to("cuda").gather(rows.cuda(), there, 16).cpu(), held.gather(rows, crops, 16))


def test_without_room_the_crop_is_the_picture(pixels):
    crops = draw_crops(torch.zeros(6, 2, dtype=torch.int64), False, torch.Generator().manual_seed(0))
    assert torch.equal(pixels.gather(torch.arange(6), crops, 19), pixels.data.permute(0, 3, 1, 2))
