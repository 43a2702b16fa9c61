"""Feature mixing and heads against numbers of the reference code, and how text, classes and small images enter."""

from __future__ import annotations

import re
import statistics
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from golden import agrees, inputs, recipe
from torch import Tensor, nn

from t2i_zoo.nn import ProjectedDiscriminator
from t2i_zoo.nn.projected import batch_deviation

Values = tuple[float, float, tuple[float, ...], float]  #: mean, unbiased deviation, first three, last


class Case(NamedTuple):
    batch: int
    taps: tuple[int, ...]
    size: int
    channels: int
    mixed: list[Values]
    train: Values
    heads: list[float]
    hinge: tuple[float, float]
    eval: Values


CASES = {
    "X": Case(
        *(2, (24, 40, 112, 320), 224, 64),
        mixed=[
            (0.030562, 1.244663, (3.423810, 1.685763, -0.052284), 0.585728, -0.482568),
            (0.054651, 1.121961, (-0.081799, -0.139285, -0.196770), -1.125528, 1.257563),
            (-0.013856, 0.937490, (-2.165274, -2.484364, -2.803454), 1.583320, 0.051216),
            (-0.010695, 0.710872, (-0.563659, -0.233242, 0.097176), 0.416378, 0.548987),
        ],
        train=(-0.021958, 0.732088, (1.174148, -0.578763, -0.090580), 0.504541, 0.389875),
        heads=[0.250716, -0.380263, 0.101176, -0.059460],
        hinge=(1.055009, 0.995695),
        eval=(0.026467, 0.231567, (0.110021, -0.073122, 0.070455), 0.408662, 0.125541),
    ),
    "Y": Case(
        *(4, (4, 6, 8, 10), 128, 8),
        mixed=[
            (0.127777, 1.276622, (-2.667993, -1.065825, 0.536342), -1.408918, -0.043673),
            (0.071880, 1.082762, (1.289122, 0.743693, 0.198263), -0.767547, 0.898398),
            (0.051468, 0.947184, (0.178883, 0.101577, 0.024272), -0.736495, 0.053117),
            (-0.078261, 0.755475, (0.209179, 0.221682, 0.234186), -0.967849, 0.195400),
        ],
        train=(0.205653, 0.827886, (1.019108, 0.285274, -0.752774), 0.698417, 0.786990),
        heads=[0.794815, -0.251465, 0.278365, 0.000897],
        hinge=(0.846375, 1.205653),
        eval=(0.091600, 0.197771, (0.229779, 0.045618, -0.169266), 0.432784, 0.071790),
    ),
}


#: the reference's names of our keys
NAMES = [
    (r"mixer\.across_channels\.(\d)", r"scratch.layer\1_ccm"),
    (r"mixer\.across_scales\.(\d)", r"scratch.layer\1_csm.out_conv"),
    (r"heads\.(\d)\.trunk\.(\d)", r"mini_discs.\1.main.\2.main"),
    *((rf"heads\.{head}\.unconditional", f"mini_discs.{head}.main.{4 - head}") for head in range(4)),
    (r"parametrizations\.weight\.original", "weight_orig"),
    (r"parametrizations\.weight\.0\._", "weight_"),
]


def fill(network: nn.Module) -> None:
    for key, tensor in network.state_dict().items():
        if tensor.ndim:
            theirs = key
            for ours, name in NAMES:
                theirs = re.sub(ours, name, theirs)
            value = recipe(theirs, tuple(tensor.shape))
            tensor.copy_(value / value.norm() if theirs.endswith(("_u", "_v")) else value)


