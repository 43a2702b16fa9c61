"""``fid_dfgan``: its network maps images as the code of DM-GAN and DF-GAN does, and its scores are never called FID."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from t2i_zoo.metrics.evaluation import evaluate, seeded_noise
from t2i_zoo.metrics.networks import Network, build_network
from t2i_zoo.metrics.protocol import load_protocol
from t2i_zoo.models.dfgan import DFGAN
from t2i_zoo.pictures import truncate_noise


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build_network("inception_v3_dfgan", weights="random")


def seen_by(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """What reaches the first convolution, and the features."""
    seen: list[Tensor] = []
    assert network.vision is not None
    handle = network.vision.net.Conv2d_1a_3x3.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features, logits = network.look(images)
    handle.remove()
    assert logits is None
    return seen[0], features


def test_the_mapping_is_theirs(network: Network) -> None:
    """torchvision's own ``transform_input`` is the map that their code applies; it is meant for normalised images."""
    images = torch.rand(2, 3, 320, 320, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert network.vision is not None
    theirs = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=True, aux_logits=False)
    theirs.load_state_dict(network.vision.net.state_dict(), strict=False)  # all but the last linear layer
    theirs.fc = torch.nn.Identity()
    resized = F.interpolate((images + 1) / 2, (299, 299), mode="bilinear", align_corners=False, antialias=False)
    found, features = seen_by(network, images)
    torch.testing.assert_close(found, theirs._transform_input(resized), rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = theirs.eval()(resized)
    scale = expected.abs().max()  # random weights make them large
    torch.testing.assert_close(features / scale, expected / scale, rtol=0, atol=1e-5)
    assert features.shape == (2, 2048)


def test_the_range_that_the_network_sees(network: Network) -> None:
    for value, expected in ((-1.0, (-0.030, -0.088, -0.188)), (1.0, (0.428, 0.360, 0.262))):
        found, _ = seen_by(network, torch.full((1, 3, 299, 299), value))
        assert found.amax((0, 2, 3)).tolist() == pytest.approx(expected, abs=1e-6)
        assert found.amin((0, 2, 3)).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_score_by_the_protocol(network: Network, flowers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    text = {"kind": "hashing", "dim": 16}
    model = DFGAN(image_size=16, noise_dim=4, text_encoder=text, generator_width=2, discriminator_width=2).eval()
    protocol, given = load_protocol("fid_dfgan").change(images=4, metrics={"frechet_distance": {"groups": 2}}), []
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda *a, noise, **options: given.append(noise) or generate(*a, noise=noise, **options)
    )
    (score,) = evaluate(protocol, flowers, model, network).scores
    assert score.label == "inception_v3_dfgan Frechet distance"
    assert score.value > 0
    plain = seeded_noise(model, [0, 1, 2, 3], 0)
    torch.testing.assert_close(torch.cat(given), 0.88 * truncate_noise(plain, 2.0))  # as ``sample --truncation 0.88``
