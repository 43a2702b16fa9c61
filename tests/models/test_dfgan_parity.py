"""DF-GAN against numbers measured by running both codes of tobran/DF-GAN.

Weights follow from the reference's own key names, through the prefixes by which its files are converted, so a layer of
another shape, order or place changes every number. The discriminator's unused shortcuts have no weights here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from golden import agrees, fill, inputs
from torch import Tensor, nn

from t2i_zoo.models.dfgan import DFGAN
from t2i_zoo.models.dfgan.official import OFFICIAL
from t2i_zoo.nn import squared_gradients
from t2i_zoo.text import TextFeatures

TEXT = {"kind": "hashing", "dim": 256}
NETWORKS = {"dfgan": ("generator", "discriminator.trunk", "discriminator.joint"),
            "dfgan_preprint": ("generator", "discriminator")}  # fmt: skip


class Case(NamedTuple):
    """A model with the recipe's weights, in a training step on the recipe's batch of four."""

    model: DFGAN
    batch: Any
    fakes: Any


def build(name: str, width: int, size: int) -> DFGAN:
    variant: Any = "preprint" if name == "dfgan_preprint" else "cvpr"
    widths = {"generator_width": width, "discriminator_width": width}
    return DFGAN(variant=variant, image_size=size, text_encoder=TEXT, **widths)


def case(name: str, width: int, size: int) -> Case:
    model = build(name, width, size)
    for network in NETWORKS[name]:
        fill(OFFICIAL[name], model, network)
    text, noise = TextFeatures(inputs(1, 4, 256)), inputs(2, 4, 100)
    batch = {
        "images": [inputs(3, 4, 3, size, size).tanh()],
        "text": text,
        "captions": ["a flower"] * 4,
        "labels": torch.zeros(4, dtype=torch.int64),
    }
    return Case(model, batch, model.draw(model.generator, noise, text))


@pytest.fixture(scope="module", params=[(32, 256), (8, 64)], ids=["nf32_256", "nf8_64"])
def cvpr(request: pytest.FixtureRequest) -> Any:
    return request.param, case("dfgan", *request.param)


@pytest.fixture(scope="module")
def preprint() -> Case:
    return case("dfgan_preprint", 8, 256)


#: mean, unbiased standard deviation, first three values, last value
OUTPUTS: dict[tuple[int, int], dict[str, tuple[float, float, tuple[float, ...], float]]] = {
    (32, 256): {
        "fake": (-0.038147, 0.673076, (-0.610912, -0.268504, -0.256018), 0.392626, -0.008408),
        "features of real": (-0.006604, 0.208336, (0.099292, 0.077983, 0.100602), 0.230434, 0.188242),
        "features of fake": (-0.017829, 0.816395, (-0.503730, -0.941825, -1.118212), -0.600853, 0.006760),
    },
    (8, 64): {
        "fake": (0.040284, 0.539606, (0.039595, 0.240506, 0.199360), -0.094654, 0.027962),
        "features of real": (-0.053908, 0.228733, (0.072684, 0.107715, 0.136288), -0.193755, -0.346506),
        "features of fake": (-0.034024, 0.694193, (0.827316, 0.074150, 0.953571), -1.471083, -0.202115),
    },
}
#: mean, first three and last of the logits of real, mismatched and generated pairs
LOGITS: dict[tuple[int, int], dict[str, tuple[float, tuple[float, ...], float]]] = {
    (32, 256): {
        "real": (-0.119712, (0.203258, -0.440686, 0.355127), -0.596546),
        "mismatched": (-0.118903, (0.195939, -0.441520, 0.353506), -0.583537),
        "fake": (-0.255239, (0.001283, -0.597927, 0.274263), -0.698576),
    },
    (8, 64): {
        "real": (-0.051457, (0.250026, -0.189469, -0.691912), 0.425525),
        "mismatched": (-0.058589, (0.237902, -0.210782, -0.698269), 0.436792),
        "fake": (-0.117579, (0.093106, -0.099482, -0.686502), 0.222562),
    },
}
LOSSES: dict[tuple[int, int], dict[str, float]] = {
    (32, 256): {"real": 1.119712, "wrong": 0.881097, "fake": 0.744761, "generator": 0.255239, "all": 1.941821},
    (8, 64): {"real": 1.051457, "wrong": 0.941410, "fake": 0.882421, "generator": 0.117579, "all": 1.983939},
}
#: norms of each sample, image and sentence part of the first, value, gradient norms over trunk and joint
PENALTY: dict[tuple[int, int], tuple[tuple[float, ...], float, float, float, float, float]] = {
    (32, 256): ((0.359922, 0.451663, 0.378807, 0.409895), 0.006732, 0.359859, 9.18054e-3, 3.59683e-5, 0.264862),
    (8, 64): ((0.349779, 0.459267, 0.530747, 0.443067), 0.017481, 0.349342, 2.056647e-2, 3.69506e-4, 0.632252),
}
#: norm of the gradient over trunk and joint, and over the generator, with the first three of its first layer
GRADIENTS: dict[tuple[int, int], dict[str, Any]] = {
    (32, 256): {
        **{"trunk": 1.904994, "joint": 9.262408, "stem": (0.005990, 0.006021, 0.005832)},
        **{"generator": 6.730227, "project": (-5.91804e-4, -2.02965e-4, 5.17543e-4)},
    },
    (8, 64): {
        **{"trunk": 0.233513, "joint": 3.033022, "stem": (-0.003260, -0.003308, -0.003442)},
        **{"generator": 2.471625, "project": (-1.473e-3, -5.11214e-4, 1.953e-3)},
    },
}
#: with every gamma of the discriminator at 1: logits, parts of images and of sentences, norms, value, gradient norms
GAMMA_1: dict[tuple[int, int], tuple[Any, ...]] = {
    (8, 64): (
        (0.232615, -0.263328, -0.672285, 0.418690), (0.064263, 0.072266, 0.074575, 0.070477),
        (0.323407, 0.487351, 0.530275, 0.447583), (0.329730, 0.492680, 0.535493, 0.453098),
        2.390923e-2, 5.074245e-3, 0.703878,
    ),
    (8, 128): (
        (0.175507, -0.344490, -0.720523, 0.309446), (0.044213, 0.048668, 0.051655, 0.048514),
        (0.330251, 0.449452, 0.523919, 0.417722), (0.333197, 0.452079, 0.526459, 0.420530),
        1.836316e-2, 2.048490e-3, 0.561712,
    ),
    (32, 256): (
        (0.530989, -0.323272, 0.529886, -0.391400), (0.049000, 0.049442, 0.045258, 0.049227),
        (0.393889, 0.432182, 0.364515, 0.422515), (0.396925, 0.435001, 0.367314, 0.425373),
        9.533102e-3, 1.314348e-3, 0.297137,
    ),
}  # fmt: skip


def near(values: Any, abs: float = 1e-5) -> Any:
    return pytest.approx(values, rel=1e-5, abs=abs)


def norms_over(loss: Tensor, *networks: nn.Module) -> list[float]:
    """Norm of a loss's gradient over all parameters of each network, which it leaves in their ``grad``."""
    for network in networks:
        network.zero_grad()
    loss.backward(inputs=[p for network in networks for p in network.parameters()])
    gradients = [[p.grad for p in network.parameters() if p.grad is not None] for network in networks]
    return [float(nn.utils.get_total_norm(found)) for found in gradients]


