"""Grids and files of pictures: where each picture lies, whole captions, rounding, no half-written file."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from PIL import Image, ImageChops

from t2i_zoo import pictures
from t2i_zoo.fonts import Letters
from t2i_zoo.pictures import caption_grid, grid_size, interpolate_noise, save_beside, to_pil, to_uint8, truncate_noise


def plain(*colours: tuple[int, int, int], side: int = 16) -> torch.Tensor:
    """One picture a colour, in [-1, 1]."""
    return torch.tensor(colours).float()[:, :, None, None].expand(-1, -1, side, side) / 127.5 - 1


def test_every_shade_survives_the_way_to_uint8_and_back():
    shades = torch.arange(256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    back = to_uint8(shades.float() / 127.5 - 1)
    assert back.dtype == torch.uint8
    assert torch.equal(back, shades.to(torch.uint8))


def test_uint8_is_rounded_not_cut_off_and_stays_in_range():
    values = torch.tensor([-7.0, -1.0, -0.9965, -0.9955, 0.0, 0.999, 1.0, 9.0])
    expected = [0, 0, 0, 1, 128, 255, 255, 255]
    assert to_uint8(values.reshape(1, 1, 1, 8).expand(1, 3, 1, 8))[0, 0, 0].tolist() == expected
    assert to_uint8(values.bfloat16().reshape(1, 1, 1, 8).expand(1, 3, 1, 8)).shape == (1, 3, 1, 8)


def test_pil_images_keep_the_axes_apart():
    image = torch.full((1, 3, 2, 4), -1.0)
    image[0, 1, 0, 3] = 1.0  # green, first line, last column
    (page,) = to_pil(image)
    assert page.size == (4, 2)
    assert page.getpixel((3, 0)) == (0, 255, 0)
    assert sum(page.tobytes()) == 255


RED, GREEN, BLUE = (200, 0, 0), (0, 180, 3), (1, 2, 255)


def coloured(page: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Every (x, y) of a colour."""
    width = page.width
    return [(i % width, i // width) for i, found in enumerate(page.getdata()) if found == colour]


def box(page: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the one filled rectangle of a colour."""
    xs, ys = zip(*coloured(page, colour), strict=True)
    left, top = min(xs), min(ys)
    width, height = max(xs) - left + 1, max(ys) - top + 1
    assert len(xs) == width * height, "not one whole rectangle"
    return left, top, width, height


def test_pictures_lie_in_rows_and_columns():
    page = caption_grid([plain(RED, GREEN), plain(BLUE)], ["first", "second"], scale=2)
    red, green, blue = (box(page, colour) for colour in (RED, GREEN, BLUE))
    assert {b[2:] for b in (red, green, blue)} == {(32, 32)}
    assert red[1] == green[1]
    assert green[0] >= red[0] + 32 + 1
    assert blue[0] == red[0]
    assert blue[1] > red[1] + 32 + 10  # the caption is between
    assert red[0] > 0
    assert red[1] > 0


@pytest.mark.parametrize(("side", "columns"), [(16, 1), (16, 3), (300, 2)])
def test_the_size_of_a_page_is_known_before_it_is_drawn(side, columns):
    captions = ["first", "a flower with many thin red petals around a bright yellow centre " * 3]
    rows = [plain(*[RED] * columns, side=side)] * 2
    assert grid_size(side, columns, captions) == caption_grid(rows, captions).size


def test_the_caption_stands_under_its_own_row():
    page = caption_grid([plain(RED), plain(BLUE)], ["caption", ""], scale=8)
    _, top, _, height = box(page, RED)
    below = box(page, BLUE)[1]
    ink = [y for _, y in coloured(page, (0, 0, 0))]
    assert ink
    assert top + height <= min(ink)
    assert max(ink) < below


@pytest.mark.parametrize(("side", "expected"), [(16, 128), (64, 128), (100, 100), (256, 256)])
def test_small_pictures_are_enlarged_by_a_whole_number(side, expected):
    assert box(caption_grid([plain(RED, side=side)], ["x"]), RED)[2:] == (expected, expected)


def test_enlarging_repeats_pixels():
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    page = caption_grid([image], [""], scale=3)
    crop = page.crop((pictures._GAP, pictures._GAP, pictures._GAP + 48, pictures._GAP + 48))
    assert torch.equal(
        torch.frombuffer(bytearray(crop.tobytes()), dtype=torch.uint8).reshape(48, 48, 3),
        to_uint8(image)[0].permute(1, 2, 0).repeat_interleave(3, 0).repeat_interleave(3, 1),
    )


LONG = {
    "words": "a flower with many thin red petals around a bright yellow centre " * 4,
    "wide letters": "MWMWMWMW WWWWWWWW " * 10,
    "narrow letters": "illi lili " * 30,
    "one endless word": "W" * 200,
    "Chinese": "一朵红色的花有很多花瓣" * 12,
    "emoji": "🌸🌺🌻" * 40,
}


@pytest.mark.parametrize("kind", LONG)
def test_long_captions_are_wrapped_and_never_cut(kind, monkeypatch):
    drawn: list[tuple[tuple[float, float], str]] = []
    original = Letters.draw

    def watch(self, page, place, text, fill):
        drawn.append((place, text))
        return original(self, page, place, text, fill)

    monkeypatch.setattr(Letters, "draw", watch)
    page = caption_grid([plain(RED, RED, RED)], [LONG[kind]], scale=4)
    assert len(drawn) > 1
    assert "".join(text for _, text in drawn).replace(" ", "") == LONG[kind].replace(" ", "")
    letters = Letters(pictures._TEXT)
    for (x, y), text in drawn:
        assert 0 <= x <= x + letters.length(text) <= page.width
        assert 4 * 16 < y <= y + pictures._TEXT <= page.height
    lines = [y for (_, y), _ in drawn]
    assert all(b - a >= pictures._TEXT for a, b in itertools.pairwise(lines))
    rim = [page.getpixel((x, y)) for y in range(page.height) for x in (0, page.width - 1)]
    rim += [page.getpixel((x, y)) for x in range(page.width) for y in (0, page.height - 1)]
    assert set(rim) == {(255, 255, 255)}  # no ink runs out of the page


@pytest.mark.parametrize("caption", ["", "  ", "\n", "e\u0301 ü ß", "שלום", "\u200d🌸", "a\tb\nc", "\x00"])
def test_odd_captions_do_not_crash(caption):
    assert caption_grid([plain(RED)], [caption]).width >= 128


def test_a_caption_from_right_to_left_ends_at_the_right_edge():
    """Whatever font draws it, and even if that has no such letters."""
    left, right = (caption_grid([plain(RED)], [text]) for text in ("x", "\u05d0"))
    ink = [ImageChops.invert(page.crop((0, 134, page.width, page.height))).getbbox() for page in (left, right)]
    assert ink[0][2] < left.width / 2 < ink[1][0]


def test_different_captions_look_different():
    one, two = (caption_grid([plain(RED)], [text]) for text in ("a red flower", "a red flowes"))
    assert ImageChops.difference(one, two).getbbox() is not None


def test_a_caption_missing_for_a_row_is_our_own_bug():
    with pytest.raises(ValueError, match="zip"):
        caption_grid([plain(RED), plain(RED)], ["one"])


# Files --------------------------------------------------------------------------------------------------------------


def test_save_beside_makes_folders_and_leaves_one_file(tmp_path):
    path = tmp_path / "a" / "b" / "grid.png"
    assert save_beside(Image.new("RGB", (2, 2), RED), path) == path
    assert list(path.parent.iterdir()) == [path]
    with Image.open(path) as found:
        assert found.getpixel((0, 0)) == RED


class Interrupted(Image.Image):
    """A picture that breaks off in the middle of being written."""

    def save(self, path, *args, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))


def test_a_failed_save_leaves_the_former_file_and_nothing_else(tmp_path):
    path = save_beside(Image.new("RGB", (2, 2), RED), tmp_path / "grid.png")
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        save_beside(Interrupted(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Paths between noises -----------------------------------------------------------------------------------------------


def test_a_path_between_noises_keeps_ends_and_length():
    first, second = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
    path = interpolate_noise(first, second, 9)
    torch.testing.assert_close(path[0], first)
    torch.testing.assert_close(path[-1], second)
    norms = path.norm(dim=1)
    assert norms.min() > 0.95 * min(first.norm(), second.norm())  # a straight line would pass through 0.7 of it
    assert norms.max() < 1.05 * max(first.norm(), second.norm())
    steps = (path[1:] - path[:-1]).norm(dim=1)
    assert steps.max() < 1.2 * steps.min()


def test_a_quarter_circle_by_hand():
    path = interpolate_noise(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 3)
    torch.testing.assert_close(path[1], torch.tensor([1.0, 1.0]) / math.sqrt(2))


def test_the_path_from_a_noise_to_itself_is_finite():
    noise = torch.randn(64)
    torch.testing.assert_close(interpolate_noise(noise, noise, 4), noise.expand(4, -1), rtol=1e-3, atol=1e-3)


def test_truncated_noise_has_the_distribution_of_a_cut_normal():
    found = truncate_noise(torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)), 2.0)
    assert found.dtype == torch.float32
    assert found.abs().max() < 2
    assert found.mean() == pytest.approx(0, abs=0.02)
    assert found.std() == pytest.approx(0.8796, abs=0.01)  # sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))
    fixed = truncate_noise(torch.tensor([-1.0, 0.0, 1.0]), 2.0)
    assert fixed.tolist() == pytest.approx([-0.93775, 0, 0.93775], abs=1e-5)  # by SciPy's distribution functions
