"""StackGAN: shapes and first weights, each loss by hand, and who sees which pair."""

from __future__ import annotations

from math import exp, log
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.models.stackgan import StackGAN, losses
from t2i_zoo.models.stackgan.networks import Discriminator, Stage1Generator, Stage2Generator
from t2i_zoo.nn import PAPER, Logits, discriminator_loss, mean

WIDTHS = {"condition_dim": 6, "generator_width": 4, "discriminator_width": 4}
SECOND = {"stage": 2, "stage1": "untrained", "image_size": 32, "residual_blocks": 1}


@pytest.fixture
def build(tiny_options: dict[str, Any]) -> Any:
    """``build(**SECOND)``: a tiny model with seeded weights."""

    def seeded(**options: Any) -> StackGAN:
        L.seed_everything(0, verbose=False)
        return StackGAN(**{**tiny_options, **WIDTHS, **options})

    return seeded


# Networks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "first", "last"), [(8, 32, 16), (64, 32, 4), (256, 32, 4)])
def test_sizes_of_stage_one(size: int, first: int, last: int) -> None:
    network = Stage1Generator(8, 3, 5, 4, size)
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert (convs[0].in_channels, convs[-1].in_channels) == (first, last)  # never below 4
    images, mu, logvar = network(torch.randn(2, 3), torch.randn(2, 8), torch.randn(2, 5))
    assert images.shape == (2, 3, size, size)
    assert mu.shape == logvar.shape == (2, 5)
    discriminator = Discriminator(5, 4, size, 1)
    assert discriminator.features(images).shape == (2, 32, 4, 4)
    assert discriminator.judge_alone(discriminator.features(images)) is None


@pytest.mark.parametrize("size", [32, 64, 128])
def test_sizes_of_stage_two(size: int) -> None:
    network = Stage2Generator(8, 3, 5, 4, size, 1)
    small, images, mu, logvar = network(torch.randn(2, 3), torch.randn(2, 8), torch.randn(2, 5), torch.randn(2, 5))
    assert small.shape == (2, 3, size // 4, size // 4)
    assert images.shape == (2, 3, size, size)
    assert mu.shape == logvar.shape == (2, 5)
    discriminator = Discriminator(5, 4, size, 2)
    features = discriminator.features(images)
    assert features.shape == (2, 32, 4, 4)
    assert discriminator.judge(features, mu).matched.shape == discriminator.judge_alone(features).shape == (2,)


def test_initial_weights() -> None:
    generator, discriminator = Stage2Generator(256, 20, 32, 16, 64), Discriminator(32, 16, 64, 2)
    layers = [layer for network in (generator, discriminator) for layer in network.requires_grad_(False).modules()]
    for layer in layers:
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight.numel() > 10_000:
            assert float(layer.weight.std()) == pytest.approx(0.02, rel=0.05)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            assert not layer.bias.any()
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.num_features > 250:
            assert float(layer.weight.mean()) == pytest.approx(1, abs=0.01)
            assert float(layer.weight.std()) == pytest.approx(0.02, rel=0.2)
    biases = [layer.bias for layer in layers if isinstance(layer, nn.Conv2d) and layer.bias is not None]
    assert len(biases) == 2  # those of the logits, which keep PyTorch's default
    assert all(0 < float(bias.abs()) <= (16 * 128) ** -0.5 for bias in biases)


def test_noise_is_z_and_then_a_draw_for_each_stage(build: Any) -> None:
    model = build(**SECOND).eval()
    text = model.encode(["a red flower"] * 2)
    noise = torch.zeros(2, model.total_noise_dim)
    assert model.total_noise_dim == 4 + 6 + 6
    plain = model.draw(model.generator, noise, text)
    changed = {}
    for part, span in {"z": slice(0, 4), "first": slice(4, 10), "second": slice(10, 16)}.items():
        other = noise.clone()
        other[:, span] = 2.0
        drawn = model.draw(model.generator, other, text)
        changed[part] = [not torch.equal(*pair) for pair in zip(plain.images, drawn.images, strict=True)]
        assert torch.equal(drawn.extras["mu"], plain.extras["mu"])  # the condition's noise comes after its mean
    assert changed == {"z": [True, True], "first": [True, True], "second": [False, True]}


@pytest.mark.parametrize("activation", ["relu", "lrelu", "glu"])
def test_activation_of_the_conditioning_augmentation(build: Any, activation: str) -> None:
    model = build(ca_activation=activation)
    fakes = model.draw(model.generator, model.noise(3), model.encode(["a red flower", "a blue one", "a white one"]))
    negative = [bool((fakes.extras[name] < 0).any()) for name in ("mu", "logvar")]
    assert negative == ([False, False] if activation == "relu" else [True, True])


@pytest.mark.parametrize("options", [{}, SECOND])
@pytest.mark.parametrize("drawn", [True, False])
def test_sampling_noise(build: Any, options: dict[str, Any], drawn: bool) -> None:
    model = build(**options, sampling_noise=drawn)
    one, two = model.noise(2), model.noise(2)
    two[:, :4] = one[:, :4]
    same_z = [model.eval().generate(["a red flower"] * 2, noise=noise) for noise in (one, two)]
    assert torch.equal(*same_z) is not drawn
    model.train()
    text = model.encode(["a red flower"] * 2)
    trained = [model.draw(model.generator, noise, text).images[-1] for noise in (one, two)]
    assert not torch.equal(*trained)  # training always draws


# Losses by hand -----------------------------------------------------------------------------------------------------

THREE = log(3.0)  # the logit of a probability of 3/4
REAL, WRONG, FAKE = torch.tensor([0.0, THREE]), torch.tensor([-THREE, THREE, 0.0]), torch.tensor([THREE, THREE])
PAIRS = [Logits(logits) for logits in (REAL, WRONG, FAKE)]
TERMS = {"real": (log(2) + log(4 / 3)) / 2, "wrong": (log(4 / 3) + log(4) + log(2)) / 3, "fake": log(4)}
MU, LOGVAR = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 0.0]])
KL = 0.5 * (1 + (exp(1) - 2) + 4 + 0) / 4  # mean over four numbers of (mu^2 + e^logvar - 1 - logvar) / 2


