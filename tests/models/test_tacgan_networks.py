"""TAC-GAN's networks against TensorFlow's definitions: padding, batch norm, orders, initial weights, counts."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.models.tacgan.networks import (
    DISCRIMINATOR_WIDTHS,
    BatchNorm,
    Discriminator,
    Generator,
    SameConv,
    SameConvTranspose,
)

HEAD, PAPER_ERA = DISCRIMINATOR_WIDTHS["head"], DISCRIMINATOR_WIDTHS["paper_era"]


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("projection", "generator", "head", "paper_era"),
    [(256, 17_234_243, 9_305_959, 12_509_287), (100, 11_373_479, 8_477_131, 11_720_395)],
)
def test_parameter_counts(projection: int, generator: int, head: int, paper_era: int) -> None:
    with torch.device("meta"):  # skip-thought vectors have 4800 numbers
        assert count(Generator(4800, 100, projection, 64, 128)) == generator
        assert count(Discriminator(4800, projection, 64, HEAD, 102, 128)) == head
        assert count(Discriminator(4800, projection, 64, PAPER_ERA, 102, 128)) == paper_era


def test_widths_of_the_discriminator() -> None:
    network = Discriminator(32, 8, 2, (3, 5, 2, 7, 4), 10, 32)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [(3, 6), (6, 10), (10, 4), (4, 14), (14 + 8, 8)]
    assert (network.matching.in_features, network.classes.in_features, network.classes.out_features) == (32, 32, 10)


@pytest.mark.parametrize("size", [16, 48, 128])
def test_sizes(size: int) -> None:
    images = Generator(6, 4, 3, 2, size)(torch.rand(2, 4), torch.randn(2, 6))
    assert images.shape == (2, 3, size, size)
    assert 0 <= images.min() < images.max() <= 1
    logits = Discriminator(6, 3, 2, HEAD, 5, size)(images, torch.randn(2, 6))
    assert (logits.matched.shape, logits.classes.shape) == ((2,), (2, 5))
    assert logits.unconditional is None


# Padding ------------------------------------------------------------------------------------------------------------


def tensorflow_same_conv(x: Tensor, layer: nn.Conv2d) -> np.ndarray:
    """``tf.nn.conv2d(..., padding="SAME")`` of one image (C, n, n), as its manual defines it, pixel by pixel."""
    picture, weight, bias = x.numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy()
    n, kernel, stride = picture.shape[-1], 5, 2
    out = ceil(n / stride)
    before = max((out - 1) * stride + kernel - n, 0) // 2  # the odd one goes behind
    result = np.tile(bias[:, None, None], (1, out, out)).astype(np.float64)
    for i in range(out):
        for j in range(out):
            for u in range(kernel):
                for v in range(kernel):
                    row, column = i * stride + u - before, j * stride + v - before
                    if 0 <= row < n and 0 <= column < n:
                        result[:, i, j] += weight[:, :, u, v] @ picture[:, row, column]
    return result


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_same_padding(size: int) -> None:
    torch.manual_seed(size)
    layer, x = SameConv(2, 3), torch.randn(2, size, size)
    found = layer(x[None])[0].detach().double().numpy()
    assert found.shape == (3, size // 2, size // 2)
    np.testing.assert_allclose(found, tensorflow_same_conv(x, layer), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 8])
def test_the_transpose_is_the_gradient_of_the_convolution(side: int) -> None:
    """``conv2d_transpose`` is defined as the gradient of ``conv2d`` by its input."""
    torch.manual_seed(side)
    conv, transpose = SameConv(2, 3), SameConvTranspose(3, 2)
    transpose.load_state_dict({"weight": conv.weight, "bias": torch.tensor([0.5, -0.25])})
    below = torch.randn(1, 2, 2 * side, 2 * side, requires_grad=True)
    above = torch.randn(1, 3, side, side)
    (gradient,) = torch.autograd.grad(conv(below), below, above)
    torch.testing.assert_close(transpose(above), gradient + torch.tensor([0.5, -0.25])[:, None, None])


# Batch norm ---------------------------------------------------------------------------------------------------------


def normalised(x: Tensor, like: Tensor) -> Tensor:
    mean, var = like.mean((0, 2, 3), keepdim=True), like.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-3)


@pytest.mark.parametrize("tracked", [False, True])
def test_batch_norm_in_training(tracked: bool) -> None:
    torch.manual_seed(0)
    layer, x = BatchNorm(3, tracked), 0.05 * torch.randn(4, 3, 2, 2) + 2
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    layer.bias.data = torch.tensor([1.0, 0.0, -1.0])
    wanted = normalised(x, x) + torch.tensor([1.0, 0.0, -1.0])[:, None, None]
    torch.testing.assert_close(layer(x), wanted, rtol=0, atol=1e-5)


def test_running_averages_have_the_biased_variance() -> None:
    layer, x = BatchNorm(1, tracked=True), torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)  # variance 1, unbiased 2
    x = 3 * x  # mean 6, variance 9
    layer(x)
    assert float(layer.running_mean) == pytest.approx(0.001 * 6)
    assert float(layer.running_var) == pytest.approx(0.999 + 0.001 * 9)
    layer.eval()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    wanted = (x - 0.006) / sqrt(1.008 + 1e-3)
    torch.testing.assert_close(layer(x, reference=1), wanted)
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


def test_statistics_of_the_first_rows_alone() -> None:
    torch.manual_seed(1)
    layer, x = BatchNorm(2, tracked=False).eval(), torch.randn(5, 2, 3, 3)
    torch.testing.assert_close(layer(x, reference=3), normalised(x, x[:3]), rtol=0, atol=1e-5)
    assert not layer.state_dict().keys() - {"bias"}


def test_one_image_of_one_pixel_is_the_bias() -> None:
    layer = BatchNorm(2, tracked=False).eval()
    layer.bias.data = torch.tensor([0.5, -1.0])
    assert layer(torch.randn(1, 2, 1, 1)).flatten().tolist() == pytest.approx([0.5, -1.0], abs=1e-5)


@pytest.mark.parametrize("tracked", [False, True])
def test_tracking_reaches_every_batch_norm(tracked: bool) -> None:
    networks = [Generator(6, 4, 3, 2, 16, tracked), Discriminator(6, 3, 2, HEAD, 5, 16, tracked)]
    norms = [m for network in networks for m in network.modules() if isinstance(m, BatchNorm)]
    assert [norm.tracked for norm in norms] == [tracked] * 8  # four in each


# Orders and initial weights -----------------------------------------------------------------------------------------


def test_the_generator_reads_noise_before_text() -> None:
    network = Generator(6, 4, 3, 2, 16)
    seen: list[Tensor] = []
    network.first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    noise, sentence = torch.rand(2, 4), torch.randn(2, 6)
    network(noise, sentence)
    assert torch.equal(seen[0], torch.cat([noise, network.project(sentence)], 1))


def test_maps_are_flat_in_the_order_of_tensorflow() -> None:
    """Row, column, channel; so weights of dense layers fit after a transposition."""
    generator, discriminator = Generator(6, 4, 3, 2, 32), Discriminator(6, 3, 2, HEAD, 5, 32)
    seen: dict[str, Tensor] = {}
    generator.first.register_forward_hook(lambda _, __, output: seen.update(flat=output))
    generator.layers.register_forward_pre_hook(lambda _, inputs: seen.update(map=inputs[0]))
    discriminator.joint.register_forward_pre_hook(lambda _, inputs: seen.update(both=inputs[0]))
    discriminator.joint.register_forward_hook(lambda _, __, output: seen.update(top=output))
    discriminator.classes.register_forward_pre_hook(lambda _, inputs: seen.update(read=inputs[0]))
    sentence = torch.randn(2, 6)
    images = generator(torch.rand(2, 4), sentence)
    discriminator(images, sentence)
    for row, column, channel in [(0, 0, 3), (0, 1, 0), (1, 0, 15)]:
        place = (2 * row + column) * 16 + channel
        assert torch.equal(seen["map"][:, channel, row, column], seen["flat"][:, place])
        assert torch.equal(seen["top"][:, channel, row, column], seen["read"][:, place])
    assert torch.equal(seen["both"][:, :16], discriminator.features(images))  # image before text
    assert torch.equal(seen["both"][:, 16:, 1, 0], discriminator.project(sentence))


def test_initial_weights() -> None:
    networks = [Generator(96, 4, 32, 8, 32), Discriminator(96, 32, 8, HEAD, 102, 32)]
    layers = [m for n in networks for m in n.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    assert len(layers) == 2 + 4 + 5 + 3
    for layer in layers:
        kernel = layer.weight[0, 0].numel()
        bound = sqrt(6 / (kernel * sum(layer.weight.shape[:2])))
        largest = float(layer.weight.detach().abs().max())
        assert 0.9 * bound < largest <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(bound / sqrt(3), rel=0.12)
        assert not layer.bias.any()
