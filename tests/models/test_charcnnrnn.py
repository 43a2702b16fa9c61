"""char-CNN-RNN in training: its loss and measure by hand, what is trained, resuming, and a GAN that reads a run."""

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
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.charcnnrnn import CharCNNRNN
from t2i_zoo.models.charcnnrnn.losses import class_loss, class_retrieval, joint_embedding_loss
from t2i_zoo.text import build_text_encoder

CAPTIONS = ["a red flower with round petals", "blue petals on the sand", "a flower"]
WIDER = {"cnn_dim": 32, "dim": 24, "first_channels": 24, "second_channels": 24}  # where few of the ReLUs are dead


@pytest.fixture
def build(tiny_widths: Any) -> Any:
    """``build(variant="gru")``: a tiny model with seeded weights."""

    def seeded(**changed: Any) -> CharCNNRNN:
        L.seed_everything(3, verbose=False)
        classes = {"class_weight": 0.5, "num_classes": 24}
        return CharCNNRNN(**{**tiny_widths("charcnnrnn"), **classes, **changed})

    return seeded


@pytest.fixture
def keeper(tmp_path: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        tmp_path / "checkpoints", save_last=True, save_top_k=0, every_n_epochs=1, save_on_train_epoch_end=True
    )


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def batches(data: Any, loader: Any) -> list[Any]:
    return [data.on_after_batch_transfer(part) for part in loader]


# The loss and its measure -------------------------------------------------------------------------------------------


def test_the_loss_by_hand() -> None:
    images, sentences = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.5], [2.0, 1.0]])
    # scores: 3 and 2 of the first picture, 1 and 2 of the second
    found = joint_embedding_loss(images, sentences, None)
    assert float(found["image_to_text"]) == pytest.approx((0 + 0) / 4)  # 1 + 2 - 3, and 1 + 1 - 2
    assert float(found["text_to_image"]) == pytest.approx((0 + 1) / 4)  # 1 + 1 - 3 is below 0, and 1 + 2 - 2
    assert float(found["loss"]) == pytest.approx(0.25)
    wider = joint_embedding_loss(images, sentences, None, margin=2.0)
    assert float(wider["image_to_text"]) == pytest.approx((1 + 1) / 4)
    assert float(wider["text_to_image"]) == pytest.approx((0 + 2) / 4)
    one_way = joint_embedding_loss(images, sentences, None, margin=2.0, symmetric=False)
    assert float(one_way["loss"]) == pytest.approx(0.5)
    assert not joint_embedding_loss(images, sentences, torch.tensor([4, 4]), margin=2.0)["loss"].any()
    unknown = joint_embedding_loss(images, sentences, torch.tensor([-1, -1]), margin=2.0)
    assert torch.equal(unknown["loss"], wider["loss"])


def test_the_loss_is_a_sum_over_all_pairs() -> None:
    torch.manual_seed(0)
    images, sentences, labels = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 1, 0, 2, -1, -1])
    wanted = {"image_to_text": 0.0, "text_to_image": 0.0}
    for i in range(6):
        for j in range(6):
            if i != j and (labels[i] != labels[j] or labels[i] < 0):
                true = float(images[i] @ sentences[i])
                wanted["image_to_text"] += max(0.0, 1 + float(images[i] @ sentences[j]) - true) / 36
                wanted["text_to_image"] += max(0.0, 1 + float(images[j] @ sentences[i]) - true) / 36
    found = joint_embedding_loss(images, sentences, labels)
    assert {key: float(found[key]) for key in wanted} == pytest.approx(wanted, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(joint_embedding_loss(images, sentences, labels)["loss"], found["loss"])


def test_class_retrieval_by_hand() -> None:
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    sentences = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    labels = torch.tensor([5, 5, 5, 2])  # mean captions: (2/3, 1/3) of class 5, (0, 2) of class 2
    found = {key: float(value) for key, value in class_retrieval(images, sentences, labels).items()}
    assert found["class_accuracy"] == 1
    assert found["caption_class_accuracy"] == pytest.approx((2 / 3 + 1) / 2)  # of classes, not of captions
    assert found["class_chance"] == 0.5
    alone = class_retrieval(images[[0, 3]], sentences[[0, 3]], torch.tensor([-1, -1]))  # each is its own class
    assert {key: float(value) for key, value in alone.items()} == {
        **{"class_accuracy": 1, "caption_class_accuracy": 1, "class_chance": 0.5}
    }
    mixed = class_retrieval(images, sentences, torch.tensor([0, -1, 1, -1]))
    assert float(mixed["class_chance"]) == 0.25
    same = class_retrieval(torch.ones(6, 2), torch.ones(6, 2), torch.tensor([0, 0, 0, 1, 2, 3]))
    assert {float(value) for value in same.values()} == {0.25}  # who says the same of all has chance


def test_pictures_without_a_class_have_no_class_loss() -> None:
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    wanted = torch.nn.functional.cross_entropy(scores[:1], torch.tensor([0]))
    torch.testing.assert_close(class_loss(scores, torch.tensor([0, -1])), wanted)
    assert float(class_loss(scores, torch.tensor([-1, -1]))) == 0


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["rnn", "gru"])
def test_every_parameter_gets_a_gradient(build: Any, build_trainer: Any, tiny_data: Any, variant: str) -> None:
    build_trainer(limit_train_batches=1).fit(model := build(variant=variant, **WIDER), tiny_data)
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not lacking
    assert not [name for name, p in model.text_network.named_parameters() if not p.grad.any()]


