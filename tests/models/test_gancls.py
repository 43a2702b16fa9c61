"""GAN-CLS against the paper's code: parameter counts, each loss by hand, and who sees which pair."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from t2i_zoo.batch import Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.gancls import GANCLS, losses
from t2i_zoo.models.gancls.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    Discriminator,
    Generator,
    LightDiscriminator,
    ResidualBottleneck,
)
from t2i_zoo.nn import Logits
from t2i_zoo.text import TextFeatures

TINY = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}


def count(network: nn.Module, conv_biases: bool = True) -> int:
    """Parameters, with the biases that the authors' convolutions have and keep at zero."""
    own = sum(p.numel() for p in network.parameters())
    convs = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert all(conv.bias is None for conv in convs)
    return own + conv_biases * sum(conv.out_channels for conv in convs)


def test_parameter_counts_of_the_authors() -> None:
    with torch.device("meta"):
        assert count(Generator(1024, 100, 128, 128, 64)) == 18_909_699  # birds and flowers
        assert count(Discriminator(1024, 128, 64, 64, third_activation=False, text_norm=True)) == 4_032_321
        assert count(Generator(1024, 100, 256, 128, 64)) == 21_138_051  # the defaults of main_cls.lua
        assert count(Discriminator(1024, 256, 64, 64)) == 4_228_801
        assert count(Generator(1024, 100, 128, 196, 64)) == 41_107_551  # COCO
        assert count(Discriminator(1024, 128, 196, 64)) == 36_190_301


def test_parameter_counts_of_the_port() -> None:
    with torch.device("meta"):
        assert count(DCGANGenerator(1024, 100, 128, 64, 64), conv_biases=False) == 4_756_736
        assert count(DCGANDiscriminator(1024, 128, 64, 64), conv_biases=False) == 2_899_072


def test_the_default_model_has_the_widths_of_the_flowers_script() -> None:
    model = GANCLS()
    assert count(model.generator) == 18_909_699
    assert count(model.discriminator) == 4_032_321 - 2 * 128  # main_cls.lua has no batch norm on the text


@pytest.mark.parametrize("third_activation", [True, False])
def test_third_activation(third_activation: bool) -> None:
    layers = list(Discriminator(32, 8, 4, 64, third_activation=third_activation).image)
    fourth = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)][3]
    assert isinstance(layers[fourth - 1], nn.LeakyReLU if third_activation else nn.BatchNorm2d)
    assert isinstance(layers[fourth + 1], nn.BatchNorm2d)
    assert isinstance(layers[fourth + 2], ResidualBottleneck)  # no activation before the residual block


def test_large_repeats_both_residual_blocks() -> None:
    kinds = [type(layer) for layer in Generator(32, 4, 8, 4, 64, large=True).layers]
    first = kinds.index(ResidualBottleneck)
    assert kinds[first : first + 3] == [ResidualBottleneck, ResidualBottleneck, nn.ReLU]  # no ReLU between them
    assert kinds.count(ResidualBottleneck) == 4


def test_initial_weights() -> None:
    network = Generator(1024, 100, 128, 32, 64).requires_grad_(False)
    assert float(network.layers[0].weight.std()) == pytest.approx(0.02, rel=0.02)
    assert float(network.layers[1].weight.mean()) == pytest.approx(1, abs=0.01)
    assert not network.layers[1].bias.any()
    assert float(network.project[0].weight.abs().max()) == pytest.approx(1024**-0.5, rel=0.01)


def test_the_light_discriminator_begins_with_the_variance_of_its_images() -> None:
    rng = torch.Generator().manual_seed(0)
    maps = LightDiscriminator(32, 8, 16, 64).image(torch.randn(32, 3, 64, 64, generator=rng))
    assert 0.5 < float(maps.std()) < 2  # a thirtieth with PyTorch's own initial weights
    assert not any(isinstance(module, nn.BatchNorm2d) for module in LightDiscriminator(32, 8, 4, 32).modules())


# Losses by hand -----------------------------------------------------------------------------------------------------

