"""TAC-GAN: each loss by hand, who sees which pair and how often, and what images are drawn with."""

from __future__ import annotations

import copy
from math import log
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from t2i_zoo.batch import Fakes
from t2i_zoo.commands import sample as command
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.tacgan import TACGAN, losses
from t2i_zoo.models.tacgan.networks import BatchNorm
from t2i_zoo.nn import PAPER, Logits, mean
from t2i_zoo.text import TextFeatures

TINY = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4, "num_classes": 24}


@pytest.fixture
def build(tiny_options: dict[str, Any]) -> Any:
    """``build(class_loss="softmax")``: a tiny model with seeded weights."""

    def seeded(**options: Any) -> TACGAN:
        L.seed_everything(0, verbose=False)
        return TACGAN(**{**tiny_options, **TINY, **options})

    return seeded


# Losses by hand -----------------------------------------------------------------------------------------------------

THREE = log(3.0)  # the logit of a probability of 3/4
LABELS, WRONG_LABELS = torch.tensor([0, 1]), torch.tensor([2, 0])
REAL = Logits(torch.tensor([0.0, THREE]), classes=torch.tensor([[THREE, 0.0, 0.0], [0.0, 0.0, -THREE]]))
WRONG = Logits(torch.tensor([-THREE, -THREE]), classes=torch.tensor([[0.0, 0.0, THREE], [0.0, 0.0, 0.0]]))
FAKE = Logits(torch.tensor([THREE, THREE]), classes=torch.tensor([[0.0, THREE, 0.0], [0.0, THREE, 0.0]]))
SOURCE = {"real": (log(2) + log(4 / 3)) / 2, "wrong": log(4 / 3), "fake": log(4)}
CLASS = {
    "sigmoid": {  # six outputs each; a logit of 0 costs log 2 whatever the label
        "class_real": (2 * log(4 / 3) + 4 * log(2)) / 6,
        "class_wrong": (log(4 / 3) + 5 * log(2)) / 6,
        "class_fake": (log(4) + log(4 / 3) + 4 * log(2)) / 6,
    },
    "softmax": {
        "class_real": (log(5 / 3) + log(7 / 3)) / 2,
        "class_wrong": (log(5 / 3) + log(3)) / 2,
        "class_fake": (log(5) + log(5 / 3)) / 2,
    },
}


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_the_six_terms_of_the_discriminator(kind: Any) -> None:
    found = losses.discriminator_loss(REAL, WRONG, FAKE, LABELS, WRONG_LABELS, kind)
    terms = {**SOURCE, **CLASS[kind]}
    wanted = {"loss": sum(terms.values()), **terms}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(wanted)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_the_two_terms_of_the_generator(kind: Any) -> None:
    found = losses.generator_loss(FAKE, LABELS, kind)
    terms = {"fake": log(4 / 3), "class_fake": CLASS[kind]["class_fake"]}
    wanted = {"loss": sum(terms.values()), **terms}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(wanted)


# Who sees which pair ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_the_pairs_and_their_labels(build: Any, kind: Any) -> None:
    model = build(class_loss=kind)
    real, wrong, fake = (2 * torch.rand(3, 3, 16, 16) - 1 for _ in range(3))
    text, labels, others = TextFeatures(torch.randn(3, 32)), torch.tensor([1, 5, 23]), torch.tensor([0, 7, 8])
    batch = {"images": [real], "wrong_images": [wrong], "text": text, "labels": labels, "wrong_labels": others}
    fakes = Fakes([fake], text, {}, torch.zeros(3, 4))
    heads = [model.discriminator(x, text.sentence) for x in (real, wrong, fake)]
    matching = [mean(PAPER.real(heads[0].matched)), *(mean(PAPER.fake(each.matched)) for each in heads[1:])]
    owners = zip(heads, (labels, others, labels), strict=True)
    classes = [losses.class_term(each.classes, own, kind) for each, own in owners]
    found = model.discriminator_loss(batch, fakes)
    torch.testing.assert_close([found[k] for k in ("real", "wrong", "fake")], matching)
    torch.testing.assert_close([found[k] for k in ("class_real", "class_wrong", "class_fake")], classes)
    for_generator = model.generator_loss(batch, fakes)
    torch.testing.assert_close(for_generator["loss"], mean(PAPER.generator(heads[2].matched)) + classes[2])


