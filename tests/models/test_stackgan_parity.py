"""StackGAN against numbers measured by running the classes of hanzhanggit/StackGAN-Pytorch, at its widths for COCO.

Weights follow from the reference's own key names, through the prefixes by which its files are converted, so a layer of
another shape, order or place changes every number.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import agrees, fill, inputs, official_names
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.models.stackgan import StackGAN
from t2i_zoo.models.stackgan.official import OFFICIAL

FORMAT = OFFICIAL["stackgan_v1"]
COCO = {"generator_width": 192, "discriminator_width": 96}
STAGES: dict[int, dict[str, Any]] = {
    1: {"stage": 1, "image_size": 64, **COCO},
    2: {"stage": 2, "image_size": 256, "residual_blocks": 2, **COCO},
}
Key = tuple[str, int, str]

#: by mode, stage and output: mean, unbiased standard deviation, first three values, last value
GOLDEN: dict[Key, tuple[float, float, tuple[float, ...], float]] = {
    ("eval", 1, "pictures"): (0.026663, 0.112705, (-0.010317, 0.062606, 0.058475), 0.086538, -0.005654),
    ("eval", 1, "mu"): (0.415373, 0.629659, (0, 0, 0), 0, -0.178153),
    ("eval", 1, "logvar"): (0.442654, 0.630252, (0, 0, 0), 0.858331, 0.004888),
    ("eval", 1, "matched"): (0.505851, 0.018657, (0.493487, 0.517454, 0.486784), 0.525679, 0.278317),
    ("eval", 2, "pictures"): (0.012615, 0.063975, (-0.045022, 0.014031, 0.023964), -0.013646, -0.000182),
    ("eval", 2, "matched"): (0.487866, 0.021851, (0.476221, 0.491981, 0.466616), 0.516645, 0.261467),
    ("eval", 2, "alone"): (0.444520, 0.000951, (0.443583, 0.445246, 0.445426), 0.443824, 0.252548),
    ("train", 1, "pictures"): (0.085620, 0.440723, (0.416204, 0.157925, 0.180324), 0.675955, 0.059810),
    ("train", 2, "small"): (-0.063311, 0.517374, (0.305426, 0.590912, 0.509660), 0.403124, -0.123059),
    ("train", 2, "pictures"): (0.000155, 0.463637, (0.710484, 0.415691, 0.296320), -0.604378, 0.131355),
    ("train", 2, "matched"): (0.585259, 0.110585, (0.463272, 0.727980, 0.550173), 0.599612, 0.337816),
    ("train", 2, "alone"): (0.356719, 0.064201, (0.289535, 0.413955, 0.314120), 0.409265, 0.177320),
}


def build(**options: Any) -> StackGAN:
    """A model without memory for its weights."""
    with torch.device("meta"):
        return StackGAN(**options)


@pytest.fixture(scope="module")
def found() -> dict[Key, Tensor]:
    """Every output of the golden table; of the four networks only one has memory at a time."""
    text, noise, still = inputs(1, 4, 1024), inputs(2, 4, 100), torch.zeros(4, 128)
    outputs: dict[Key, Tensor] = {}
    with torch.no_grad():
        for stage, options in STAGES.items():
            network = fill(FORMAT, build(**options), "generator")
            for mode in ("eval", "train"):  # in this order: training moves the running statistics
                drawn = network.train(mode == "train")(noise, text, *[still] * stage)
                names = ("small", "pictures", "mu", "logvar")[-len(drawn) :]
                outputs |= {(mode, stage, name): tensor for name, tensor in zip(names, drawn, strict=True)}
            del network
            network = fill(FORMAT, build(**options), "discriminator")
            pictures = inputs(2 + stage, 4, 3, options["image_size"], options["image_size"]).tanh()
            for mode in ("eval", "train")[:stage]:
                features = network.train(mode == "train").features(pictures)
                outputs[mode, stage, "matched"] = network.judge(features, outputs[mode, stage, "mu"]).matched.sigmoid()
                if stage == 2:
                    outputs[mode, stage, "alone"] = network.judge_alone(features).sigmoid()
            del network
    return outputs


@pytest.mark.parametrize(("mode", "stage", "name"), GOLDEN)
def test_golden_values(found: dict[Key, Tensor], mode: str, stage: int, name: str) -> None:
    assert agrees(found[mode, stage, name], *GOLDEN[mode, stage, name])


def count(network: nn.Module) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


@pytest.mark.parametrize(
    ("options", "generator", "discriminator"),
    [
        (STAGES[1], (20_020_832, 20_020_832), 12_407_425),
        (STAGES[2], (57_151_312, 37_130_480), 159_889_538),
        ({}, (10_301_248, 10_301_248), 5_715_713),
        ({"stage": 2, "image_size": 256}, (36_591_328, 26_290_080), 71_269_122),
    ],
)
def test_parameter_counts_of_the_authors(
    options: dict[str, Any], generator: tuple[int, int], discriminator: int
) -> None:
    model = build(**options)
    assert count(model.generator) == generator
    assert count(model.discriminator) == (discriminator, discriminator)


def test_the_defaults_of_the_authors() -> None:
    own = {"stage": 1, "condition_dim": 128, "noise_dim": 100, "residual_blocks": 4, "kl_weight": 2.0, "image_size": 64}
    rates = {"learning_rate": 2e-4, "beta1": 0.5, "lr_decay": 0.5, "lr_decay_every": 600}
    quirks = {"ca_activation": "relu", "stage1_mode": "train", "sampling_noise": True, "mismatch": "shift"}
    assert dict(build().hparams).items() >= {**own, **rates, **quirks, "exclude_same_class": False}.items()


#: some of the reference's keys, with their shapes
SHAPES: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {
    ("generator", 1): {
        "ca_net.fc.weight": (256, 1024),
        "fc.0.weight": (24576, 228),
        "fc.1.running_mean": (24576,),
        "upsample1.1.weight": (768, 1536, 3, 3),
        "upsample4.2.bias": (96,),
        "img.0.weight": (3, 96, 3, 3),
    },
    ("discriminator", 1): {
        "encode_img.8.weight": (768, 384, 4, 4),
        "encode_img.9.running_var": (768,),
        "get_cond_logits.outlogits.0.weight": (768, 896, 3, 3),
        "get_cond_logits.outlogits.3.bias": (1,),
    },
    ("generator", 2): {
        "STAGE1_G.upsample3.1.weight": (192, 384, 3, 3),
        "encoder.0.weight": (192, 3, 3, 3),
        "encoder.6.weight": (768,),
        "hr_joint.0.weight": (768, 896, 3, 3),
        "residual.1.block.3.weight": (768, 768, 3, 3),
        "upsample4.1.weight": (48, 96, 3, 3),
        "img.0.weight": (3, 48, 3, 3),
    },
    ("discriminator", 2): {
        "encode_img.14.weight": (3072, 1536, 4, 4),
        "encode_img.17.weight": (1536, 3072, 3, 3),
        "encode_img.21.weight": (768,),
        "get_uncond_logits.outlogits.0.bias": (1,),
    },
}


KEYS = {("generator", 1): 33, ("discriminator", 1): 27, ("generator", 2): 103, ("discriminator", 2): 53}


@pytest.mark.parametrize(("network", "stage"), SHAPES)
def test_every_official_key_has_its_place(network: str, stage: int) -> None:
    model = build(**STAGES[stage])
    names, state = official_names(FORMAT, model, network), model.state_dict()
    assert len(names) == KEYS[network, stage]
    shapes = {theirs: tuple(state[ours].shape) for theirs, ours in names.items()}
    assert shapes.items() >= SHAPES[network, stage].items()


@pytest.mark.parametrize("stage", STAGES)
def test_official_files_say_what_they_are(stage: int) -> None:
    model = build(**STAGES[stage])
    files = {
        network: {theirs: model.state_dict()[ours] for theirs, ours in official_names(FORMAT, model, network).items()}
        for network in FORMAT.files(model.hparams)
    }
    assert list(files) == ["generator", "discriminator"]
    assert [FORMAT.identify(state) for state in files.values()] == list(files)
    assert FORMAT.identify({"ca_net.fc.weight": torch.zeros(1), "h_net1.fc.0.weight": torch.zeros(1)}) is None
    widths = {"noise_dim": 100, "condition_dim": 128, "ca_activation": "relu", "text_dim": 1024}
    assert FORMAT.options(files) == {**STAGES[stage], **widths}
    alone = FORMAT.options({"discriminator": files["discriminator"]})
    wanted = {"stage": stage, "image_size": STAGES[stage]["image_size"], "discriminator_width": 96}
    assert alone == {**wanted, "condition_dim": 128, "ca_activation": "relu"}


@pytest.mark.parametrize(("stage", "size", "official"), [(1, 128, 64), (2, 64, 256)])
def test_another_size_has_no_official_file(stage: int, size: int, official: int) -> None:
    with pytest.raises(T2IError, match=rf"found a stage {stage} of {size} px, expected {official} px"):
        official_names(FORMAT, build(stage=stage, image_size=size), "generator")
