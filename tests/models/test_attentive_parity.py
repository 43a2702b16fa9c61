"""AttnGAN, MirrorGAN and STREAM against numbers measured by running the authors' classes, at their widths for birds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from golden import LENGTHS, agrees, fill, inputs, numbers, official_names, read_text, recipe
from torch import Tensor, nn

from t2i_zoo.batch import Fakes
from t2i_zoo.models import model_class
from t2i_zoo.models.attentive import AttentiveGAN
from t2i_zoo.models.attngan.official import OFFICIAL as ATTNGAN
from t2i_zoo.models.mirrorgan.official import OFFICIAL as MIRRORGAN
from t2i_zoo.models.stream.losses import caption_loss
from t2i_zoo.models.stream.networks import Writer
from t2i_zoo.nn import JointDiscriminator, WordAttention
from t2i_zoo.text import TextFeatures

FORMATS = {"attngan": ATTNGAN["attngan"], "mirrorgan": MIRRORGAN["mirrorgan"]}
SIZES = (64, 128, 256)

#: by model, mode, mask and output: mean, unbiased standard deviation, first values, last value
GOLDEN: dict[tuple[str, str, str, str], tuple[Any, ...]] = {
    ("attngan", "eval", "fixed", "img0"): (-0.030903, 0.054280, (-0.097086, -0.076765, -0.066439), -0.020039, 0.000324),
    ("attngan", "eval", "fixed", "mu"): (-0.002047, 0.062557, (-0.067976, 0.014001, 0.008125), 0.003237, -0.053020),
    ("attngan", "eval", "legacy", "img1"): (
        -0.103341,
        0.065434,
        (-0.101840, -0.172592, -0.159203),
        -0.043503,
        0.000169,
    ),
    ("attngan", "eval", "legacy", "img2"): (-0.061340, 0.107047, (-0.016743, 0.030136, 0.031769), -0.077008, -0.001877),
    ("attngan", "eval", "fixed", "img1"): (-0.103119, 0.066334, (-0.103103, -0.174828, -0.162706), -0.042755, 0.000094),
    ("attngan", "eval", "fixed", "img2"): (-0.065623, 0.110371, (-0.016774, 0.030865, 0.033784), -0.078851, -0.001902),
    ("attngan", "eval", "legacy", "att0"): (0.111111, 0.097595, (0.111921, 0.143794, 0.201177), 0.0, -0.001812),
    ("attngan", "eval", "fixed", "att0"): (0.111111, 0.097597, (0.111921, 0.112133, 0.112172), 0.0, -0.000693),
    ("attngan", "train", "legacy", "img0"): (-0.018814, 0.414772, (0.014390, -0.082926, 0.102184), -0.155948, 0.131441),
    ("attngan", "train", "legacy", "img1"): (
        -0.041258,
        0.418124,
        (0.066816, -0.032031, -0.032845),
        -0.049021,
        -0.016747,
    ),
    ("attngan", "train", "legacy", "img2"): (0.006950, 0.415195, (0.030393, 0.063142, 0.083764), 0.026481, 0.045085),
    ("mirrorgan", "eval", "legacy", "img0"): (
        -0.030903,
        0.054280,
        (-0.097086, -0.076765, -0.066439),
        -0.020039,
        0.000324,
    ),
    ("mirrorgan", "eval", "legacy", "img1"): (
        -0.101034,
        0.074038,
        (-0.112264, -0.172618, -0.161048),
        -0.034424,
        0.000021,
    ),
    ("mirrorgan", "eval", "legacy", "img2"): (
        -0.026707,
        0.115076,
        (-0.024211, 0.029364, 0.038232),
        -0.093690,
        -0.002223,
    ),
    ("mirrorgan", "eval", "legacy", "att1"): (0.111111, 0.097601, (0.109502, 0.140134, 0.195946), 0.0, -0.000230),
    ("mirrorgan", "train", "legacy", "img1"): (
        -0.047507,
        0.435689,
        (-0.103105, -0.243404, -0.135549),
        0.026787,
        0.037635,
    ),
    ("mirrorgan", "train", "legacy", "img2"): (
        0.006458,
        0.413132,
        (-0.047110, -0.054979, -0.070715),
        -0.058716,
        0.013892,
    ),
}
JUDGED = {
    ("eval", 0, "matched"): (0.472393, 0.004089, (0.470830, 0.467422, 0.476566), 0.474755, 0.264586),
    ("eval", 0, "unconditional"): (0.481199, 0.023874, (0.465203, 0.496370, 0.506345), 0.456878, 0.284246),
    ("eval", 2, "matched"): (0.481989, 0.001742, (0.480448, 0.484448, 0.481169), 0.481891, 0.273998),
    ("eval", 2, "unconditional"): (0.514864, 0.001763, (0.512563, 0.516330, 0.516156), 0.514406, 0.292170),
    ("train", 1, "matched"): (0.268291, 0.120295, (0.289894, 0.092251, 0.341634), 0.349387, 0.055808),
    ("train", 1, "unconditional"): (0.530913, 0.165720, (0.651713, 0.306008, 0.506169), 0.659763, 0.199385),
}


@pytest.fixture(scope="module")
def text() -> tuple[Tensor, Tensor, Tensor]:
    return read_text()


def build(name: str, **options: Any) -> AttentiveGAN:
    """A model without memory for its weights."""
    weights = {"damsm_weight": 0.0} | ({"stream_weight": 0.0} if name == "mirrorgan" else {})
    with torch.device("meta"):
        model = model_class(name)(text_encoder={"kind": "hashing", "dim": 256}, **weights, **options)
    assert isinstance(model, AttentiveGAN)
    return model


Outputs = dict[tuple[str, str, str, str], Tensor]


@pytest.fixture(scope="module")
def drawn(text: tuple[Tensor, Tensor, Tensor]) -> Outputs:
    """Every output of the generators' table; of the networks only one has memory at a time."""
    outputs: Outputs = {}
    noise, still = inputs(2, 4, 100), torch.zeros(4, 100)
    for name, official in FORMATS.items():
        generator = fill(official, build(name), "generator")
        for mode, mask in (("eval", "legacy"), ("eval", "fixed"), ("train", "legacy")):
            generator.train(mode == "train")
            for module in generator.modules():
                if isinstance(module, WordAttention):
                    module.legacy_mask = mask == "legacy"
            with torch.no_grad():
                sentence, *words = text
                images, extras = generator(noise, sentence, still, *words)
            outputs |= {(name, mode, mask, f"img{i}"): image for i, image in enumerate(images)}
            outputs |= {(name, mode, mask, f"att{i}"): extras[f"attention_{i}"] for i in range(2)}
            outputs[name, mode, mask, "mu"] = extras["mu"]
    return outputs