THREE = log(3.0)  # the logit of a probability of 3/4
REAL, WRONG, FAKE = (Logits(torch.tensor(x)) for x in ([0.0, THREE], [-THREE, -THREE], [THREE, THREE]))
REAL_TERM = (log(2) + log(4 / 3)) / 2  # -log D
WRONG_TERM = log(4 / 3)  # -log(1 - D)
FAKE_TERM = log(4)  # likewise


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, REAL_TERM + 0.5 * WRONG_TERM + 0.5 * FAKE_TERM),
        ({"mismatch_weight": 0.25}, REAL_TERM + 0.25 * WRONG_TERM + 0.75 * FAKE_TERM),
        ({"mismatch_weight": 1.0, "fake_weight": 1.0}, REAL_TERM + WRONG_TERM + FAKE_TERM),
    ],
)
def test_discriminator_loss(options: dict[str, float], wanted: float) -> None:
    found = losses.discriminator_loss(REAL, WRONG, FAKE, **options)
    parts = {"loss": wanted, "real": REAL_TERM, "wrong": WRONG_TERM, "fake": FAKE_TERM}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(parts)


def test_discriminator_loss_without_mismatch() -> None:
    found = losses.discriminator_loss(REAL, None, FAKE, mismatch_weight=0.0)
    assert float(found["loss"]) == pytest.approx(REAL_TERM + FAKE_TERM)
    assert "wrong" not in found


def test_label_smoothing_touches_the_real_term_alone() -> None:
    found = losses.discriminator_loss(REAL, WRONG, FAKE, label_smoothing=0.1)
    smooth = (log(2) - 0.9 * log(3 / 4) - 0.1 * log(1 / 4)) / 2
    assert float(found["real"]) == pytest.approx(smooth)
    assert float(found["wrong"]) == pytest.approx(WRONG_TERM)
    assert float(found["loss"]) == pytest.approx(smooth + 0.5 * WRONG_TERM + 0.5 * FAKE_TERM)


def test_generator_loss() -> None:
    assert float(losses.generator_loss(FAKE, 2)["loss"]) == pytest.approx(log(4 / 3))


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_interpolation_divides_by_the_joint_number(weight: float) -> None:
    found = losses.generator_loss(Logits(torch.tensor([THREE, THREE, 0.0])), 2, weight)
    assert float(found["loss"]) == pytest.approx((2 * log(4 / 3) + weight * log(2)) / 3)
    assert float(found["matched"]) == pytest.approx(log(4 / 3))
    assert float(found["interpolated"]) == pytest.approx(log(2))


def test_interpolated_sentences() -> None:
    sentences = torch.tensor([[0.0, 0.0], [2.0, 4.0], [4.0, 8.0], [6.0, 0.0]])
    assert losses.interpolate(sentences).tolist() == [[2.0, 4.0], [4.0, 2.0]]
    beyond = losses.interpolate(sentences, torch.tensor([[1.0], [-1.0]]))  # beta 1.5 and -0.5
    assert beyond.tolist() == [[6.0, 12.0], [0.0, 6.0]]
    assert losses.interpolate(sentences[:3]).tolist() == [[1.0, 2.0]]  # the odd one has no partner


# Who sees which pair ------------------------------------------------------------------------------------------------


class Witness(L.Callback):
    """The first batch, and what enters the discriminator's image and text branches in each step."""

    def __init__(self) -> None:
        self.batch: dict[str, Any] = {}
        self.pictures: dict[str, list[Tensor]] = {"d": [], "g": []}
        self.sentences: dict[str, list[Tensor]] = {"d": [], "g": []}
        self.stage = "d"

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        for kept, part in ((self.pictures, "image"), (self.sentences, "project")):
            network = getattr(pl_module.discriminator, part)
            network.register_forward_pre_hook(lambda _, a, kept=kept: kept[self.stage].append(a[0].detach().clone()))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batch = dict(batch)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.stage = "g"


@pytest.fixture
def watch(tiny_options: dict[str, Any], tiny_data: Any, build_trainer: Any) -> Any:
    """``watch(mismatch="image")``: the model after one batch, and the witness of it."""

    def run(**options: Any) -> tuple[GANCLS, Witness]:
        L.seed_everything(0, verbose=False)
        model = GANCLS(**{**tiny_options, **TINY, **options})
        build_trainer(limit_train_batches=1, callbacks=[witness := Witness()]).fit(model, tiny_data)
        return model, witness

    return run