def parts(found: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of real pairs, and the gradient norms (B,) of their images and of their sentences."""
    image = found.batch["images"][0].clone().requires_grad_()
    sentence = found.batch["text"].sentence.clone().requires_grad_()
    logits = found.model.discriminator(image, sentence).matched
    squares = squared_gradients(logits, [image, sentence])
    return logits.detach(), squares[0].detach().sqrt(), squares[1].detach().sqrt()


def test_outputs(cvpr: Any) -> None:
    key, (model, batch, fakes) = cvpr
    found = {
        "fake": fakes.images[0],
        "features of real": model.discriminator.features(batch["images"][0]),
        "features of fake": model.discriminator.features(fakes.images[0]),
    }
    assert {name: agrees(found[name].detach(), *values) for name, values in OUTPUTS[key].items()} == dict.fromkeys(
        found, True
    )


def test_logits(cvpr: Any) -> None:
    key, (model, batch, fakes) = cvpr
    text, judged = fakes.text.sentence, model.observe(batch["images"], real=True)
    found = {
        "real": judged.judge(text),
        "mismatched": judged.judge(text, torch.tensor([1, 2, 3, 0])),
        "fake": model.observe(fakes.images, real=False).judge(text),
    }
    for name, (mean, first, last) in LOGITS[key].items():
        logits = found[name][0].matched.detach()
        assert [float(logits.mean()), *logits[:3].tolist(), float(logits[-1])] == near([mean, *first, last]), name


def test_losses_and_their_gradients(cvpr: Any) -> None:
    key, (model, batch, fakes) = cvpr
    wanted, gradients = LOSSES[key], GRADIENTS[key]
    terms = model.discriminator_loss(batch, fakes.detach())
    penalty = model.discriminator_penalty(batch, fakes.detach())
    assert [terms[name].item() for name in ("real", "wrong", "fake")] == near(
        [wanted[name] for name in ("real", "wrong", "fake")]
    )
    loss = terms["loss"] + penalty["loss"]
    assert loss.item() == near(wanted["all"])
    trunk, joint = model.discriminator.trunk, model.discriminator.joint
    assert norms_over(loss, trunk, joint) == near([gradients["trunk"], gradients["joint"]])
    assert trunk.stem.weight.grad.flatten()[:3].tolist() == near(gradients["stem"])
    loss = model.generator_loss(batch, fakes)["loss"]
    assert loss.item() == near(wanted["generator"])
    assert norms_over(loss, model.generator) == near([gradients["generator"]])
    assert model.generator.project.weight.grad.flatten()[:3].tolist() == near(gradients["project"], 1e-6)


def test_the_penalty(cvpr: Any) -> None:
    key, found = cvpr
    norms, image, sentence, value, trunk, joint = PENALTY[key]
    _, images, sentences = parts(found)
    assert torch.hypot(images, sentences).tolist() == near(norms)
    assert [float(images[0]), float(sentences[0])] == near([image, sentence])
    penalty = found.model.discriminator_penalty(found.batch, found.fakes.detach())
    assert penalty["matching"].item() == near(value, 1e-8)
    networks = (found.model.discriminator.trunk, found.model.discriminator.joint)
    assert norms_over(penalty["loss"], *networks) == near([trunk, joint], 1e-9)


@pytest.mark.parametrize("key", GAMMA_1, ids=str)
def test_with_residuals_in_the_discriminator(key: tuple[int, int]) -> None:
    logits, images, sentences, norms, value, trunk, joint = GAMMA_1[key]
    found = case("dfgan", *key)
    for block in found.model.discriminator.trunk.blocks:
        nn.init.ones_(block.gamma)
    ours = parts(found)
    assert [tensor.tolist() for tensor in ours] == [near(values) for values in (logits, images, sentences)]
    assert torch.hypot(*ours[1:]).tolist() == near(norms)
    penalty = found.model.discriminator_penalty(found.batch, found.fakes.detach())
    assert penalty["loss"].item() == near(value, 1e-8)
    networks = (found.model.discriminator.trunk, found.model.discriminator.joint)
    assert norms_over(penalty["loss"], *networks) == near([trunk, joint], 1e-9)


def test_the_preprint(preprint: Case) -> None:
    model, batch, fakes = preprint
    sentence = batch["text"].sentence
    judged = model.observe(batch["images"], real=True)
    logits = judged.judge(sentence)[0].matched.detach()
    first, last = (0.066890, 0.106359, 0.105352), -0.952727
    assert agrees(fakes.images[0].detach(), -0.025846, 0.636588, first, last, 0.001882)
    features = judged.features[0].detach()
    assert agrees(features, -0.002549, 0.242813, (0.419949, 0.411809, 0.409190), 0.328085, 0.060611)
    assert agrees(logits, 0.044809, 0.539274, (-0.030082, -0.689356, 0.466044), 0.432629, -0.456895)
    mismatched = judged.judge(sentence[1:], slice(3))[0].matched.detach()
    assert float(mismatched.mean()) == near(0.069290)
    penalty = model.discriminator_penalty(batch, fakes.detach())
    assert penalty["matching"].item() == near(4.21916e-2, 1e-7)
    assert torch.hypot(*parts(preprint)[1:]).tolist() == near([0.459913, 0.547250, 0.575210, 0.477399])


# Sizes of the published networks --------------------------------------------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("size", "generator", "trunk"),
    [(64, 4_868_867, 3_210_820), (128, 7_306_499, 4_915_013), (256, 9_744_131, 6_619_206)],
)
def test_parameters(size: int, generator: int, trunk: int) -> None:
    """Those of the sheet's table, whose discriminators count the 1 x 1 convolutions that they never use."""
    with torch.device("meta"):
        model = build("dfgan", 32, size)
    unused = OFFICIAL["dfgan"].unused("discriminator.trunk", model.hparams)
    assert count(model.generator) == generator
    assert count(model.discriminator.trunk) + sum(torch.Size(shape).numel() for shape in unused.values()) == trunk
    assert count(model.discriminator.joint) == 295_936
    assert sum(torch.Size(shape).numel() for shape in unused.values()) == 65_792 * (size.bit_length() - 6)


def test_parameters_of_the_preprint() -> None:
    with torch.device("meta"):
        model = build("dfgan_preprint", 32, 256)
    unused = OFFICIAL["dfgan_preprint"].unused("discriminator", model.hparams)
    assert count(model.generator) == 12_240_010
    assert count(model.discriminator) + sum(torch.Size(shape).numel() for shape in unused.values()) == 20_170_566