@pytest.mark.parametrize("key", GOLDEN, ids="-".join)
def test_golden_images(drawn: Outputs, key: tuple[str, str, str, str]) -> None:
    assert agrees(drawn[key], *GOLDEN[key])


def test_attention_is_over_the_words_of_each_place(drawn: Outputs) -> None:
    weights = drawn["attngan", "eval", "fixed", "att1"]
    assert weights.shape == (4, 9, 128, 128)
    assert torch.allclose(weights.sum(1), torch.ones(4, 128, 128), atol=1e-5)
    assert all(not weights[i, length:].any() for i, length in enumerate(LENGTHS))


def test_golden_discriminators(drawn: Outputs, text: tuple[Tensor, Tensor, Tensor]) -> None:
    losses = []
    for i, size in enumerate(SIZES):  # one at a time, as the only size of a model: the largest takes 300 MB
        model = build("attngan", branches=3, image_size=256).train()
        judge = fill(FORMATS["attngan"], model, f"discriminator.{i}")
        assert isinstance(judge, JointDiscriminator)
        model.discriminator, model.needs = nn.ModuleList([judge]), replace(model.needs, sizes=(size,))
        images = inputs(3 + i, 4, 3, size, size).tanh()
        fakes = Fakes([drawn["attngan", "train", "legacy", f"img{i}"]], TextFeatures(*text), {}, torch.zeros(4, 100))
        with torch.no_grad():
            for mode in ("eval", "train"):
                logits = judge.train(mode == "train")(images, text[0])
                for head, value in zip(("matched", "unconditional"), logits, strict=False):
                    if (mode, i, head) in JUDGED:
                        assert agrees(value.sigmoid(), *JUDGED[mode, i, head]), (mode, i, head)
            losses.append(float(model.discriminator_loss({"images": [images]}, fakes)["loss"]))
    assert losses == pytest.approx([1.749306, 1.440264, 1.363000], abs=1e-5)