def numbers(found: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items()}


def test_discriminator_loss_of_stage_one() -> None:
    found = discriminator_loss(*PAIRS)
    loss = TERMS["real"] + (TERMS["fake"] + TERMS["wrong"]) / 2
    assert numbers(found) == pytest.approx({"loss": loss, **TERMS})


def test_discriminator_loss_of_stage_two() -> None:
    found = discriminator_loss(Logits(REAL, FAKE), Logits(WRONG), Logits(FAKE, REAL))
    alone = {"real_alone": log(4 / 3), "fake_alone": (log(2) + log(4)) / 2}
    loss = (TERMS["real"] + alone["real_alone"]) / 2 + (TERMS["fake"] + TERMS["wrong"] + alone["fake_alone"]) / 3
    assert numbers(found) == pytest.approx({"loss": loss, **TERMS, **alone})


@pytest.mark.parametrize(
    ("keep", "wanted"),
    [([True, True, True], TERMS["wrong"]), ([True, False, True], (log(4 / 3) + log(2)) / 2), ([False] * 3, 0.0)],
)
def test_mismatched_pairs_that_count(keep: list[bool], wanted: float) -> None:
    logits = WRONG.clone().requires_grad_()
    found = mean(PAPER.fake(logits), torch.tensor(keep))
    found.backward()
    assert found.item() == pytest.approx(wanted)
    assert (logits.grad != 0).tolist() == keep
    assert float(mean(PAPER.fake(torch.zeros(0)))) == 0.0  # the shift of one image


@pytest.mark.parametrize("weight", [2.0, 0.5])
def test_generator_loss(weight: float) -> None:
    one = losses.generator_loss(Logits(FAKE), MU, LOGVAR, kl_weight=weight)
    assert numbers(one) == pytest.approx({"loss": log(4 / 3) + weight * KL, "adversarial": log(4 / 3), "kl": KL})
    two = losses.generator_loss(Logits(FAKE, REAL), MU, LOGVAR, kl_weight=weight)
    assert numbers(two) == pytest.approx({**numbers(one), "loss": float(one["loss"]) + TERMS["real"],
                                          "alone": TERMS["real"]})  # fmt: skip


# Who sees which pair ------------------------------------------------------------------------------------------------


