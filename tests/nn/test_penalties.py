"""Gradient penalties, LeCam, adaptive augmentation and the smaller terms against golden values and by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from golden import inputs, recipe
from torch import Tensor

from t2i_zoo.nn import (
    ADVERSARIAL,
    AdversarialName,
    LeCam,
    adaptive_probability,
    feature_matching,
    matching_aware_penalty,
    overfitting,
    squared_gradients,
)
from t2i_zoo.nn.penalties import lecam_loss

W = recipe("w", (192, 1))
REAL, FAKE = inputs(3, 4, 3, 8, 8), inputs(4, 4, 3, 8, 8)


def judge(images: Tensor) -> Tensor:
    return (images.flatten(1).tanh() @ W).squeeze(1) / math.sqrt(192)


REAL_LOGITS, FAKE_LOGITS = judge(REAL), judge(FAKE)


def close(wanted: float | list[float]) -> object:
    return pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_the_logits_are_those_of_the_golden_values() -> None:
    assert REAL_LOGITS.tolist() == close([0.407409, 0.414969, 0.197968, -0.032438])
    assert FAKE_LOGITS.tolist() == close([-0.298425, 0.435101, -0.142885, 0.705843])


@pytest.mark.parametrize(
    ("images", "each", "mean"),
    [
        (REAL, [0.491733, 0.471239, 0.470947, 0.509924], 0.485961),
        (FAKE, [0.426286, 0.491550, 0.482846, 0.436132], 0.459204),
    ],
)
def test_squared_gradients(images: Tensor, each: list[float], mean: float) -> None:
    images = images.clone().requires_grad_()
    (squares,) = squared_gradients(judge(images), [images])
    assert squares.tolist() == close(each)
    assert squares.mean().item() == close(mean)
    squares.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_logits_of_a_sample_are_summed() -> None:
    images = torch.ones(2, 3, 1, 1, requires_grad=True)
    logits = torch.stack([images.flatten(1).sum(1), 2 * images[:, 0, 0, 0]], 1)
    assert squared_gradients(logits, [images])[0].tolist() == [3 * 3 + 1 + 1] * 2


@pytest.mark.parametrize(
    ("name", "of_discriminator", "of_generator"),
    [
        ("paper", 1.386547, 0.630230),
        ("hinge", 1.927932, -0.174908),
        ("relativistic", 0.692654, 0.764723),
        ("relativistic_average", 1.340596, None),
    ],
)
def test_adversarial_losses(name: AdversarialName, of_discriminator: float, of_generator: float | None) -> None:
    loss = ADVERSARIAL[name]
    found = loss.real(REAL_LOGITS, FAKE_LOGITS).mean() + loss.fake(FAKE_LOGITS, REAL_LOGITS).mean()
    assert found.item() == close(of_discriminator)
    found = loss.generator(FAKE_LOGITS, REAL_LOGITS).mean()
    if of_generator is None:  # the discriminator's with the sides exchanged
        of_generator = (loss.real(FAKE_LOGITS, REAL_LOGITS).mean() + loss.fake(REAL_LOGITS, FAKE_LOGITS).mean()).item()
    assert found.item() == close(of_generator)


def test_paired_relativistic_loss_with_both_penalties() -> None:
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    r, f = judge(real), judge(fake)
    squares = squared_gradients(torch.cat([r, f]), [real, fake])
    loss = ADVERSARIAL["relativistic"].fake(f, r).mean() + 0.5 / 2 * torch.stack(squares).mean(1).sum()
    assert loss.item() == close(0.928946)


def test_matching_aware_penalty_of_images_alone() -> None:
    images, sentence = REAL.clone().requires_grad_(), torch.zeros(4, 2, requires_grad=True)
    found = matching_aware_penalty(judge(images) + 0 * sentence.sum(1), images, sentence)
    assert found.penalty.item() == close(0.230296)
    assert found.sentence_norm.item() == 0
    wanted = sum(math.sqrt(x) for x in (0.491733, 0.471239, 0.470947, 0.509924)) / 4
    assert found.image_norm.item() == close(wanted)


def test_matching_aware_penalty_takes_one_norm_of_both_gradients() -> None:
    images, sentence = torch.zeros(2, 1, 1, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    slope = torch.tensor([3.0, 0.0], requires_grad=True)
    logits = slope * images.flatten() + torch.tensor([4.0, 2.0]) * sentence.flatten()
    found = matching_aware_penalty(logits, images, sentence, weight=0.5, power=3)
    assert found.penalty.item() == pytest.approx(0.5 * (5**3 + 2**3) / 2)
    assert (found.image_norm.item(), found.sentence_norm.item()) == (1.5, 3.0)
    found.penalty.backward()
    assert slope.grad is not None
    assert slope.grad.tolist() == [pytest.approx(0.25 * 3 * 5 * 3), 0]  # finite where a norm is 0


def test_lecam() -> None:
    lecam = LeCam(decay=0.99)
    for _ in range(3):
        loss = lecam(REAL_LOGITS, FAKE_LOGITS)
    assert lecam.averages.tolist() == close([0.00733546, 0.00519495])
    assert lecam_loss(REAL_LOGITS, FAKE_LOGITS, *lecam.averages).item() == close(0.120727)  # without debiasing
    assert [x.item() for x in lecam.anchors] == close([0.246977, 0.174908])
    assert loss.item() == close(wanted := 0.140418)
    again = LeCam(decay=0.99).eval()
    assert torch.isfinite(again(REAL_LOGITS, FAKE_LOGITS))  # before any batch
    again.load_state_dict(lecam.state_dict())
    assert again(REAL_LOGITS, FAKE_LOGITS).item() == close(wanted)
    assert again(REAL_LOGITS + 9, FAKE_LOGITS).item() != close(wanted)
    assert again.updates == 3  # only training moves the averages


def test_two_lecam_losses_of_one_step_can_be_differentiated() -> None:
    lecam, real, fake = LeCam(), REAL_LOGITS.clone().requires_grad_(), FAKE_LOGITS.clone().requires_grad_()
    (lecam(real, fake) + lecam(real, fake)).backward()
    assert real.grad is not None
    average = FAKE_LOGITS.mean()  # debiased, of identical batches
    assert torch.allclose(real.grad, 2 * 2 * F.relu(REAL_LOGITS - average) / 4, atol=1e-6)


def test_overfitting_and_adaptive_probability() -> None:
    found = overfitting(REAL_LOGITS)
    assert found == 0.5
    step = adaptive_probability(torch.tensor(0.5), found, images=64 * 4)
    assert step.item() == pytest.approx(0.5 - 5.12e-4, abs=1e-7)
    step = adaptive_probability(torch.tensor(0.5), torch.tensor(0.7), images=64 * 4)
    assert step.item() == pytest.approx(0.5 + 5.12e-4, abs=1e-7)
    assert adaptive_probability(torch.tensor(0.0), found, images=256) == 0
    assert adaptive_probability(torch.tensor(1.0), torch.tensor(1.0), images=256) == 1


def test_generator_loss_of_the_most_convincing_images() -> None:
    each = ADVERSARIAL["paper"].generator(FAKE_LOGITS)
    assert each.topk(2, largest=False).values.mean().item() == close(0.450164)
    assert each.mean().item() == close(0.630230)


def test_feature_matching() -> None:
    assert (FAKE.mean(0) - REAL.mean(0)).abs().mean().item() == close(0.591419)  # the inputs are the sheet's
    assert feature_matching(REAL, FAKE).item() == close(0.541742)
    real, fake = REAL.clone().requires_grad_(), FAKE.clone().requires_grad_()
    feature_matching(real, fake).backward()
    assert real.grad is None
    assert fake.grad is not None
