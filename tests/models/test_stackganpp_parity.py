"""StackGAN++ against numbers measured by running the classes of hanzhanggit/StackGAN-v2, at its widths for birds.

Weights follow from the reference's own key names, through the prefixes by which its files are converted, so a layer of
another shape, order or place changes every number.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import agrees, fill, inputs, official_names
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.models.stackganpp import StackGANPlusPlus, losses
from t2i_zoo.models.stackganpp.official import OFFICIAL
from t2i_zoo.nn import kl_to_normal

FORMAT = OFFICIAL["stackgan_v2"]
SIZES = (64, 128, 256)

#: mean, unbiased standard deviation, first three values, last value; None where only the first two are known
GOLDEN: dict[tuple[str, str], tuple[float, float, tuple[float, ...] | None, float | None]] = {
    ("eval", "images 64"): (-0.036399, 0.082043, (-0.119835, -0.082795, -0.098983), -0.011137, 0.000763),
    ("eval", "images 128"): (-0.127331, 0.072481, (-0.021543, -0.090639, -0.069224), -0.062417, 0.000385),
    ("eval", "images 256"): (0.193305, 0.343826, (-0.097897, -0.149423, -0.086758), -0.040151, -0.002571),
    ("eval", "mu"): (0.007023, 0.553169, (-0.182965, -0.185785, -0.499023), -0.024119, -0.265161),
    ("eval", "logvar"): (0.031053, 0.550363, (-0.369454, -0.211651, -0.285209), 0.547016, -0.312914),
    ("eval", "matched 64"): (0.516209, 0.043080, (0.551793, 0.530747, 0.453504), 0.528792, 0.305366),
    ("eval", "matched 128"): (0.537987, 0.032188, None, None),
    ("eval", "matched 256"): (0.513483, 0.039012, None, None),
    ("eval", "unconditional 64"): (0.455958, 0.006148, (0.447078, 0.459844, 0.460324), 0.456584, 0.256878),
    ("eval", "unconditional 128"): (0.507720, 0.005182, None, None),
    ("eval", "unconditional 256"): (0.512398, 0.001493, None, None),
    ("train", "images 64"): (-0.000030, 0.433503, (-0.048559, -0.197112, -0.115863), -0.085104, -0.033144),
    ("train", "images 128"): (-0.017883, 0.438527, (0.157710, 0.299179, 0.359550), -0.080632, -0.034222),
    ("train", "images 256"): (0.068530, 0.466876, (0.192260, 0.247629, 0.031363), -0.024706, -0.015054),
    ("train", "matched 64"): (0.506090, 0.128188, (0.546703, 0.506154, 0.332747), 0.638754, 0.241913),
    ("train", "unconditional 64"): (0.599080, 0.030549, (0.577401, 0.617103, 0.632516), 0.569299, 0.352705),
}


def build(**options: Any) -> StackGANPlusPlus:
    """A model without memory for its weights."""
    with torch.device("meta"):
        return StackGANPlusPlus(**options)


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Tensor]:
    """Every output of the golden table."""
    outputs: dict[tuple[str, str], Tensor] = {}
    with torch.no_grad():
        model = build()
        generator = fill(FORMAT, model, "generator")
        text, noise, still = inputs(1, 4, 1024), inputs(2, 4, 100), torch.zeros(4, 128)
        for mode in ("eval", "train"):  # in this order: training moves the running statistics
            images, extras = generator.train(mode == "train")(noise, text, still)
            outputs |= {(mode, f"images {size}"): tensor for size, tensor in zip(SIZES, images, strict=True)}
            outputs |= {(mode, name): tensor for name, tensor in extras.items()}
        for i, size in enumerate(SIZES):
            discriminator = fill(FORMAT, model, f"discriminator.{i}")
            pictures = inputs(3 + i, 4, 3, size, size).tanh()
            for mode in ("eval", "train") if size == 64 else ("eval",):
                logits = discriminator.train(mode == "train")(pictures, outputs["eval", "mu"])
                outputs |= {
                    (mode, f"{head} {size}"): value.sigmoid()
                    for head, value in logits._asdict().items()
                    if value is not None
                }
            discriminator.to("meta")
    return outputs


@pytest.mark.parametrize(("mode", "name"), GOLDEN, ids=lambda value: str(value).replace(" ", "_"))
def test_golden_values(found: dict[tuple[str, str], Tensor], mode: str, name: str) -> None:
    assert agrees(found[mode, name], *GOLDEN[mode, name])


def test_golden_losses() -> None:
    assert float(kl_to_normal(inputs(5, 4, 128), inputs(6, 4, 128))) == pytest.approx(0.7767373, abs=1e-6)
    mean, covariance = losses.colour_consistency(inputs(5, 4, 3, 256, 256).tanh(), inputs(4, 4, 3, 128, 128).tanh())
    assert float(mean) == pytest.approx(4.666209e-05, rel=1e-4)
    assert float(covariance) == pytest.approx(1.147206e-05, rel=1e-4)


# The files of the authors -------------------------------------------------------------------------------------------

#: of each network some keys and shapes as the authors' files have them, and the number of all keys
KEYS: dict[str, tuple[int, dict[str, tuple[int, ...]]]] = {
    "generator": (107, {
        "ca_net.fc.weight": (512, 1024), "h_net1.fc.0.weight": (32768, 228), "h_net1.fc.1.running_var": (32768,),
        "h_net1.upsample1.1.weight": (1024, 1024, 3, 3), "h_net1.upsample4.2.bias": (128,),
        "img_net1.img.0.weight": (3, 64, 3, 3), "h_net2.jointConv.0.weight": (128, 192, 3, 3),
        "h_net2.residual.1.block.0.weight": (128, 64, 3, 3), "h_net2.residual.1.block.4.running_mean": (64,),
        "h_net2.upsample.1.weight": (64, 64, 3, 3), "h_net3.jointConv.0.weight": (64, 160, 3, 3),
        "h_net3.residual.0.block.3.weight": (32, 32, 3, 3), "h_net3.upsample.2.weight": (32,),
        "img_net3.img.0.weight": (3, 16, 3, 3),
    }),
    "discriminator.0": (29, {
        "img_code_s16.0.weight": (64, 3, 4, 4), "img_code_s16.8.weight": (512, 256, 4, 4), "logits.0.bias": (1,),
        "jointConv.0.weight": (512, 640, 3, 3), "jointConv.1.weight": (512,), "uncond_logits.0.weight": (1, 512, 4, 4),
    }),
    "discriminator.1": (41, {
        "img_code_s16.9.running_mean": (512,), "img_code_s32.0.weight": (1024, 512, 4, 4),
        "img_code_s32_1.0.weight": (512, 1024, 3, 3), "img_code_s32_1.1.weight": (512,),
    }),
    "discriminator.2": (53, {
        "img_code_s32.1.bias": (1024,), "img_code_s64.0.weight": (2048, 1024, 4, 4),
        "img_code_s64_1.0.weight": (1024, 2048, 3, 3), "img_code_s64_2.0.weight": (512, 1024, 3, 3),
    }),
}  # fmt: skip


def official(model: StackGANPlusPlus, network: str) -> dict[str, Tensor]:
    """One network as a state dict of the authors."""
    own = model.state_dict()
    return {theirs: own[ours] for theirs, ours in official_names(FORMAT, model, network).items()}


@pytest.mark.parametrize("network", KEYS)
def test_official_names(network: str) -> None:
    number, shapes = KEYS[network]
    found = official(build(), network)
    assert len(found) == number
    assert {key: tuple(found[key].shape) for key in shapes} == shapes
    assert FORMAT.identify(found) == network


def test_official_names_without_text() -> None:
    model = build(text_encoder="none")
    found = {network: official(model, network) for network in KEYS}
    assert {network: len(state) for network, state in found.items()} == {
        **{"generator": 105, "discriminator.0": 21, "discriminator.1": 33, "discriminator.2": 45}
    }
    assert found["generator"]["h_net2.jointConv.0.weight"].shape == (128, 164, 3, 3)
    assert found["discriminator.0"]["logits.0.weight"].shape == (1, 512, 4, 4)
    assert [FORMAT.identify(state) for state in found.values()] == list(KEYS)


@pytest.mark.parametrize(
    "options",
    [
        {"generator_width": 16, "discriminator_width": 2, "condition_dim": 6, "noise_dim": 10},
        {
            "generator_width": 32,
            "branches": 4,
            "image_size": 512,
            "residual_blocks": 0,
            "late_residual_blocks": 1,
            "discriminator_width": 1,
        },
        {"text_encoder": "none", "generator_width": 8, "noise_dim": 7, "discriminator_width": 2},
        {"branches": 1, "image_size": 64, "discriminator_width": 2},
    ],
)
def test_options_are_read_from_shapes(options: dict[str, Any]) -> None:
    model = build(**options)
    networks = list(FORMAT.files(model.hparams))
    found = FORMAT.options({network: official(model, network) for network in networks})
    wanted = {"branches": 3, "image_size": 256, **options}
    assert found.pop("text_dim") == model.text_encoder.dim
    wanted.pop("text_encoder", None)
    assert {key: found[key] for key in wanted} == wanted
    assert all(model.hparams[key] == value for key, value in found.items())
    one = FORMAT.options({"discriminator.0": official(model, "discriminator.0")})
    assert one["discriminator_width"] == options["discriminator_width"]
    assert ("text_dim" in one) is ("text_encoder" in options)
    assert one.get("condition_dim", model.hparams["condition_dim"]) == model.hparams["condition_dim"]


def test_other_papers_are_not_taken_for_this_one() -> None:
    empty = torch.empty(0)
    attngan = ["h_net1.upsample4.1.weight", "img_net1.img.0.weight", "h_net2.att.conv_context.weight"]
    assert FORMAT.identify(dict.fromkeys(attngan, empty)) is None
    assert FORMAT.identify(dict.fromkeys(["img_code_s16.8.weight", "COND_DNET.outlogits.0.weight"], empty)) is None
    assert FORMAT.identify({"encode_img.0.weight": empty}) is None


def test_other_first_branches_have_no_place_in_the_files() -> None:
    with pytest.raises(T2IError, match=r"first branch has 16 px, expected 64 px"):
        official(build(image_size=64), "generator")