def test_a_frozen_backbone_stays(build: Any, build_trainer: Any, tiny_data: Any, tmp_path: Path) -> None:
    torch.manual_seed(7)
    torch.save(torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict(), tmp_path / "w.pth")
    frozen = {"train_backbone": False, "backbone_weights": str(tmp_path / "w.pth"), "class_weight": 0.0}
    model = build(**frozen, image_projection=False, dim=1024)
    assert isinstance(model.image_network.projection, nn.Identity)
    before, text = copies(model.image_network), copies(model.text_network)
    build_trainer(limit_train_batches=2).fit(model, tiny_data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in copies(model.image_network).items())
    assert not torch.equal(model.text_network.linear.weight, text["linear.weight"])
    images = torch.rand(2, 3, 20, 20)
    assert torch.equal(model.train().image_network(images)[0], model.image_codes(images))  # as in eval mode


def test_the_rate_falls_after_each_epoch(build: Any, build_trainer: Any, build_data: Any) -> None:
    rates: list[float] = []
    watch = LambdaCallback(
        on_train_epoch_start=lambda trainer, _: rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    )
    trainer = build_trainer(max_epochs=3, limit_train_batches=1, callbacks=[watch])
    trainer.fit(build(lr_decay=0.5), build_data())
    assert rates == pytest.approx([7e-4, 3.5e-4, 1.75e-4])
    assert isinstance(trainer.optimizers[0], torch.optim.RMSprop)


def test_it_learns_a_batch(build: Any, build_data: Any) -> None:
    data = build_data(order="class_balanced")
    data.prepare_data()
    data.setup()
    model = build(learning_rate=3e-3, **WIDER)
    optimizer = model.configure_optimizers()["optimizer"]
    batch = batches(data, data.train_dataloader())[0]
    found = []
    for _ in range(40):
        optimizer.zero_grad()
        terms = model(batch)[0]
        terms["loss"].backward()
        optimizer.step()
        found.append({key: float(value.detach()) for key, value in terms.items()})
    assert found[-1]["image_to_text"] < 0.3 * found[0]["image_to_text"]
    assert found[-1]["text_to_image"] < 0.3 * found[0]["text_to_image"]
    for terms in found:
        whole = terms["image_to_text"] + terms["text_to_image"] + 0.5 * terms["class"]
        assert terms["loss"] == pytest.approx(whole, rel=1e-5)


# Evaluation and checkpoints -----------------------------------------------------------------------------------------


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
    for key, value in class_retrieval(codes, sentences, labels).items():
        assert metrics[f"val/{key}"] == pytest.approx(float(value), abs=1e-6), key
    assert {"val/loss", "val/image_to_text", "val/class", "train/loss"} <= metrics.keys()
    assert metrics["val/class_chance"] == pytest.approx(1 / len(labels.unique()))
    trainer.test(model, data, verbose=False)
    assert 0 <= float(trainer.callback_metrics["test/class_accuracy"]) <= 1