class Witness(L.Callback):
    """The first batch, the generator's means, and what the discriminator's heads see in each step."""

    def __init__(self) -> None:
        self.batch: dict[str, Any] = {}
        self.means: list[Tensor] = []
        self.features: list[Tensor] = []
        self.seen: dict[str, list[tuple[Tensor, Tensor]]] = {"d": [], "g": []}
        self.stage = "d"

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.generator.ca.register_forward_hook(lambda _, inputs, out: self.means.append(out[1].detach()))
        pl_module.discriminator.encode.register_forward_hook(lambda _, inputs, out: self.features.append(out.detach()))
        width = pl_module.hparams["discriminator_width"] * 8
        pl_module.discriminator.joint.register_forward_pre_hook(
            lambda _, inputs: self.seen[self.stage].append((inputs[0][:, :width].detach(), inputs[0][:, width:, 0, 0]))
        )

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batch = dict(batch)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: Any, optimizer: Any) -> None:
        self.stage = "g"


def watch(model: StackGAN, data: Any, trainer: Any) -> Witness:
    trainer(limit_train_batches=1, callbacks=[witness := Witness()]).fit(model, data)
    return witness


def assert_pairs(found: list[tuple[Tensor, Tensor]], wanted: list[tuple[Tensor, Tensor]]) -> None:
    assert len(found) == len(wanted)
    for one, two in zip(found, wanted, strict=True):
        assert all(map(torch.equal, one, two))


@pytest.mark.parametrize("options", [{}, SECOND])
def test_each_image_with_the_next_sentence(build: Any, build_data: Any, build_trainer: Any, options: Any) -> None:
    model = build(**options)
    seen = watch(model, build_data(image_size=model.hparams["image_size"]), build_trainer)
    (mu,), (real, fake, again) = seen.means, seen.features
    assert not torch.equal(mu[0], mu[1])
    assert_pairs(seen.seen["d"], [(real, mu), (real[:-1], mu[1:]), (fake, mu)])
    assert_pairs(seen.seen["g"], [(again, mu)])
    steps = {int(m.num_batches_tracked) for m in model.discriminator.joint.modules() if isinstance(m, nn.BatchNorm2d)}
    assert steps == {4}


def test_each_image_with_a_sentence_of_another_class(build: Any, tiny_data: Any, build_trainer: Any) -> None:
    model = build(mismatch="class")
    sentences: list[Tensor] = []
    model.generator.ca.register_forward_pre_hook(lambda _, inputs: sentences.append(inputs[0]))
    seen = watch(model, tiny_data, build_trainer)
    assert_pairs(
        [(s, s) for s in sentences], [(t.sentence,) * 2 for t in (seen.batch["text"], seen.batch["wrong_text"])]
    )
    (mu, other), (real, fake, _) = seen.means, seen.features
    assert_pairs(seen.seen["d"], [(real, mu), (real, other), (fake, mu)])
    assert not any(torch.equal(one, two) for one, two in zip(mu, other, strict=True))


@torch.no_grad()
def wrong_term(model: StackGAN, labels: list[int], **options: Any) -> tuple[float, Tensor]:
    """The mismatched term of one made-up batch, and the losses of its pairs."""
    torch.manual_seed(1)
    text, images = model.encode([f"flower number {i}" for i in range(4)]), [torch.rand(4, 3, 16, 16)]
    fakes = model.eval().draw(model.generator, model.noise(4), text)
    batch = {"images": images, "text": text, "labels": torch.tensor(labels)}
    features = model.discriminator.features(images[0])
    pairs = -torch.log(1 - model.discriminator.judge(features[:-1], fakes.extras["mu"][1:]).matched.sigmoid())
    return float(model.discriminator_loss(batch, fakes)["wrong"]), pairs


@pytest.mark.parametrize(
    ("labels", "counted"),
    [([5, 5, 7, 5], [1, 2]), ([5, 5, 5, 5], []), ([-1, -1, -1, -1], [0, 1, 2])],
)
def test_pairs_of_one_class_are_left_out(build: Any, labels: list[int], counted: list[int]) -> None:
    found, pairs = wrong_term(build(exclude_same_class=True), labels)
    assert found == pytest.approx(float(pairs[counted].mean()) if counted else 0.0)
    kept, pairs = wrong_term(build(), labels)
    assert kept == pytest.approx(float(pairs.mean()))


def test_the_condition_reaches_the_discriminator_without_its_gradient(build: Any) -> None:
    model = build(kl_weight=0.0).train()
    text = model.encode(["a red flower", "a blue flower"])
    fakes = model.draw(model.generator, model.noise(2), text)
    still = fakes._replace(images=[image.detach() for image in fakes.images])
    model.generator_loss({"text": text}, still)["loss"].backward()
    assert not any(p.grad.any() for p in model.generator.parameters() if p.grad is not None)
