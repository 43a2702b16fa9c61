"""DM-GAN against numbers measured by running the authors' classes: images, attention, and discriminators in order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import agrees, fill, inputs, official_names, read_text
from torch import Tensor

from t2i_zoo.models.dmgan import DMGAN
from t2i_zoo.models.dmgan.networks import DynamicMemory
from t2i_zoo.models.dmgan.official import OFFICIAL
from t2i_zoo.nn import JointDiscriminator, Logits, discriminator_loss

#: the widths for birds, and narrow ones
WIDTHS: dict[str, dict[str, Any]] = {
    "A": {},
    "B": {"generator_width": 8, "discriminator_width": 8, "residual_blocks": 1},
}
#: by widths, mode, mask and output: mean, unbiased standard deviation, first values, last value
GOLDEN: dict[tuple[str, str, str, str], tuple[Any, ...]] = {
    ("A", "eval", "fixed", "img0"): (-0.038796, 0.081795, (-0.119275, -0.078370, -0.097319), -0.013448, -0.000875),
    ("A", "eval", "legacy", "img1"): (0.004200, 0.023723, (0.009052, -0.011549, -0.003310), 0.056174, 0.000073),
    ("A", "eval", "legacy", "img2"): (0.049703, 0.110326, (0.128162, 0.100171, 0.104058), -0.005781, -0.001163),
    ("A", "eval", "fixed", "img1"): (0.004269, 0.023953, (0.009240, -0.011388, -0.002938), 0.056361, 0.000061),
    ("A", "eval", "fixed", "img2"): (0.049474, 0.110589, (0.128582, 0.100569, 0.104882), -0.006094, -0.001154),
    ("A", "eval", "fixed", "att0"): (0.111111, 0.097591, (0.111143, 0.111212, 0.111254), 0.0, -0.000709),
    ("A", "eval", "fixed", "att1"): (0.111111, 0.097591, (0.111235, 0.111142, 0.111067), 0.0, 0.000207),
    ("A", "train", "legacy", "img0"): (-0.009719, 0.431891, (-0.148775, -0.067145, -0.113040), -0.034551, 0.025791),
    ("A", "train", "legacy", "img1"): (0.022274, 0.415780, (-0.126537, -0.126163, -0.066330), 0.019971, -0.050079),
    ("A", "train", "legacy", "img2"): (0.003612, 0.378650, (0.049608, 0.124150, 0.137319), 0.039231, -0.025151),
    ("A", "train", "fixed", "img1"): (0.022315, 0.415806, (-0.125563, -0.124585, -0.065235), 0.022289, -0.049377),
    ("A", "train", "fixed", "img2"): (0.003605, 0.378655, (0.050854, 0.124694, 0.137969), 0.039889, -0.025046),
    ("B", "eval", "fixed", "img0"): (0.018998, 0.022522, (-0.025133, -0.028698, -0.030477), 0.010215, 0.000165),
    ("B", "eval", "fixed", "img1"): (-0.002239, 0.023999, (-0.009041, -0.062195, -0.060020), 0.044133, 0.000072),
    ("B", "eval", "fixed", "img2"): (-0.043030, 0.049170, (0.061401, 0.115079, 0.090583), 0.018236, -0.000126),
    ("B", "train", "fixed", "img1"): (-0.021769, 0.420003, (-0.098856, -0.166225, -0.213523), 0.039505, -0.000464),
    ("B", "train", "fixed", "img2"): (0.024578, 0.298721, (-0.049481, 0.006768, 0.060523), 0.040595, -0.007471),
}
#: by widths, one row per size: mean and deviation of the features of real images, and their first values; the first
#: probabilities of real images with their text, alone, of generated ones, and the three mismatched ones; the loss
JUDGED: dict[str, list[tuple[tuple[float, ...], ...]]] = {
    "A": [
        (
            (0.047945, 0.110998, 0.262791, 0.174561, 0.100026), (0.502750, 0.505244, 0.505792),
            (0.506088, 0.481853, 0.518924), (0.505262, 0.517744, 0.499736), (0.505787, 0.504793, 0.512744), (1.386414,),
        ),
        (
            (0.038805, 0.087155, -0.017478, 0.017769, -0.003133), (0.500435, 0.507744, 0.508906),
            (0.502448, 0.494938, 0.509945), (0.502437, 0.503921, 0.505635), (0.505205, 0.508361, 0.514005), (1.389528,),
        ),
        (
            (0.041836, 0.084441, -0.011250, -0.013732, -0.014388), (0.517994, 0.519349, 0.518697),
            (0.466551, 0.462243, 0.463811), (0.519385, 0.522895, 0.520332), (0.520565, 0.517392, 0.521248), (1.409548,),
        ),
    ],
    "B": [
        (
            (0.068911, 0.122205, 0.274732, 0.096449, 0.268829), (0.499871, 0.501669, 0.508901),
            (0.570454, 0.520927, 0.537422), (0.510249, 0.507027, 0.507503), (0.503882, 0.499593, 0.515245), (1.379493,),
        ),
        (
            (0.034868, 0.088889, -0.016048, -0.034001, -0.025355), (0.501219, 0.507175, 0.502490),
            (0.466757, 0.469987, 0.475302), (0.507619, 0.507446, 0.507306), (0.502758, 0.504552, 0.509019), (1.400093,),
        ),
        (
            (0.035474, 0.070629, -0.031072, -0.048340, -0.047244), (0.516412, 0.515706, 0.514249),
            (0.480285, 0.483818, 0.481438), (0.513009, 0.514324, 0.512985), (0.517297, 0.514216, 0.518656), (1.402823,),
        ),
    ],
}  # fmt: skip
FORMAT = OFFICIAL["dmgan"]
Outputs = dict[tuple[str, str, str, str], Tensor]


def build(**options: Any) -> DMGAN:
    """A model without memory for its weights."""
    with torch.device("meta"):
        return DMGAN(text_encoder={"kind": "hashing", "dim": 256}, damsm_weight=0.0, **options)


@pytest.fixture(scope="module")
def text() -> tuple[Tensor, Tensor, Tensor]:
    return read_text()


@pytest.fixture(scope="module")
def drawn(text: tuple[Tensor, Tensor, Tensor]) -> Outputs:
    """Every output of the generators' table, and the fakes that the discriminators judge."""
    outputs: Outputs = {}
    noise, still, (sentence, *words) = inputs(2, 4, 100), torch.zeros(4, 100), text
    for widths, options in WIDTHS.items():
        generator = fill(FORMAT, build(**options), "generator")
        for mode, mask in (("eval", "fixed"), ("eval", "legacy"), ("train", "legacy"), ("train", "fixed")):
            generator.train(mode == "train")
            for module in generator.modules():
                if isinstance(module, DynamicMemory):
                    module.legacy_mask = mask == "legacy"
            with torch.no_grad():
                images, extras = generator(noise, sentence, still, *words)
            outputs |= {(widths, mode, mask, f"img{i}"): image for i, image in enumerate(images)}
            outputs |= {(widths, mode, mask, f"att{i}"): extras[f"attention_{i}"] for i in range(2)}
            outputs[widths, mode, mask, "mu"] = extras["mu"]
    return outputs