def iterate_as_the_reference(network: nn.Module) -> None:
    """One power iteration of all weights, v before u; PyTorch's parametrization takes u before v.

    Both go to the same singular vectors. Ours then rests, while the batch norms train.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.parametrizations.weight.original.detach().flatten(1)
            norm = module.parametrizations.weight[0]
            norm._v.copy_(F.normalize(weight.T @ norm._u, dim=0))
            norm._u.copy_(F.normalize(weight @ norm._v, dim=0))
            norm.eval()


def taps_of(case: Case) -> list[Tensor]:
    return [inputs(31 + i, case.batch, c, *[case.size // 4 // 2**i] * 2) for i, c in enumerate(case.taps)]


@pytest.mark.parametrize("name", CASES)
def test_paper_discriminator_agrees_with_the_reference(name: str) -> None:
    case = CASES[name]
    taps = taps_of(case)
    network = ProjectedDiscriminator(case.taps, [tap.shape[2] for tap in taps], channels=case.channels)
    fill(network)
    for found, wanted in zip(network.mixer(taps), case.mixed, strict=True):
        assert agrees(found, *wanted)
    iterate_as_the_reference(network)
    with torch.no_grad():
        features = network.features(taps)
        logits = network.judge_alone(features)
        assert agrees(logits, *case.train)
        each = [head.unconditional(x).mean().item() for head, x in zip(network.heads, features, strict=True)]
        assert each == pytest.approx(case.heads, abs=1e-5)
        losses = F.relu(1 - logits).mean().item(), F.relu(1 + logits).mean().item()
        assert losses == pytest.approx(case.hinge, abs=1e-5)
        assert agrees(network.judge_alone(network.eval().features(taps)), *case.eval)


def small(size: int = 64, **options: Any) -> tuple[ProjectedDiscriminator, list[Tensor]]:
    torch.manual_seed(0)
    taps = [inputs(31 + i, 3, 4 + i, *[max(size // 4 // 2**i, 1)] * 2) for i in range(4)]
    sizes = [tap.shape[2] for tap in taps]
    return ProjectedDiscriminator([4, 5, 6, 7], sizes, channels=4, **({"width": 16} | options)), taps


def test_sizes_at_the_widths_of_the_paper() -> None:
    network = ProjectedDiscriminator((24, 40, 112, 320), (56, 28, 14, 7))
    assert sum(p.numel() for p in network.parameters()) == 10_331_328
    assert sum(b.numel() for b in network.mixer.buffers()) == 376_768
    assert network.mixer.out_channels == (64, 64, 128, 256)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(("size", "logits"), [(256, 100), (224, 64), (128, 4), (64, 4), (32, 4), (200, 36)])
def test_logits_at_every_size(size: int, logits: int, separable: bool) -> None:
    network, taps = small(size, condition_dim=8, separable=separable)
    found = network(taps, inputs(1, 3, 8))
    assert found.unconditional.shape == found.matched.shape == (3, logits)
    assert found.classes is None
    assert [tap.shape for tap in network.mixer(taps)[1:]] == [
        (3, channels, *finer.shape[2:]) for channels, finer in zip((4, 8, 16), taps, strict=False)
    ]


def test_blocks_that_do_not_fit_are_left_out() -> None:
    network, _ = small(32)
    assert [len(head.trunk) for head in network.heads] == [4, 3, 2, 1]
    network, taps = small(16)  # maps of 8, 4, 2 and 1 pixels
    assert [len(head.trunk) for head in network.heads] == [3, 2, 1, 0]
    assert network(taps, None).unconditional.shape == (3, 4)


def test_text_enters_by_a_scaled_dot_product_at_each_place() -> None:
    network, taps = small(224, condition_dim=8, text_channels=5, text_scale=0.3)
    network.eval()
    sentences = inputs(1, 3, 8)
    features = network.features(taps)
    found = network.judge(features, sentences)
    wanted = []
    for head, x in zip(network.heads, features, strict=True):
        maps, vectors = head.conditional(x), head.text(sentences)
        wanted.append(torch.einsum("bcij,bc->bij", maps, vectors).flatten(1) / 5**0.5)
    assert torch.allclose(found.matched, 0.3 * torch.cat(wanted, 1), atol=1e-6)
    assert not torch.allclose(network.judge(features, sentences.roll(1, 0)).matched, found.matched, atol=1e-2)
    some = network.judge([x[1:] for x in features], sentences[1:])
    assert torch.allclose(some.matched, found.matched[1:], atol=1e-6)
    assert network(taps, None).matched is None
    assert small(224)[0].judge(features, sentences) == (None, None, None)  # built without text


def test_class_logits_read_the_mean_features_of_all_heads() -> None:
    network, taps = small(num_classes=6)
    features = network.eval().features(taps)
    found = network.judge(features, None)
    assert network.classify is not None
    pooled = torch.cat([x.mean((2, 3)) for x in features], 1)
    assert torch.equal(found.classes, F.linear(pooled, network.classify.weight, network.classify.bias))
    assert found.classes.shape == (3, 6)


def test_mixing_is_frozen_and_saved() -> None:
    network, taps = small()
    assert not any(name.startswith("mixer") for name, _ in network.named_parameters())
    other, _ = small()
    for buffer in other.mixer.buffers():
        buffer.normal_()
    assert not torch.equal(other.eval()(taps, None).unconditional, network.eval()(taps, None).unconditional)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(taps, None).unconditional, network(taps, None).unconditional)


@pytest.mark.parametrize("separable", [False, True])
def test_gradients_reach_every_weight_and_every_tap(separable: bool) -> None:
    network, taps = small(condition_dim=8, num_classes=6, separable=separable)
    taps = [tap.requires_grad_() for tap in taps]
    with torch.autocast("cpu", torch.bfloat16):
        found = network(taps, inputs(1, 3, 8))
        features = network.features(taps)  # a second pass before the backward, as real and generated images need
        loss = found.matched.sum() + found.unconditional.square().sum() + found.classes[:, 0].sum()
        loss = loss + network.judge_alone(features).sum()
    loss.backward()
    for name, tensor in [*network.named_parameters(), *((f"tap {i}", tap) for i, tap in enumerate(taps))]:
        assert tensor.grad is not None, name
        assert torch.isfinite(tensor.grad).all(), name


def test_weights_have_spectral_norm_one() -> None:
    network, taps = small(condition_dim=8)
    for _ in range(100):
        network(taps, inputs(1, 3, 8))
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    norms = [torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() for conv in convs]
    assert norms == pytest.approx([1.0] * (10 + 4 + 4), abs=1e-2)


def test_batch_deviation_of_each_group_and_place() -> None:
    images = torch.arange(8.0)[:, None, None, None] ** 2 * torch.tensor([[[1.0, 2.0]]])
    found = batch_deviation(images, group=4)
    assert torch.equal(found[:, :1], images)
    for image in range(8):
        squares = [float(i**2) for i in range(image % 2, 8, 2)]
        wanted = statistics.pstdev(squares)
        assert found[image, 1, 0].tolist() == pytest.approx([wanted, 2 * wanted], rel=1e-4)
    whole = batch_deviation(images[:3], group=4)[:, 1, 0, 0]
    assert whole.tolist() == pytest.approx([statistics.pstdev([0, 1, 4])] * 3, rel=1e-4)


def test_heads_see_that_all_images_of_a_batch_are_alike() -> None:
    network, taps = small(condition_dim=8, num_classes=3, batch_std=True)
    found = network(taps, inputs(1, 3, 8))
    assert found.classes.shape == (3, 3)
    alike = [tap[:1].expand(3, -1, -1, -1) for tap in taps]
    channels = [features[:, -1] for features in network.eval().features(alike)]
    assert max(channel.max().item() for channel in channels) < 1e-3 < network.features(taps)[0][:, -1].min().item()
