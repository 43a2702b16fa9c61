"""The classifier: what it learns and leaves alone, which classes, its numbers, checkpoints, and its use by metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn

from t2i_zoo import load_model
from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.errors import T2IError
from t2i_zoo.models.classifier import Classifier
from t2i_zoo.models.classifier.losses import class_loss, ranks, summary
from t2i_zoo.models.classifier.networks import augment
from t2i_zoo.models.serving import first_of_each


@pytest.fixture
def build(tiny_widths: Any) -> Any:
    """``build(classes="test")``: a tiny classifier with seeded weights."""

    def seeded(**changed: Any) -> Classifier:
        L.seed_everything(3, verbose=False)
        return Classifier(**{**tiny_widths("classifier"), **changed})

    return seeded


@pytest.fixture
def build_data() -> Any:
    """Drawn flowers of all 24 classes in both parts, 160 of them."""

    def made(split: str = "random", **options: Any) -> CaptionDataModule:
        source = SyntheticFlowers(images=160, size=24, split=split)  # type: ignore[arg-type]
        return CaptionDataModule(source, **{"image_size": 16, "batch_size": 24, **options})

    return made


@pytest.fixture
def frozen(build: Any, tmp_path: Path) -> Any:
    """A classifier on the frozen features of a file."""
    net = build().network.backbone.net.state_dict()
    torch.save(net | {"fc.weight": torch.zeros(1000, 1024), "fc.bias": torch.zeros(1000)}, tmp_path / "net.pth")
    weights = {"backbone_weights": str(tmp_path / "net.pth"), "train_backbone": False}
    return lambda **changed: build(**{**weights, **changed})


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def plain(count: int = 4) -> tuple[Tensor, Tensor]:
    """Pictures of one colour each, and their classes."""
    colours = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [1, 1, 1], [-1, 1, -1]])[:count]
    return colours[:, :, None, None].expand(-1, -1, 32, 32).contiguous(), torch.arange(count)


# Learning -------------------------------------------------------------------------------------------------------------


def test_it_learns_classes_on_frozen_features(frozen: Any) -> None:
    model = frozen(num_classes=4)
    pictures, labels = plain()
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        "network.head.weight",
        "network.head.bias",
    ]
    before = copies(model.network.backbone)
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.3)
    model.train()
    for _ in range(60):
        loss = class_loss(model(pictures), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    seen = model.see(pictures)
    assert seen.logits is not None
    assert seen.logits.argmax(1).tolist() == labels.tolist()
    assert (seen.features.shape, seen.logits.shape) == ((4, 1024), (4, 4))
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.network.backbone.state_dict().items())


@pytest.mark.parametrize(("trained", "batch_norm"), [(True, None), (True, "eval"), (False, None), (False, "train")])
def test_what_moves_in_the_backbone(
    build: Any, frozen: Any, build_trainer: Any, build_data: Any, trained: bool, batch_norm: str | None
) -> None:
    model = build(batch_norm=batch_norm) if trained else frozen(batch_norm=batch_norm)
    before = copies(model.network.backbone)
    build_trainer(limit_train_batches=2).fit(model, build_data())
    moved = {key for key, value in model.network.backbone.state_dict().items() if not torch.equal(value, before[key])}
    statistics = {key for key in before if "running" in key or "tracked" in key}
    assert bool(moved - statistics) == trained
    assert bool(moved & statistics) == (batch_norm == "train" or (trained and batch_norm is None))


def test_smoothing_and_pictures_without_a_class() -> None:
    logits, rows = torch.randn(5, 3), torch.tensor([0, -1, 2, 1, -1])
    known = rows >= 0
    expected = F.cross_entropy(logits[known], rows[known], label_smoothing=0.2)
    assert float(class_loss(logits, rows, 0.2)) == pytest.approx(float(expected), rel=1e-6)
    assert float(class_loss(logits, torch.full((5,), -1), 0.2)) == 0


def test_the_rate_falls_by_a_half_cosine(build: Any, build_trainer: Any, build_data: Any) -> None:
    rates: list[float] = []
    note = LambdaCallback(on_train_epoch_start=lambda t, _: rates.append(t.optimizers[0].param_groups[0]["lr"]))
    build_trainer(max_epochs=4, limit_train_batches=1, callbacks=[note]).fit(build(learning_rate=0.1), build_data())
    assert rates == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)
    with pytest.raises(T2IError, match=r"found no --trainer\.max_epochs.*--model\.cosine_decay"):
        build_trainer(max_epochs=-1, max_steps=1).fit(build(), build_data())
    trainer = build_trainer(max_epochs=-1, max_steps=1)
    trainer.fit(build(cosine_decay=False), build_data())
    assert trainer.global_step == 1


# Augmentation ---------------------------------------------------------------------------------------------------------


def test_augmentation_is_off_by_default_and_of_each_picture_its_own() -> None:
    pictures = torch.linspace(-1, 1, 16).expand(6, 3, 16, 16).contiguous()
    assert augment(pictures, 0.0, 1.0) is pictures
    for colour, scale in ((0.4, 1.0), (0.0, 0.4)):
        first, again = (augment(pictures, colour, scale, torch.Generator().manual_seed(1)) for _ in range(2))
        assert torch.equal(first, again)
        assert first.shape == pictures.shape
        assert first.abs().max() <= 1
        assert len({tuple(picture.flatten().tolist()) for picture in first}) == 6


def test_scale_enlarges_a_square_of_the_picture() -> None:
    """Of a ramp from left to right a square shows a shorter ramp, and nothing from outside the picture."""
    ramp = torch.linspace(-1, 1, 64).expand(200, 3, 64, 64).contiguous()
    found = augment(ramp, 0.0, 0.25, torch.Generator().manual_seed(0))[:, 0, 32]
    share = (found[:, -1] - found[:, 0]) / 2
    assert 0.2 < share.min() < 0.35
    assert 0.9 < share.max() <= 1
    assert found[:, 0].min() < -0.9  # at the edges, too
    assert found[:, -1].max() > 0.9
    assert (found.diff(dim=1) > -1e-6).all()


# Classes --------------------------------------------------------------------------------------------------------------


def test_all_classes_of_the_data(build: Any, build_trainer: Any, build_data: Any) -> None:
    model, data = build(), build_data()
    build_trainer(limit_train_batches=1).fit(model, data)
    assert model.class_numbers == list(range(24))
    assert model.see(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 24)
    assert model.label == "SyntheticFlowers classifier"
    with pytest.raises(T2IError, match="has 5 classes and the data have 24"):
        build_trainer().fit(build(num_classes=5), data)


def test_only_the_test_classes(build: Any, build_trainer: Any, build_data: Any) -> None:
    model, data = build(classes="test"), build_data()
    wanted = {r.class_id for r in SyntheticFlowers(images=160, size=24).records() if r.split == "test"}
    build_trainer(limit_train_batches=1, limit_val_batches=1.0).fit(model, data)
    assert model.class_numbers == sorted(wanted)
    assert len(wanted) == model.network.num_logits == 4
    assert model.label == "SyntheticFlowers test-class classifier"
    assert model.row_of[torch.tensor([-1, *sorted(wanted)])].tolist() == [-1, 0, 1, 2, 3]
    held = data.store.labels[data.store.rows("test")].tolist()
    assert model.held_out["pictures"] == sum(label in wanted for label in held) > 0


def test_classes_that_cannot_be_had(build: Any, build_trainer: Any, build_data: Any) -> None:
    with pytest.raises(T2IError, match=r"no held-out image of the 20 classes.*--data\.source\.split random"):
        build_trainer().fit(build(), build_data("class_disjoint"))
    with pytest.raises(T2IError, match="no held-out image of the 0 classes"):
        build_trainer().fit(build(classes="test"), build_data("class_disjoint"))
    data = build_data()
    data.setup()
    data.store.labels = data.store.labels * 0 - 1
    with pytest.raises(T2IError, match="found no classes in the data"):
        build_trainer().fit(build(), data)


# Numbers --------------------------------------------------------------------------------------------------------------


def test_ranks_count_ties_and_nan_against_it() -> None:
    rows = torch.tensor([1, 1, 1, 1])
    logits = torch.tensor([[0.0, 2, 1], [3, 2, 1], [2, 2, 2], [0, float("nan"), 1]])
    assert ranks(logits, rows).tolist() == [0, 1, 2, 2]


def test_each_picture_counts_once_and_chance_is_the_commonest_class() -> None:
    index = torch.tensor([3, 0, 1, 2, 3, 4])
    rows = torch.tensor([0, 0, 1, 0, 0, -1])
    rank = torch.tensor([0, 7, 0, 4, 0, 0])
    loss = torch.tensor([1.0, 2, 3, 4, 1, 99])
    once = first_of_each(index)
    assert index[once].tolist() == [0, 1, 2, 3, 4]
    found = summary(rows[once], rank[once], loss[once], 9)
    expected = {"loss": 2.5, "accuracy": 0.5, "accuracy_chance": 0.75, "accuracy_top5": 0.75}
    expected |= {"accuracy_top5_chance": 1.0, "pictures": 4.0}
    assert {key: float(value) for key, value in found.items()} == pytest.approx(expected)


def test_validation_is_over_the_whole_split(build: Any, build_trainer: Any, build_data: Any) -> None:
    model, data = build(), build_data(batch_size=5)
    trainer = build_trainer(limit_train_batches=2, limit_val_batches=1.0)
    trainer.fit(model, data)
    rows = torch.from_numpy(data.store.rows("test"))
    pictures, labels = [], torch.from_numpy(data.store.labels)[rows]
    for part in data.val_dataloader():
        pictures.append(data.on_after_batch_transfer(part)["images"][-1])
    logits = model.see(torch.cat(pictures)).logits
    right = (logits.argmax(1) == labels).float().mean()
    near = (logits.topk(5).indices == labels[:, None]).any(1).float().mean()
    found = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    assert model.held_out["pictures"] == len(rows) == 16
    assert found["val/accuracy"] == model.held_out["accuracy"] == pytest.approx(float(right))
    assert found["val/accuracy_top5"] == pytest.approx(float(near))
    assert found["val/accuracy_chance"] == pytest.approx(float(labels.bincount().max()) / 16)
    assert found["val/loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)


# Checkpoints ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_whole_and_starts_another_run(
    build: Any, build_trainer: Any, build_data: Any, tmp_path: Path
) -> None:
    trainer, model = build_trainer(limit_train_batches=2, limit_val_batches=1.0), build(classes="test")
    trainer.fit(model, build_data())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again, pictures = load_model(tmp_path / "last.ckpt"), plain()[0]
    assert isinstance(again, Classifier)
    assert (again.class_numbers, again.label) == (model.class_numbers, model.label)
    assert again.held_out == model.held_out
    assert again.held_out["clock"] == 2
    assert again.fingerprint == model.fingerprint
    for one, two in zip(again.see(pictures), model.see(pictures), strict=True):
        assert torch.equal(one, two)
    started = build(weights=str(tmp_path / "last.ckpt"), backbone_weights="pretrained")  # which the file brings
    assert started.fingerprint == model.fingerprint
    assert started.class_numbers == model.class_numbers
    fresh = build(classes="test")  # the command line builds it so, and then the checkpoint is restored
    judge = build_trainer(limit_val_batches=1.0)
    (numbers,) = judge.validate(fresh, build_data(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert numbers["val/accuracy"] == pytest.approx(model.held_out["accuracy"])


def test_refusals(build: Any, build_trainer: Any, build_data: Any) -> None:
    for options, message in (
        ({"train_backbone": False}, "backbone_weights random with a frozen backbone"),
        ({"backbone": "file:net.pt"}, r"train_backbone with file:net\.pt, which stays frozen"),
        ({"num_classes": 1}, "num_classes 1, expected at least 2"),
        ({"label_smoothing": 1.0}, r"label_smoothing 1\.0, expected 0 or more, and less than 1"),
        ({"colour": -0.1}, r"colour -0\.1, expected"),
        ({"scale": 0.0}, r"scale 0\.0, expected more than 0"),
        ({"classes": "train"}, "classes train, expected one of all, test"),
    ):
        with pytest.raises(T2IError, match=message):
            build(**options)
    with pytest.raises(T2IError, match="Classifier generates no images: give its run to t2i-zoo evaluate"):
        build_trainer().predict(build(num_classes=24), build_data())
    model = build()
    model._take(list(range(5)))
    with pytest.raises(T2IError, match="made for data of 5 classes and these have 24"):
        build_trainer(limit_val_batches=1).validate(model, build_data(), verbose=False)