def test_golden_caption_writer() -> None:
    writer = Writer(5450, 256, 512)
    for key, tensor in writer.state_dict().items():
        tensor.copy_(recipe(key, tuple(tensor.shape)))
    table, lengths = numbers()
    with torch.no_grad():
        scores, words = writer(inputs(13, 4, 256), table, lengths)
    assert scores.shape == (24, 5450)
    assert agrees(scores, 0.001048, 0.142418, (0.077493, 0.080123, 0.011122), -0.002433, -0.017218)
    assert float(caption_loss(scores, words)) == pytest.approx(8.597229, abs=1e-5)
    assert sum(p.numel() for p in writer.parameters()) == 5_768_010


COCO = {"generator_width": 48, "discriminator_width": 96, "residual_blocks": 3}
DCGAN = {"residual_blocks": 0, "last_only": True}


@pytest.mark.parametrize(
    ("name", "options", "network", "parameters", "keys"),
    [
        ("attngan", {}, "generator", 7_084_592, 97),
        ("attngan", {}, "discriminator.0", 6_313_730, 29),
        ("attngan", {}, "discriminator.1", 19_424_002, 41),
        ("attngan", {}, "discriminator.2", 71_858_946, 53),
        ("attngan", COCO, "generator", 13_811_456, 121),
        ("attngan", COCO, "discriminator.0", 13_304_450, 29),
        ("attngan", COCO, "discriminator.1", 42_800_258, 41),
        ("attngan", COCO, "discriminator.2", 160_774_274, 53),
        ("attngan", DCGAN, "generator", 6_638_960, 47),
        ("attngan", DCGAN, "discriminator.0", 71_850_753, 51),
        ("mirrorgan", {}, "generator", 7_105_392, 105),
        ("mirrorgan", {}, "discriminator.2", 71_858_946, 53),
        ("mirrorgan", COCO, "generator", 13_853_408, 129),
        ("mirrorgan", DCGAN, "generator", 6_659_760, 55),
    ],
)
def test_published_sizes(name: str, options: dict[str, Any], network: str, parameters: int, keys: int) -> None:
    model = build(name, **options)
    assert sum(p.numel() for p in model.get_submodule(network).parameters()) == parameters
    names = official_names(FORMATS[name], model, network)
    counted = [key for key in names if not key.endswith("num_batches_tracked")]
    assert keys in (len(names), len(counted))  # the sheet counts with the counters of batches or without


def test_official_names_of_the_parts_that_differ() -> None:
    found = official_names(FORMATS["mirrorgan"], build("mirrorgan"), "generator")
    assert found["h_net3.att.conv_sentence_vis.weight"] == "generator.stages.1.whole.look.weight"
    assert found["h_net2.att.linear.bias"] == "generator.stages.0.whole.project.bias"
    assert found["h_net2.conv.weight"] == "generator.stages.0.fuse.weight"
    assert found["img_net3.img.0.weight"] == "generator.pictures.2.0.weight"
    found = official_names(FORMATS["attngan"], build("attngan", **DCGAN), "generator")
    assert found["img_net.img.0.weight"] == "generator.pictures.0.0.weight"
