"""The DCGAN pair against numbers measured by running the reference classes of aelnouby/Text-to-Image-Synthesis.

Weights follow from the reference's own key names, so a layer of another shape, order or place changes every number.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.models.gancls import GANCLS

#: our prefix to the reference's; what follows it (index, parameter) is the same in both
GENERATOR_KEYS = {"project.": "projection.", "layers.": "netG."}
DISCRIMINATOR_KEYS = {"project.": "projector.projection.", "image.": "netD_1.", "joint.": "netD_2.0."}

#: mean, unbiased standard deviation, first three values, last value
GOLDEN = {
    ("eval", "pictures"): (-0.019882, 0.175088, (0.113555, 0.061077, 0.165349), 0.004996),
    ("eval", "probabilities"): (0.475204, 0.063834, (0.556517, 0.405942, 0.449910), 0.488447),
    ("eval", "features"): (0.061627, 0.129910, (-0.052614, -0.066907, -0.037071), -0.005313),
    ("train", "pictures"): (-0.160126, 0.726036, (-0.045623, -0.506339, 0.577863), 0.171509),
    ("train", "probabilities"): (0.594626, 0.125072, (0.721706, 0.422174, 0.615024), 0.619600),
}


def recipe(key: str, shape: torch.Size) -> Tensor:
    """The value of one tensor of the reference, from its key alone."""
    draw = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(shape))
    if key.endswith("running_var"):
        draw = 1 + 0.5 * np.abs(draw)
    elif len(shape) >= 2:
        draw = draw / math.sqrt(math.prod(shape[1:]))
    else:
        draw = 1 + 0.1 * draw if key.endswith(".weight") else 0.1 * draw
    return torch.from_numpy(np.asarray(draw, np.float32))


def fill(network: nn.Module, prefixes: dict[str, str]) -> list[str]:
    """Give a network the recipe's values; returns the reference's keys that it covers."""
    names = {
        ours: theirs + ours.removeprefix(prefix)
        for ours in network.state_dict()
        for prefix, theirs in prefixes.items()
        if ours.startswith(prefix)
    }
    values = {
        ours: recipe(names[ours], tensor.shape) for ours, tensor in network.state_dict().items() if tensor.ndim > 0
    }
    network.load_state_dict(values, strict=False)
    return list(names.values())


def inputs(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


@pytest.fixture(scope="module")
def model() -> GANCLS:
    return GANCLS(architecture="dcgan", generator_width=64, discriminator_width=64, projection_dim=128)


def test_every_reference_key_has_its_place(model: GANCLS) -> None:
    assert model.text_encoder.dim == 1024
    generator, discriminator = (
        fill(model.generator, GENERATOR_KEYS),
        fill(model.discriminator, DISCRIMINATOR_KEYS),
    )
    assert len(generator) == len(model.generator.state_dict()) == 32
    assert len(discriminator) == len(model.discriminator.state_dict()) == 27
    assert {"projection.0.weight", "netG.0.weight", "netG.10.running_var", "netG.12.weight"} <= set(generator)
    assert {"netD_1.9.bias", "projector.projection.1.weight", "netD_2.0.weight"} <= set(discriminator)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_values(model: GANCLS, mode: str) -> None:
    fill(model.generator, GENERATOR_KEYS)
    fill(model.discriminator, DISCRIMINATOR_KEYS)
    model.train(mode == "train")
    text, noise, pictures = inputs(1, 4, 1024), inputs(2, 4, 100, 1, 1).flatten(1), inputs(3, 4, 3, 64, 64).tanh()
    with torch.no_grad():
        features = model.discriminator.features(pictures)
        found = {
            "pictures": model.generator(noise, text),
            "probabilities": model.discriminator.score(features, text).sigmoid(),
            "features": features,
        }
    for (golden_mode, name), (mean, std, first, last) in GOLDEN.items():
        if golden_mode == mode:
            values = found[name].double().flatten()
            numbers = [values.mean(), values.std(), *values[:3], values[-1]]
            assert [float(n) for n in numbers] == pytest.approx([mean, std, *first, last], rel=0, abs=1e-5), name
