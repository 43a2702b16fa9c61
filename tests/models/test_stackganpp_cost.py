"""What a step of StackGAN++ costs in floating-point operations, two for a multiplication with its addition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from t2i_zoo.models.stackganpp import StackGANPlusPlus, networks
from t2i_zoo.models.stackganpp.networks import convolve_with_code
from t2i_zoo.text import TextFeatures


def flops(work: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def forward(model: StackGANPlusPlus, count: int) -> tuple[int, int, int, int]:
    """Operations of one forward: generator, all discriminators, and in these the first layers of both."""
    text, noise = TextFeatures(torch.randn(count, model.text_encoder.dim)), torch.randn(count, model.total_noise_dim)
    with torch.no_grad():
        fakes = model.draw(model.generator, noise, text)
        mu = fakes.extras["mu"]
        pairs = list(zip(model.discriminator, fakes.images, strict=True))
        generator = flops(lambda: model.draw(model.generator, noise, text))
        discriminator = flops(lambda: [judge(images, mu) for judge, images in pairs])
        augment = flops(lambda: model.generator.augment.fc(text.sentence))
        first = flops(lambda: [judge.trunk[0][0](images) for judge, images in pairs])
    return generator, discriminator, augment, first


def test_a_step_computes_no_gradient_in_vain(tiny_options: dict[str, Any], build_data: Any, build_trainer: Any) -> None:
    """Frozen networks get no weight gradients, and images and sentences of the data none at all."""
    options = {"image_size": 32, "condition_dim": 4, "generator_width": 8, "discriminator_width": 4}
    model = StackGANPlusPlus(**{**tiny_options, **options})
    costs: list[int] = []
    step = model.training_step
    model.training_step = lambda *arguments: costs.append(flops(lambda: step(*arguments)))
    build_trainer(limit_train_batches=2).fit(model, build_data(image_size=32))
    generator, discriminator, augment, first = forward(model, 8)
    of_discriminator = 3 * (3 * discriminator - first)  # forward, gradients of weights and of features
    of_generator = 2 * discriminator + 2 * generator - augment  # the discriminators pass gradients on, no more
    of_generator -= 8 * 2 * 9 * (16 * 8**2 + 8 * 16**2)  # nor has the mask that repeats the condition any
    assert costs == [generator + of_discriminator + of_generator] * 2


def repeated(conv: nn.Conv2d, code: Tensor, features: Tensor) -> Tensor:
    """What ``convolve_with_code`` computes, as the authors do it."""
    return conv(torch.cat([code[:, :, None, None].expand(-1, -1, *features.shape[2:]), features], dim=1))


@pytest.mark.parametrize("side", [2, 3, 8])
def test_a_code_need_not_be_repeated(side: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(7, 4, 3, padding=1, bias=False)
    code, features, weights = torch.randn(2, 5), torch.randn(2, 2, side, side), torch.randn(2, 4, side, side)
    inputs = (conv.weight, code.requires_grad_(), features.requires_grad_())
    found, wanted = convolve_with_code(conv, code, features), repeated(conv, code, features)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad((out * weights).sum(), inputs) for out in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_the_step_at_the_widths_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """123.9 GFLOP an image, and 142.6 as the authors do it.

    They repeat the condition over the maps, and compute gradients of the discriminators in the generator's step.
    """
    with torch.device("meta"):  # shapes are enough to count
        model = StackGANPlusPlus()
        text, noise = TextFeatures(torch.empty(2, 1024)), torch.empty(2, model.total_noise_dim)
        pictures = [torch.empty(2, 3, size, size) for size in model.needs.sizes]
        batch: Any = {"images": pictures, "wrong_images": pictures, "text": text}

    def step(frozen: bool) -> None:
        fakes = model.draw(model.generator, noise, text)
        model.discriminator_loss(batch, fakes.detach())["loss"].backward()
        model.discriminator.requires_grad_(not frozen)
        model.generator_loss(batch, fakes)["loss"].backward()
        model.discriminator.requires_grad_(True)

    assert flops(lambda: step(frozen=True)) / 2e9 == pytest.approx(123.86, abs=0.01)
    monkeypatch.setattr(networks, "convolve_with_code", repeated)
    assert flops(lambda: step(frozen=True)) / 2e9 == pytest.approx(134.67, abs=0.01)
    assert flops(lambda: step(frozen=False)) / 2e9 == pytest.approx(142.64, abs=0.01)