@pytest.mark.parametrize("variant", ["rnn", "gru"])
def test_a_checkpoint_is_whole_and_has_an_encoder(
    build: Any, build_trainer: Any, tiny_data: Any, keeper: ModelCheckpoint, tmp_path: Path, variant: str
) -> None:
    options = {"variant": variant, "lowercase": variant == "gru"}
    build_trainer(limit_train_batches=1, callbacks=[keeper]).fit(model := build(**options), tiny_data)
    found = load_model(tmp_path)
    assert isinstance(found, CharCNNRNN)
    images, captions = torch.rand(2, 3, 20, 20), [*CAPTIONS, "A Red Flower"]
    wanted = model.sentence_codes(captions)
    assert torch.equal(found.sentence_codes(captions), wanted)
    assert torch.equal(found.image_codes(images), model.image_codes(images))
    assert set(model.hparams) == set(inspect.signature(CharCNNRNN.__init__).parameters) - {"self"}
    started = build(**options, weights=str(tmp_path), backbone_weights="pretrained")  # fetches nothing
    assert torch.equal(started.sentence_codes(captions), wanted)
    encoder = build_text_encoder({"kind": "char_cnn_rnn", "path": str(tmp_path)})
    assert torch.equal(encoder.encode(captions).sentence, wanted)
    assert model.training
    assert not wanted.requires_grad


def test_from_captions_to_pictures_on_the_command_line(
    tiny_widths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train by the config, train a GAN on it, lose the run, and draw a new sentence."""
    monkeypatch.chdir(tmp_path)
    SyntheticFlowers(str(tmp_path / "set"), images=48, size=24).records()
    place = ["--data.source.root", str(tmp_path / "set"), "--data.batch_size", "8", "--data.image_size", "16"]
    quick = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]
    quick += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    widths = [word for k, v in tiny_widths("charcnnrnn").items() for word in (f"--model.{k}", str(v).lower())]
    sides = ["--data.load_size", "19", "--trainer.log_every_n_steps", "1"]
    assert main(["fit", "--config", "charcnnrnn_flowers", *place, *quick, *widths, *sides]) == 0
    run = tmp_path / "runs" / "charcnnrnn_flowers"
    assert {path.name for path in (run / "version_0" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    header = (run / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"val/class_accuracy", "val/caption_class_accuracy", "val/class_chance"} <= set(header.split(","))
    again = ["--config", str(run / "version_0" / "config.yaml"), "--trainer.default_root_dir", str(run)]
    capsys.readouterr()
    assert main(["predict", *again, "--ckpt_path", "last"]) == 2
    assert "CharCNNRNN generates no images" in capsys.readouterr().err
    small = ["--model.generator_width", "4", "--model.discriminator_width", "4", "--model.image_size", "16"]
    spec = ["--model.text_encoder", f"{{kind: char_cnn_rnn, path: {run}}}", "--samples.rows", "2"]
    assert main(["fit", "--config", "gancls_flowers", *place, *quick, *small, *spec]) == 0
    gan = tmp_path / "runs" / "gancls_flowers"
    noise, sentence = torch.zeros(1, 100), ["a violet flower with a red centre"]
    before = load_model(gan).generate(sentence, noise=noise)
    run.rename(tmp_path / "elsewhere")
    model = load_model(gan)
    assert model.text_encoder.dim == 12
    assert torch.equal(model.generate(sentence, noise=noise), before)
    assert model.unknown_words("a zxqv flöwer") == ["flöwer", "zxqv"]


# Mistakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variant": "lstm"}, r"found --model\.variant lstm, expected rnn or gru"),
        ({"cnn_dim": 0}, r"found --model\.cnn_dim 0, expected at least 1"),
        ({"margin": 0.0}, r"found --model\.margin 0\.0, expected more than 0"),
        ({"num_classes": None}, r"found --model\.class_weight without --model\.num_classes"),
        ({"train_backbone": False}, r"found --model\.backbone_weights random with a frozen backbone"),
        ({"image_projection": False}, r"gives 1024 features and captions have 12, .*set --model\.dim to 1024, or"),
        ({"backbone": "inception_v3_tf"}, r"found --model\.backbone inception_v3_tf, expected torchvision:NAME, effic"),
        ({"backbone": "file:net.pt"}, r"found --model\.train_backbone with file:net\.pt, which stays frozen"),
    ],
)
def test_wrong_options(build: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        build(**options)


def test_data_that_do_not_fit(build: Any, build_trainer: Any, build_data: Any) -> None:
    with pytest.raises(T2IError, match=r"found --data\.batch_size 1, expected at least 2 images"):
        build_trainer().fit(build(), build_data(batch_size=1))
    data = build_data()
    data.prepare_data()
    data.captions_of = lambda split: []
    with pytest.raises(T2IError, match="found no training captions: give CharCNNRNN a CaptionDataModule"):
        build_trainer().fit(build(), data)