class Witness(L.Callback):
    """Noise of the generator's forwards, images of the discriminator's, and the batch."""

    def __init__(self) -> None:
        self.noise: list[Tensor] = []
        self.judged: list[Tensor] = []
        self.batch: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.generator.register_forward_pre_hook(lambda _, a: self.noise.append(a[0].clone()))
        pl_module.discriminator.image.register_forward_pre_hook(lambda _, a: self.judged.append(a[0].detach().clone()))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batch = dict(batch)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_generator_steps_share_the_noise(build: Any, build_trainer: Any, tiny_data: Any, steps: int) -> None:
    model, seen = build(generator_steps=steps), Witness()
    build_trainer(limit_train_batches=1, callbacks=[seen]).fit(model, tiny_data)
    assert len(seen.noise) == steps
    assert all(torch.equal(noise, seen.noise[0]) for noise in seen.noise)
    assert len(seen.judged) == 3 + steps
    for judged, key in zip(seen.judged, ("images", "wrong_images"), strict=False):
        assert torch.equal(judged, (seen.batch[key][-1] + 1) / 2)
    assert torch.equal(seen.judged[2], seen.judged[3])  # the generator's first step judges what the discriminator saw
    assert all(not torch.equal(seen.judged[3], later) for later in seen.judged[4:])
    assert not (seen.batch["labels"] == seen.batch["wrong_labels"]).any()


class Caching(MixedPrecision):
    """Autocast that keeps half-precision weights, as it is outside Lightning."""

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, cache_enabled=True)


