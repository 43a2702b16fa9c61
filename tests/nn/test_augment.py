"""DiffAugment: golden values of each operation, and what the random draws may and may not do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from golden import agrees, inputs
from torch import Tensor

from t2i_zoo.nn import Augmentation, augment
from t2i_zoo.nn.augment import brightness, contrast, cutout, saturation, translation

IMAGES = inputs(5, 4, 3, 8, 8).tanh()
ALL: tuple[Augmentation, ...] = ("color", "translation", "cutout")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


#: the operation with its parameters; mean, unbiased deviation, first three values, last value, checksum
GOLDEN: dict[str, tuple[Callable[[Tensor], Tensor], float, float, tuple[float, ...], float, float]] = {
    "none": (lambda x: x, 0.001199, 0.620275, (0.414661, -0.319302, 0.984642), 0.017771, 0.361661),
    "brightness": (
        lambda x: brightness(x, torch.tensor([0.6, 0.3, 0.8, 0.1])),
        *(-0.048801, 0.681942, (0.514661, -0.219302, 1.084642), -0.382229, 0.372611),
    ),
    "saturation": (
        lambda x: saturation(x, torch.tensor([0.25, 0.75, 0.0, 1.0])),
        *(0.001199, 0.725565, (0.206336, -0.161634, 0.730206), 0.194740, 0.275844),
    ),
    "contrast": (
        lambda x: contrast(x, torch.tensor([0.1, 0.4, 0.7, 0.9])),
        *(0.001199, 0.661118, (0.258112, -0.182266, 0.600100), 0.032850, 0.597846),
    ),
    "translation": (
        lambda x: translation(x, torch.tensor([1, 0, -1, 1]), torch.tensor([-1, 1, 0, 1])),
        *(-0.004590, 0.569647, (0.0, 0.185433, -0.318404), 0.0, -0.388286),
    ),
    "cutout": (
        lambda x: cutout(x, torch.tensor([0, 3, 8, 5]), torch.tensor([0, 4, 8, 2]), (2, 2)),
        *(0.003868, 0.607521, (0.0, -0.319302, 0.984642), 0.017771, 0.209942),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_operations_agree_with_the_reference(name: str) -> None:
    operation, *golden = GOLDEN[name]
    assert agrees(operation(IMAGES), *golden)


def test_a_cutout_at_the_border_is_smaller() -> None:
    cut = cutout(torch.ones(4, 3, 8, 8), torch.tensor([0, 3, 8, 5]), torch.tensor([0, 4, 8, 2]), (2, 2))
    assert (cut == 0).sum((2, 3)).tolist() == [[1] * 3, [4] * 3, [1] * 3, [4] * 3]


def test_translation_moves_by_an_eighth_at_most_and_fills_with_grey() -> None:
    rows, columns = torch.meshgrid(torch.arange(22), torch.arange(38), indexing="ij")
    images = torch.stack([rows + 1, columns + 1]).float().expand(500, 2, 22, 38)
    moved = augment(images, ["translation"], rng())
    inside = moved[:, 0] > 0
    assert torch.equal(inside, moved[:, 1] > 0)
    for channel, most in ((0, 3), (1, 5)):  # an eighth of each side, rounded
        shift = (moved - images)[:, channel]
        each = torch.where(inside, shift, -100).amax((1, 2))
        assert torch.equal(each, torch.where(inside, shift, 100).amin((1, 2)))  # one shift for the whole image
        assert set(each.int().tolist()) == set(range(-most, most + 1))
        kept = inside.any(2 - channel).sum(1)
        assert torch.equal(kept, images.shape[2 + channel] - each.abs().int())
    assert torch.equal(moved[inside.all((1, 2))], images[inside.all((1, 2))])  # no grey without a shift


@pytest.mark.parametrize(("side", "ratio", "size"), [(8, 0.5, 4), (10, 0.5, 5), (64, 0.2, 13), (8, 0.2, 2)])
def test_cutout_sizes_and_places(side: int, ratio: float, size: int) -> None:
    cut = augment(torch.ones(2000, 1, side, side), ["cutout"], rng(), cutout_ratio=ratio)[:, 0] == 0
    heights, widths = cut.any(2).sum(1), cut.any(1).sum(1)
    assert torch.equal(cut.sum((1, 2)), heights * widths)  # a rectangle
    smallest = size // 2 if size % 2 == 0 else size // 2 + 1  # its centre at the border
    for lengths in (heights, widths):
        assert (lengths.min(), lengths.max()) == (smallest, size)
    last = cut[:, -1].any(1)
    assert abs(last.float().mean() - cut[:, 0].any(1).float().mean()) < 0.04  # both borders equally often


def test_colours_have_the_ranges_of_the_paper() -> None:
    images = torch.zeros(4000, 3, 2, 2)
    added = augment(images, ["color"], rng())[:, 0, 0, 0]  # a grey image knows brightness alone
    assert (added.min(), added.max()) == (pytest.approx(-0.5, abs=5e-3), pytest.approx(0.5, abs=5e-3))
    images[:, 0] = 1.0  # plain red: contrast scales the distance from a third, saturation that from grey
    red = augment(images, ["color"], rng())
    factor = (red[:, 0] - red[:, 1])[:, 0, 0]
    assert factor.min() >= 0
    assert factor.max() == pytest.approx(2 * 1.5, abs=0.1)
    assert factor.mean() == pytest.approx(1.0, abs=0.05)


def test_the_order_is_fixed_and_the_draws_follow_the_generator() -> None:
    once = augment(IMAGES, ALL, rng(3))
    assert torch.equal(once, augment(IMAGES, ALL[::-1], rng(3)))
    assert not torch.equal(once, augment(IMAGES, ALL, rng(4)))
    assert augment(IMAGES, ()) is IMAGES
    same = augment(IMAGES[:1].expand(8, -1, -1, -1), ALL, rng())
    assert len({tuple(image.flatten().tolist()) for image in same}) == 8  # own draws for each sample
    # cutout comes last: its hole stays 0 where colours would have moved it
    hole = augment(torch.full((64, 3, 8, 8), 0.9), ("color", "cutout"), rng()) == 0
    assert hole.sum((1, 2, 3)).min() >= 3 * 2 * 2


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_each_operation_is_applied_with_its_probability(kind: Callable[[float], float | Tensor]) -> None:
    images = torch.full((4000, 1, 8, 8), 0.9)
    cut = augment(images, ["cutout"], rng(), probability=kind(0.3)) == 0
    assert cut.any(3).any(2).float().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(augment(images, ALL, rng(), probability=kind(0.0)), images)
    both = augment(images, ["translation", "cutout"], rng(), probability=kind(1.0)) == 0
    assert both.any(3).any(2).all()


def test_gradients_reach_the_images_but_for_what_is_hidden() -> None:
    images = IMAGES.clone().requires_grad_()
    augment(images, ["translation", "cutout"], rng()).sum().backward()
    assert images.grad is not None
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}
    images.grad = None
    changed = augment(images, ALL, rng())
    (gradient,) = torch.autograd.grad(changed.square().sum(), images, create_graph=True)
    gradient.square().sum().backward()  # as a gradient penalty does
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_stays_also_under_autocast(dtype: torch.dtype) -> None:
    images = inputs(5, 2, 3, 9, 14).tanh().to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        changed = augment(images, ALL, rng(), probability=0.5)
    assert (changed.dtype, changed.shape) == (dtype, images.shape)
