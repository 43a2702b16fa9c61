"""Pictures of every kind come out upright, in RGB and averaged exactly; everything else is named."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from t2i_zoo.data import images
from t2i_zoo.data.images import load_image, load_shape, shrink
from t2i_zoo.errors import T2IError


def naive_average(pixels, size):
    """The same average by its definition, one output pixel at a time; exact until the last division."""

    def spans(length):
        for i in range(size):
            low, high = Fraction(i * length, size), Fraction((i + 1) * length, size)
            yield [(p, float(min(p + 1, high) - max(p, low))) for p in range(int(low), math.ceil(high))]

    height, width, _ = pixels.shape
    out = np.zeros((size, size, 3))
    for i, rows in enumerate(spans(height)):
        for j, columns in enumerate(spans(width)):
            out[i, j] = sum(a * b * pixels[r, c].astype(float) for r, a in rows for c, b in columns)
    return out * size * size / (height * width)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(17, 31, 8), (76, 76, 64), (20, 13, 7), (9, 40, 9), (64, 32, 16)]
)
def test_shrinking_is_the_exact_area_average(height, width, size):
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    assert np.abs(shrink(pixels, (size, size)) - naive_average(pixels, size)).max() <= 0.5 + 1e-4


def test_a_plain_picture_stays_plain_at_any_size():
    for value in (0, 1, 127, 254, 255):
        assert (shrink(np.full((331, 257, 3), value, np.uint8), (76, 76)) == value).all()


def save(image, path, **options):
    image.save(path, **options)
    return path


def test_enlarging_keeps_corners_and_mean(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 2:] = 200
    out = load_image(save(Image.fromarray(pixels), tmp_path / "a.png"), 16, "stretch")
    assert out.shape == (16, 16, 3)
    assert (out[:, 0] == 0).all()
    assert (out[:, -1] == 200).all()
    assert abs(out.mean() - 100) < 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3), (1, 90)])
def test_extreme_shapes(tmp_path, shape):
    path = save(Image.new("RGB", shape[::-1], (10, 200, 30)), tmp_path / "a.png")
    for resize in ("stretch", "center_crop"):
        out = load_image(path, 20, resize)
        assert out.shape == (20, 20, 3)
        assert (out == (10, 200, 30)).all()


def test_a_thin_picture_is_averaged_along_its_long_side(tmp_path):
    pixels = np.zeros((3, 800, 3), np.uint8)
    pixels[:, ::2] = 255  # alternating columns: an average is grey, a sample black or white
    out = load_image(save(Image.fromarray(pixels), tmp_path / "a.png"), 8, "stretch")
    assert ((out == 127) | (out == 128)).all()


def test_modes(tmp_path):
    red = Image.new("RGB", (12, 10), (200, 20, 40))
    cases = {
        "grey.png": (Image.new("L", (12, 10), 90), (90, 90, 90)),
        "bits.png": (Image.new("1", (12, 10), 1), (255, 255, 255)),
        "palette.png": (red.convert("P", palette=Image.Palette.ADAPTIVE), (200, 20, 40)),
        "palette.gif": (red.convert("P", palette=Image.Palette.ADAPTIVE), (200, 20, 40)),
        "opaque.png": (red.convert("RGBA"), (200, 20, 40)),
        "clear.png": (Image.new("RGBA", (12, 10), (0, 0, 0, 0)), (255, 255, 255)),
        "half.png": (Image.new("RGBA", (12, 10), (0, 0, 0, 128)), (127, 127, 127)),
        "clear_grey.png": (Image.new("LA", (12, 10), (0, 0)), (255, 255, 255)),
        "deep.png": (Image.fromarray(np.full((10, 12), 32768, np.uint16)), (128, 128, 128)),
        "deep.tif": (Image.fromarray(np.full((10, 12), 65535, np.uint16)), (255, 255, 255)),
        "print.tif": (red.convert("CMYK"), (200, 20, 40)),
        "print.jpg": (red.convert("CMYK"), (200, 20, 40)),
        "red.webp": (red, (200, 20, 40)),
        "red.bmp": (red, (200, 20, 40)),
    }
    for name, (image, colour) in cases.items():
        out = load_image(save(image, tmp_path / name), 8, "stretch")
        assert out.dtype == np.uint8, name
        assert np.abs(out.astype(int) - colour).max() <= 4, (name, out[0, 0])


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 0, 4, 8))
    out = load_image(save(image, tmp_path / "a.png", transparency=0), 8, "stretch")
    assert (out[:, :4] == (255, 0, 0)).all()
    assert (out[:, 4:] == 255).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png"])
def test_exif_rotation_is_applied(tmp_path, name):
    image = Image.new("RGB", (40, 20), "white")
    image.paste((0, 0, 0), (0, 0, 20, 20))  # left half black
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be shown 90 degrees clockwise, so the left becomes the top
    out = load_image(save(image, tmp_path / name, exif=exif), 10, "stretch")
    assert out[:4].mean() < 10
    assert out[-4:].mean() > 245


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png", "a.webp"])
@pytest.mark.parametrize("turn", [1, 3, 5, 6, 7, 8, 9])  # there is no 9
def test_the_shape_is_known_from_the_head(tmp_path, name, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = save(Image.new("RGB", (30, 20)), tmp_path / name, exif=exif)
    shape = load_shape(path, 19, "short_side")
    assert shape == ((28, 19) if turn in (5, 6, 7, 8) else (19, 28))
    assert load_image(path, 19, "short_side").shape == (*shape, 3)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_a_turned_picture_with_an_odd_tag_is_read(tmp_path, name):
    """Orientation 6, and an XResolution that is text: Pillow reads it and cannot write it again."""
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", 0x011A, 2, 3, b"72\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    path = save(Image.new("RGB", (30, 20)), tmp_path / name, exif=exif)
    assert load_shape(path, 20, "short_side") == (30, 20)
    assert load_image(path, 20, "short_side").shape == (30, 20, 3)


def test_a_picture_with_broken_exif_is_read(tmp_path):
    path = save(Image.new("RGB", (12, 12), (9, 99, 199)), tmp_path / "a.jpg", exif=b"Exif\x00\x00garbage!" * 3)
    assert np.abs(load_image(path, 12, "stretch").astype(int) - (9, 99, 199)).max() < 4


def test_centre_crop_and_box(tmp_path):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 255
    path = save(Image.fromarray(pixels), tmp_path / "a.png")
    assert (load_image(path, 10, "center_crop") == 255).all()
    assert (load_image(path, 10, "stretch", (10, 0, 20, 20)) == 255).all()
    assert (load_image(path, 10, "stretch", (25, 5, 100, 100))[:, :2] == 255).all()  # cut at the edge, not padded
    with pytest.raises(T2IError, match=r"a\.png.*its box .* is outside its 40 x 20 pixels"):
        load_image(path, 10, "stretch", (50, 0, 5, 5))


def broken_files(folder):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = save(Image.fromarray(noise), folder / "whole.jpg").read_bytes()
    contents = {
        "truncated.jpg": whole[: len(whole) // 2],
        "page.jpg": b"<!DOCTYPE html><html><body>404</body></html>",
        "empty.jpg": b"",
        "words.png": b"no picture at all",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    save(Image.fromarray(np.zeros((4, 4), np.float32)), folder / "float.tif")
    return [*contents, "missing.jpg", "float.tif"]


def test_broken_files_are_named_in_one_sentence(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name in [*broken_files(tmp_path), "folder.jpg"]:
        with pytest.raises(T2IError) as caught:
            load_image(tmp_path / name, 8, "stretch")
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / name} is not a readable image ("), message
        assert message.endswith("repair it, or pass --data.on_bad_image skip to leave it out")
        assert "\n" not in message


@pytest.mark.parametrize("limit", [90, 40])  # PIL warns above its limit and raises above twice that
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    path = save(Image.new("RGB", (10, 10)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(T2IError, match=r"a\.png is not a readable image \(.*100 pixels.*--data\.max_megapixels"):
        load_image(path, 8, "stretch")
    monkeypatch.setattr(images, "MEGAPIXELS", limit / 1e6)
    with pytest.raises(T2IError, match=r"100 pixels.*--data\.max_megapixels"):
        load_image(path, 8, "stretch", most=99e-6)
    assert load_image(path, 8, "stretch", most=100e-6).shape == (8, 8, 3)


@pytest.mark.parametrize("side", [200, 400])
def test_a_draft_is_a_smaller_decode_of_large_jpegs_alone(tmp_path, side):
    """At load size 64 a picture of 400 pixels may be decoded at half its size, and one of 200 may not."""
    slope = np.linspace(0, 255, side)
    pixels = np.stack([*np.meshgrid(slope, slope), np.full((side, side), 90.0)], -1).astype(np.uint8)
    noisy = Image.fromarray((pixels // 2 + np.random.default_rng(0).integers(0, 120, pixels.shape)).astype(np.uint8))
    path = save(noisy, tmp_path / "a.jpg", quality=90)
    for resize, resample, box in (("stretch", "area", None), ("center_crop", "bilinear", None)):
        whole, draft = (load_image(path, 64, resize, box, resample, draft) for draft in (False, True))
        assert whole.shape == draft.shape == (64, 64, 3)
        assert np.array_equal(whole, draft) == (side == 200)
        assert np.abs(whole.astype(int) - draft).mean() < 2
    for resize, box in (("short_side", None), ("stretch", (3, 5, side - 9, side - 9))):  # where sizes have to be kept
        whole, draft = (load_image(path, 64, resize, box, "area", draft) for draft in (False, True))
        assert np.array_equal(whole, draft)


def test_want_of_memory_is_no_fault_of_the_picture(tmp_path, monkeypatch):
    def starve(*_, **__):
        raise MemoryError

    path = save(Image.new("RGB", (10, 10)), tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageOps.exif_transpose", starve)
    with pytest.raises(MemoryError):
        load_image(path, 8, "stretch")
