"""A mismatched picture is never of the own class and uniform over all others."""

import pytest
import torch

from t2i_zoo.data.mismatch import MismatchSampler


def draws(labels, count=20_000, seed=0):
    sampler = MismatchSampler(labels)
    index = torch.arange(len(labels)).repeat_interleave(count)
    return sampler.draw(index, torch.Generator().manual_seed(seed)).view(len(labels), count)


def test_never_the_own_class_and_uniform_over_the_others():
    labels = torch.tensor([5, 0, 5, 5, 2, 0, 5, 9])  # uneven, unordered, with gaps
    wrong = draws(labels)
    for i, label in enumerate(labels):
        assert (labels[wrong[i]] != label).all()
        counts = torch.bincount(wrong[i], minlength=len(labels))
        others = counts[labels != label]
        expected = wrong.shape[1] / len(others)
        assert ((others - expected) ** 2 / expected).sum() < 30  # chi-square of at most 6 degrees: 30 is p < 1e-4


@pytest.mark.parametrize("label", [-1, 0, 7])
def test_one_class_or_none_draws_any_other_picture(label):
    wrong = draws(torch.full((5,), label))
    for i in range(5):
        counts = torch.bincount(wrong[i], minlength=5)
        assert counts[i] == 0
        assert (counts[counts > 0].double() / wrong.shape[1] - 0.25).abs().max() < 0.02


@pytest.mark.parametrize("labels", [[0, 1], [0, 0], [-1, -1]])
def test_two_pictures_take_each_other(labels):
    assert (draws(torch.tensor(labels), 50) == torch.tensor([[1], [0]])).all()


def test_reproducible_and_different_by_seed():
    labels = torch.arange(50) % 7
    assert torch.equal(draws(labels, 3, 1), draws(labels, 3, 1))
    assert not torch.equal(draws(labels, 3, 1), draws(labels, 3, 2))