def test_the_second_step_draws_with_the_stepped_weights(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    model = build(learning_rate=0.1)
    apart: list[float] = []

    def compare(generator: Any, given: Any, drawn: Tensor) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            apart.append(float((type(generator).forward(copy.deepcopy(generator), *given) - drawn).abs().max()))

    model.generator.register_forward_hook(compare)
    build_trainer(limit_train_batches=1, plugins=[Caching("bf16-mixed", "cpu")]).fit(model, tiny_data)
    assert apart == [0.0, 0.0]


def test_two_generator_steps_unless_told(build: Any) -> None:
    assert build().generator_steps == 2


# Noise --------------------------------------------------------------------------------------------------------------


def test_noise_is_uniform(build: Any) -> None:
    model = build()
    noise = model.noise(4000, torch.Generator().manual_seed(1))
    assert noise.shape == (4000, 4)
    assert -1 <= noise.min() < -0.99
    assert 0.99 < noise.max() <= 1
    assert float(noise.std()) == pytest.approx(3**-0.5, rel=0.02)
    assert torch.equal(noise, model.noise(4000, torch.Generator().manual_seed(1)))


def test_the_path_between_two_noises(
    build: Any, build_trainer: Any, tiny_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--interpolate-noise`` goes from all -1 to all 1, as the authors' script does, and never outside."""
    (trainer := build_trainer(limit_train_batches=1)).fit(build(), tiny_data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    drawn: list[Tensor] = []
    original = command.caption_grid
    monkeypatch.setattr(command, "caption_grid", lambda rows, titles, **_: drawn.extend(rows) or original(rows, titles))
    out = str(tmp_path / "path.png")
    command.sample(str(tmp_path / "last.ckpt"), ["a red flower"], n=3, out=out, interpolate_noise=True, device="cpu")
    noise = torch.tensor([[-1.0], [0.0], [1.0]]).expand(3, 4)
    wanted = load_model(tmp_path / "last.ckpt").generate(["a red flower"] * 3, noise=noise)
    torch.testing.assert_close(drawn[0], wanted, rtol=0, atol=1e-5)


# What images are drawn with ---------------------------------------------------------------------------------------

CAPTIONS = ["a red flower with round petals", "a white blossom on the sand", "five blue petals"]


@pytest.fixture
def trained(build: Any, build_trainer: Any, tiny_data: Any) -> TACGAN:
    build_trainer(limit_train_batches=3).fit(model := build(learning_rate=0.01), tiny_data)
    return model.eval()


def test_the_context_is_training_captions(trained: TACGAN, tiny_data: Any) -> None:
    known = trained.encode(tiny_data.captions_of("train")).sentence
    assert trained.context_sentence.shape == (64, 32)
    assert (trained.context_sentence[:, None] == known).all(2).any(1).all()
    assert len(trained.context_sentence.unique(dim=0)) > 32
    assert trained.context_noise.abs().max() <= 1


def test_an_image_does_not_depend_on_its_neighbours(trained: TACGAN) -> None:
    noise = trained.noise(3, torch.Generator().manual_seed(2))
    together = trained.generate(CAPTIONS, noise=noise)
    for i, caption in enumerate(CAPTIONS):
        alone = trained.generate([caption], noise=noise[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)
    trained.context_sentence.zero_()  # without a context, the statistics are those of the images drawn
    without = trained.generate(CAPTIONS, noise=noise)
    assert (without[:1] - trained.generate(CAPTIONS[:1], noise=noise[:1])).abs().max() > 1e-2


def test_images_have_the_statistics_of_the_context(trained: TACGAN) -> None:
    noise, network = trained.noise(1), trained.generator_ema
    rows = torch.cat([trained.context_noise, noise])
    sentences = torch.cat([trained.context_sentence, trained.encode(CAPTIONS[:1]).sentence])
    norm = next(m for m in network.modules() if isinstance(m, BatchNorm))
    x: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: x.append(inputs[0]))
    drawn = trained.generate(CAPTIONS[:1], noise=noise)
    assert torch.equal(drawn, 2 * network(rows, sentences, 64)[64:] - 1)
    assert [len(maps) for maps in x] == [65, 65]
    assert (drawn - (2 * network(rows, sentences)[64:] - 1)).abs().max() > 1e-4  # not those of all 65


def test_the_context_is_always_the_same(trained: TACGAN, build: Any, build_data: Any, build_trainer: Any) -> None:
    other = build()
    L.seed_everything(5, verbose=False)  # another rank is in another random state
    build_trainer(limit_train_batches=1).fit(other, build_data(seed=7))
    assert torch.equal(other.context_sentence, trained.context_sentence)
    assert torch.equal(other.context_noise, trained.context_noise)


def test_a_resumed_run_keeps_its_context(build: Any, build_data: Any, build_trainer: Any, tmp_path: Path) -> None:
    (trainer := build_trainer(limit_train_batches=1)).fit(first := build(), build_data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    data = build_data()
    data.captions_of = lambda split: ["a captionless picture"]
    build_trainer(max_epochs=2, limit_train_batches=1).fit(second := build(), data, ckpt_path=tmp_path / "last.ckpt")
    assert second.clock == 2
    assert torch.equal(first.context_sentence, second.context_sentence)
    build_trainer(limit_train_batches=1).fit(anew := build(weights=str(tmp_path / "last.ckpt")), data)
    assert not torch.equal(anew.context_sentence, first.context_sentence)  # fine-tuning takes its own captions


def test_tracked_statistics_need_no_context(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    build_trainer(limit_train_batches=3).fit(model := build(batch_stats="tracked"), tiny_data)
    assert not [name for name in model.state_dict() if name.startswith("context")]
    norms = [m for m in model.generator.modules() if isinstance(m, BatchNorm)]
    # six forwards in three batches, each by a thousandth from 1 towards the variance of the batch
    assert all(float(norm.running_var.min()) > 0.994 and not (norm.running_var == 1).any() for norm in norms)
    noise = model.eval().noise(3)
    together = model.generate(CAPTIONS, noise=noise)
    torch.testing.assert_close(together[:1], model.generate(CAPTIONS[:1], noise=noise[:1]), rtol=0, atol=1e-5)
    norms = [m for m in model.generator_ema.modules() if isinstance(m, BatchNorm)]
    norms[-1].running_mean += 1
    assert not torch.equal(together, model.generate(CAPTIONS, noise=noise))


def test_without_a_data_module_there_is_no_context(build: Any, build_trainer: Any, build_data: Any) -> None:
    class Loader(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, i: int) -> dict[str, Any]:
            images, labels = torch.rand(4, 3, 16, 16), torch.arange(4)
            pairs = {"images": [images], "wrong_images": [images], "labels": labels, "wrong_labels": labels + 1}
            return {**pairs, "captions": CAPTIONS + CAPTIONS[:1]}

    loader = torch.utils.data.DataLoader(Loader(), batch_size=None)
    build_trainer().fit(model := build(), loader)
    assert model.clock == 1
    assert not model.context_sentence.any()
    assert model.generate(CAPTIONS[:1]).isfinite().all()


# Options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"image_size": 24}, r"--model\.image_size 24, expected a multiple of 16"),
        ({"image_size": 0}, r"--model\.image_size 0, expected at least 1"),
        ({"num_classes": 0}, r"--model\.num_classes 0"),
        ({"generator_steps": 0}, r"--model\.generator_steps 0, expected at least 1"),
        ({"discriminator_widths": [1, 2, 4, 8]}, r"--model\.discriminator_widths \[1, 2, 4, 8\], expected head"),
        ({"discriminator_widths": [1, 2, 4, 8, 0]}, r"--model\.discriminator_widths .* five integers from 1"),
    ],
)
def test_options_that_do_not_fit(build: Any, options: dict[str, Any], found: str) -> None:
    with pytest.raises(T2IError, match=found):
        build(**options)


@pytest.mark.parametrize(
    ("widths", "channels"),
    [("head", [4, 8, 16, 32, 32]), ("paper_era", [4, 32, 24, 24, 16]), ([1, 1, 2, 3, 5], [4, 4, 8, 12, 20])],
)
def test_discriminator_widths(build: Any, widths: Any, channels: list[int]) -> None:
    convs = [m for m in build(discriminator_widths=widths).discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == channels


def test_the_defaults_are_those_of_the_code() -> None:
    with torch.device("meta"):
        model = TACGAN(image_size=128, text_encoder={"kind": "hashing", "dim": 4800})
    assert sum(p.numel() for p in model.generator.parameters()) == 17_234_243
    assert sum(p.numel() for p in model.discriminator.parameters()) == 9_305_959
    found = {key: model.hparams[key] for key in ("learning_rate", "beta1", "lr_decay", "noise_dim", "class_loss")}
    assert found == {"learning_rate": 2e-4, "beta1": 0.5, "lr_decay": 1.0, "noise_dim": 100, "class_loss": "sigmoid"}
    assert model.hparams["batch_stats"] == "always"


@pytest.mark.parametrize("classes", [23, 25])
def test_the_number_of_classes_is_compared(build: Any, build_trainer: Any, tiny_data: Any, classes: int) -> None:
    sentence = rf"the model has {classes} classes and the data have 24: set --model\.num_classes to that number"
    with pytest.raises(T2IError, match=sentence):
        build_trainer().fit(build(num_classes=classes), tiny_data)


@pytest.mark.parametrize("options", [{"class_loss": "softmax"}, {"discriminator_widths": "paper_era"}])
def test_variants_train_and_validate(build: Any, build_data: Any, build_trainer: Any, options: dict[str, Any]) -> None:
    trainer = build_trainer(limit_train_batches=2, limit_val_batches=1)
    trainer.fit(model := build(image_size=48, **options), build_data(image_size=48))
    assert model.clock == 2
    terms = {"real", "wrong", "fake", "class_real", "class_wrong", "class_fake", "loss"}
    wanted = {f"discriminator_{term}" for term in terms} | {f"generator_{t}" for t in ("fake", "class_fake", "loss")}
    for stage in ("train", "val"):
        logged = {key: value for key, value in trainer.callback_metrics.items() if key.startswith(f"{stage}/")}
        assert {key.removeprefix(f"{stage}/") for key in logged} == wanted
        assert all(value.isfinite() for value in logged.values())
