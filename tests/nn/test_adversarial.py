"""Adversarial losses by their papers' equations, value by value."""

from __future__ import annotations

import math

import pytest
import torch

from t2i_zoo.nn import ADVERSARIAL, AdversarialName, mean

REAL, FAKE = [1.5, -0.5, 0.25], [-2.0, 0.75, 3.0]


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


R, F = sum(REAL) / 3, sum(FAKE) / 3
#: by name: the discriminator's loss of each real image and of each fake, and the generator's of each fake
WANTED: dict[AdversarialName, tuple[list[float], list[float], list[float]]] = {
    "paper": ([softplus(-r) for r in REAL], [softplus(f) for f in FAKE], [softplus(-f) for f in FAKE]),
    "hinge": ([max(0, 1 - r) for r in REAL], [max(0, 1 + f) for f in FAKE], [-f for f in FAKE]),
    "relativistic": (
        [0.0] * 3,
        [softplus(f - r) for r, f in zip(REAL, FAKE, strict=True)],
        [softplus(r - f) for r, f in zip(REAL, FAKE, strict=True)],
    ),
    "relativistic_average": (
        [softplus(F - r) for r in REAL],
        [softplus(f - R) for f in FAKE],
        [softplus(R - f) + sum(softplus(r - F) for r in REAL) / 3 for f in FAKE],
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_losses_by_their_equations(name: AdversarialName) -> None:
    loss, real, fake = ADVERSARIAL[name], torch.tensor(REAL), torch.tensor(FAKE)
    found = (loss.real(real, fake), loss.fake(fake, real), loss.generator(fake, real))
    for ours, wanted in zip(found, WANTED[name], strict=True):
        assert ours.tolist() == pytest.approx(wanted, abs=1e-6)
        assert ours.dtype == torch.float32
    assert loss.relative == name.startswith("relativistic")


def test_label_smoothing_is_one_sided() -> None:
    found = ADVERSARIAL["paper"].real(torch.tensor(REAL), target=0.8)
    assert found.tolist() == pytest.approx([0.8 * softplus(-r) + 0.2 * softplus(r) for r in REAL], abs=1e-6)
    assert ADVERSARIAL["paper"].fake(torch.tensor(FAKE)).tolist() == pytest.approx(
        [softplus(f) for f in FAKE], abs=1e-6
    )


def test_means() -> None:
    table, keep = torch.tensor([[1.0, 3.0], [5.0, 9.0], [2.0, 2.0]]), torch.tensor([True, False, True])
    assert float(mean(table)) == pytest.approx(22 / 6)
    assert float(mean(table, keep)) == pytest.approx(2.0)
    assert float(mean(table[:, 0], keep)) == pytest.approx(1.5)
    assert float(mean(table, ~(keep | True))) == 0.0
    assert float(mean(torch.zeros(0))) == 0.0