def assert_are(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(found) == len(wanted)
    assert all(map(torch.equal, found, wanted))


def test_mismatched_text(watch: Any) -> None:
    _, seen = watch()
    real, text, wrong = seen.batch["images"][-1], seen.batch["text"].sentence, seen.batch["wrong_text"].sentence
    assert "wrong_images" not in seen.batch
    assert not torch.equal(text, wrong)
    assert_are(seen.pictures["d"][:1], [real])
    assert len(seen.pictures["d"]) == 2  # the real image is read once for both of its pairs
    assert_are(seen.sentences["d"], [text, wrong, text])
    assert_are(seen.sentences["g"], [text])


def test_mismatched_image(watch: Any) -> None:
    model, seen = watch(mismatch="image")
    assert_are(seen.pictures["d"][:2], [seen.batch["images"][-1], seen.batch["wrong_images"][-1]])
    assert_are(seen.sentences["d"], [seen.batch["text"].sentence] * 3)
    # three passes of the discriminator's step and one of the generator's, each with batch statistics of its own
    assert {int(m.num_batches_tracked) for m in batch_norms(model.discriminator)} == {4}
    assert {int(m.num_batches_tracked) for m in batch_norms(model.generator)} == {1}


def batch_norms(network: nn.Module) -> list[Any]:
    return [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


@pytest.mark.parametrize("mismatch", ["text", "image"])
def test_no_mismatch(watch: Any, mismatch: str) -> None:
    model, seen = watch(mismatch=mismatch, mismatch_weight=0.0)
    assert not model.needs.wrong_images
    assert "wrong_images" not in seen.batch
    assert_are(seen.sentences["d"], [seen.batch["text"].sentence] * 2)


@pytest.mark.parametrize("interpolation", ["midpoint", "random"])
def test_interpolated_text_enters_the_generator_step_alone(watch: Any, interpolation: str) -> None:
    _, seen = watch(interpolation_weight=1.0, interpolation=interpolation)
    text, wrong = seen.batch["text"].sentence, seen.batch["wrong_text"].sentence
    assert_are(seen.sentences["d"], [text, wrong, text])
    assert [len(p) for p in (*seen.pictures["d"], *seen.pictures["g"])] == [8, 8, 12]
    (joint,) = seen.sentences["g"]
    assert torch.equal(joint[:8], text)
    first, along = text[:4], text[4:] - text[:4]
    beta = ((joint[8:] - first) * along).sum(1) / along.square().sum(1)
    torch.testing.assert_close(joint[8:], first + beta[:, None] * along)  # on the line between two captions
    if interpolation == "midpoint":
        assert beta.tolist() == pytest.approx([0.5] * 4)
    else:
        assert -0.5 <= beta.min() < beta.max() <= 1.5


@pytest.mark.parametrize("redraw", [False, True])
def test_redrawn_noise(watch: Any, redraw: bool) -> None:
    model, seen = watch(redraw_noise=redraw)
    assert torch.equal(seen.pictures["d"][-1], seen.pictures["g"][0]) is not redraw
    assert {int(m.num_batches_tracked) for m in batch_norms(model.generator)} == {1 + redraw}


def test_the_terms_of_the_port(tiny_options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    weights = {"feature_matching_weight": 100.0, "pixel_weight": 50.0}
    model = GANCLS(**tiny_options, **TINY, architecture="dcgan", **weights).train()
    real, fake, text = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16), TextFeatures(torch.randn(4, 32))
    found = model.generator_loss({"images": [real], "text": text}, Fakes([fake], text, {}, torch.zeros(4, 4)))
    difference = model.discriminator.features(fake).mean(0) - model.discriminator.features(real).mean(0)
    matching, pixel = difference.square().mean(), (fake - real).abs().mean()
    adversarial = -model.discriminator(fake, text.sentence).matched.sigmoid().log().mean()
    wanted = {"feature_matching": matching, "pixel": pixel, "loss": adversarial + 100 * matching + 50 * pixel}
    torch.testing.assert_close(found, wanted)


VARIANTS = {
    "gan-int-cls": {"interpolation_weight": 1.0, "text_norm": True, "third_activation": False, "large": True},
    "gan": {"mismatch_weight": 0.0, "label_smoothing": 0.1},
    "port": {"architecture": "dcgan", "mismatch": "image", "mismatch_weight": 1.0, "fake_weight": 1.0,
             "feature_matching_weight": 100.0, "pixel_weight": 50.0, "redraw_noise": True},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_train_and_validate(variant: str, tiny_options: dict[str, Any], build_data: Any, build_trainer: Any):
    model = GANCLS(**{**tiny_options, **TINY, "image_size": 32}, **VARIANTS[variant])
    trainer = build_trainer(limit_train_batches=2, limit_val_batches=1)
    trainer.fit(model, build_data(image_size=32))
    assert model.clock == 2
    for stage in ("train", "val"):
        assert trainer.callback_metrics[f"{stage}/discriminator_loss"].isfinite()
        assert trainer.callback_metrics[f"{stage}/generator_loss"].isfinite()


def test_the_port_judges_real_images_in_both_steps(tiny_options: dict[str, Any]) -> None:
    """Real, wrong and fake in the discriminator's step, fake and real in the generator's: five passes of the text."""
    model = GANCLS(**{**tiny_options, **TINY, **VARIANTS["port"], "learning_rate": 0.0}).train()
    captions, images = ["a red flower", "a blue flower", "white petals", "a rose"], [torch.rand(4, 3, 16, 16)]
    batch: Any = {"captions": captions, "images": images, "wrong_images": [torch.rand(4, 3, 16, 16)]}
    model.step(batch, *model.configure_optimizers()[0])
    linear, norm, _ = model.discriminator.project
    assert int(norm.num_batches_tracked) == 5
    mean = linear(batch["text"].sentence).mean(0).detach()
    torch.testing.assert_close(norm.running_mean, (1 - 0.9**5) * mean)


@pytest.mark.parametrize("size", [8, 48])
def test_image_sizes_are_powers_of_two(tiny_options: dict[str, Any], size: int) -> None:
    with pytest.raises(T2IError, match=rf"found --model\.image_size {size}, expected a power of two of at least 16"):
        GANCLS(**{**tiny_options, "image_size": size})


def test_a_string_for_a_list_is_named(tiny_options: dict[str, Any]) -> None:
    with pytest.raises(T2IError, match=r"found one string, expected a list of captions"):
        GANCLS(**tiny_options, **TINY).generate("a red flower")


def test_a_light_generator_begins_as_one_of_half_the_size_enlarged(tmp_path: Path) -> None:
    options: dict[str, Any] = {"architecture": "light", "large": True, "generator_width": 2, "discriminator_width": 2}
    options |= {"text_encoder": {"kind": "hashing", "dim": 16}, "noise_dim": 4, "projection_dim": 4}
    small = GANCLS(**options, image_size=64)
    for block in small.generator.residuals:
        torch.nn.init.normal_(block.gain)
    small.generator_ema.load_state_dict(small.generator.state_dict())
    save_file(
        {k: v for k, v in small.state_dict().items() if k.startswith("generator_ema.")}, tmp_path / "s.safetensors"
    )
    with pytest.warns(UserWarning, match=r"holds no generator, which begins anew"):
        large = GANCLS(**options, image_size=256, weights=str(tmp_path / "s.safetensors"))
    features = []
    small.generator_ema.to_image.register_forward_hook(lambda module, given, out: features.append(given[0]))
    noise = small.noise(2)
    small.generate(["red", "blue"], noise=noise)
    enlarged = features[0]
    for _ in range(2):
        enlarged = F.interpolate(enlarged, scale_factor=2.0, mode="bilinear")
    expected = torch.tanh(small.generator_ema.to_image(enlarged))
    torch.testing.assert_close(large.generate(["red", "blue"], noise=noise), expected)
    block = large.generator_ema.growths[1][1]
    torch.nn.init.normal_(block.gain)
    assert (large.generate(["red", "blue"], noise=noise) - expected).abs().max() > 0.01
