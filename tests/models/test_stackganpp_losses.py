"""Each loss of StackGAN++, worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from t2i_zoo.models.stackganpp import losses
from t2i_zoo.nn import Logits, generator_loss

THREE = log(3.0)  # the logit of a probability of 3/4
HIGH, LOW = torch.tensor([THREE, THREE]), torch.tensor([-THREE, -THREE])
NEAR, FAR = log(4 / 3), log(4)  # -log(3/4) and -log(1/4)
REAL, WRONG, FAKE = Logits(LOW, HIGH), Logits(HIGH, LOW), Logits(LOW, HIGH)  # with the text, then alone


@pytest.mark.parametrize(
    ("weight", "real", "wrong", "fake", "loss"),
    [
        (1.0, FAR + NEAR, FAR + FAR, NEAR + FAR, 4 * FAR + 2 * NEAR),
        (0.5, FAR + NEAR / 2, FAR + FAR / 2, NEAR + FAR / 2, 3 * FAR + 1.5 * NEAR),
        (0.0, FAR, FAR, NEAR, FAR + 0.5 * (FAR + NEAR)),
    ],
)
def test_discriminator_loss(weight: float, real: float, wrong: float, fake: float, loss: float) -> None:
    found = losses.discriminator_loss(REAL, WRONG, FAKE, weight)
    wanted = {"loss": loss, "real": real, "wrong": wrong, "fake": fake}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(wanted)


def test_losses_without_text() -> None:
    real, fake = Logits(None, torch.tensor([0.0, THREE])), Logits(None, LOW)
    found = losses.discriminator_loss(real, None, fake, uncond_weight=0.0)  # the weight has nothing to weigh
    wanted = {"real": (log(2) + NEAR) / 2, "fake": NEAR, "loss": (log(2) + NEAR) / 2 + NEAR}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(wanted)
    assert float(generator_loss(fake, alone=0.0)) == pytest.approx(FAR)


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_generator_loss(weight: float) -> None:
    assert float(generator_loss(FAKE, alone=weight)) == pytest.approx(FAR + weight * NEAR)


def test_colour_consistency() -> None:
    low = torch.zeros(1, 3, 2, 2)
    high = torch.zeros(1, 3, 2, 2)
    high[0, 0] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # mean 1/2, variance 1/4
    high[0, 1] = torch.tensor([[1.0, 1.0], [0.0, 0.0]])  # likewise, and uncorrelated with the first
    high[0, 2] = torch.tensor([[0.5, 0.0], [0.0, 0.5]])  # mean 1/4, variance 1/16, covariance 1/8 with the first
    low.requires_grad_(True)
    high.requires_grad_(True)
    mean, covariance = losses.colour_consistency(high, low)
    assert mean.item() == pytest.approx((1 / 4 + 1 / 4 + 1 / 16) / 3)
    assert covariance.item() == pytest.approx((2 / 16 + 1 / 256 + 2 / 64) / 9)
    (mean + covariance).backward()
    assert low.grad is None
    assert high.grad is not None


def test_colour_consistency_is_single_precision_under_autocast() -> None:
    high, low = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        half = losses.colour_consistency(high, low)
    assert half == losses.colour_consistency(high, low)