@pytest.mark.parametrize("key", GOLDEN, ids="-".join)
def test_golden_images(drawn: Outputs, key: tuple[str, str, str, str]) -> None:
    assert agrees(drawn[key], *GOLDEN[key])


def test_the_condition_is_attngans(drawn: Outputs) -> None:
    assert float(drawn["A", "eval", "fixed", "mu"].mean()) == pytest.approx(-0.002047, abs=1e-5)


@pytest.mark.parametrize("widths", WIDTHS)
def test_golden_discriminators(drawn: Outputs, text: tuple[Tensor, Tensor, Tensor], widths: str) -> None:
    """Each forward takes a step of the power iteration, so that their order is part of what is compared."""
    sentence = text[0]
    for i, row in enumerate(JUDGED[widths]):
        judge = fill(FORMAT, build(**WIDTHS[widths]), f"discriminator.{i}").train()
        assert isinstance(judge, JointDiscriminator)
        size, fakes = 64 * 2**i, drawn[widths, "train", "legacy", f"img{i}"]
        with torch.no_grad():
            real, fake = judge.features(inputs(3 + i, 4, 3, size, size).tanh()), judge.features(fakes)
            matched = [judge.judge(*pair).matched for pair in ((real, sentence), (fake, sentence))]
            wrong = judge.judge(real[:-1], sentence[1:])
            first, last = Logits(matched[0], judge.judge_alone(real)), Logits(matched[1], judge.judge_alone(fake))
            loss = discriminator_loss(first, wrong, last, against=first.rows(slice(-1)))["loss"]
        found = [
            torch.cat([real.mean().view(1), real.std().view(1), real.flatten()[:3]]),
            *(x.sigmoid()[:3] for x in (first.matched, first.unconditional, last.matched, wrong.matched)),
            loss.view(1),
        ]
        for values, golden in zip(found, row, strict=True):
            assert values.tolist() == pytest.approx(golden, rel=0, abs=1e-5), (widths, i)


@pytest.mark.parametrize(
    ("options", "network", "parameters", "keys"),
    [
        ({}, "generator", 21_449_042, 119),
        ({}, "discriminator.0", 1_887_218, 24),
        ({}, "discriminator.1", 5_174_258, 32),
        ({}, "discriminator.2", 18_301_938, 40),
        ({"residual_blocks": 3}, "generator", 22_335_314, 143),
    ],
)
def test_published_sizes(options: dict[str, Any], network: str, parameters: int, keys: int) -> None:
    model = build(**options)
    state = model.get_submodule(network).state_dict()
    norms = ("running_mean", "running_var", "num_batches_tracked")
    assert sum(t.numel() for key, t in state.items() if not key.endswith(norms)) == parameters
    assert keys in (len(state), sum(not key.endswith("num_batches_tracked") for key in state))
    assert len(official_names(FORMAT, model, network)) == len(state)


def test_trainable_sizes() -> None:
    counted = [sum(p.numel() for p in one.parameters() if p.requires_grad) for one in build().discriminator]
    assert counted == [1_878_242, 5_155_810, 18_264_546]


def test_official_names_of_the_parts_that_differ() -> None:
    found = official_names(FORMAT, build(), "generator")
    assert found["h_net2.A.weight"] == "generator.stages.0.memory.gate_word.weight"
    assert found["h_net3.M_r.0.bias"] == "generator.stages.1.memory.write_image.bias"
    assert found["h_net3.response_gate.0.weight"] == "generator.stages.1.memory.respond.weight"
    found = official_names(FORMAT, build(), "discriminator.2")
    assert found["img_code_s64_2.0.module.bias"] == "discriminator.2.trunk.4.0.bias"
    assert found["img_code_s16.6.module.weight_bar"].endswith("2.trunk.0.6.parametrizations.weight.original")
    assert found["COND_DNET.jointConv.0.module.weight_u"].endswith("2.heads.joint.0.parametrizations.weight.0.u")
