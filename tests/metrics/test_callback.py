"""Evaluation during training: when it comes, what it writes, and that it leaves the training alone."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from t2i_zoo.callbacks.evaluation import Evaluation
from t2i_zoo.errors import T2IError
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.run_files import RunLogger

WIDTHS = {"generator_width": 8, "discriminator_width": 4, "projection_dim": 8}


@pytest.fixture
def fit(tmp_path, build_data, build_trainer, tiny_options):
    """``fit([callback], epochs)``: train, return the model and the run's folder."""

    def run(callbacks, epochs=2, name="a"):
        torch.manual_seed(0)
        model = GANCLS(**{**tiny_options, **WIDTHS})
        trainer = build_trainer(
            callbacks=callbacks, max_epochs=epochs, limit_train_batches=2, logger=RunLogger(tmp_path / name)
        )
        trainer.fit(model, build_data())
        return model, tmp_path / name / "version_0"

    return run


def test_when_and_what(fit):
    callback = Evaluation("agreement_synthetic", every_n_epochs=2, images=12)
    model, folder = fit([callback], epochs=5)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted({line["epoch"] for line in lines}) == [2, 4, 5]
    assert {line["metric"] for line in lines} >= {"agreement.petal_colour", "agreement.background"}
    for line in lines:
        assert line["protocol_hash"] == callback.protocol.hash
        assert line["images"] == 12
        assert 0 <= line["value"] <= 1
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "eval/agreement_synthetic/agreement.petal_colour" in header
    assert lines[-1]["batches"] == model.clock == 10


def test_the_training_does_not_notice(fit, small_network_file):
    callback = Evaluation("fmd_5k", 1, images=12, network=f"file:{small_network_file}")
    watched, folder = fit([callback], name="watched")
    alone, _ = fit([], name="alone")
    assert (folder / "metrics.jsonl").is_file()
    for name, value in alone.state_dict().items():
        assert torch.equal(watched.state_dict()[name], value), name
    assert not any("network" in name or "small" in name for name in watched.state_dict())
    assert next(callback.network.vision.parameters()).device.type == "cpu"


def test_mistakes_come_before_training(fit):
    with pytest.raises(T2IError, match="fmd_5k leaves its network open: give network to Evaluation"):
        Evaluation("fmd_5k")
    with pytest.raises(T2IError, match="found no protocol"):
        Evaluation("fid")
    with pytest.raises(T2IError, match="r_precision reads captions and resnet18 reads only images"):
        fit([Evaluation("rprec_clip", network="torchvision:resnet18", weights="random")])
    with pytest.raises(T2IError, match="no classifier named 'resnt18'"):
        fit([Evaluation("fmd_5k", network="torchvision:resnt18")])
    with pytest.raises(T2IError, match="found --images 12, expected a multiple of the protocol's 8 images per caption"):
        fit([Evaluation("diversity_caption", images=12)])
    smaller = Evaluation("agreement_synthetic", images=12)
    smaller.protocol = smaller.protocol.change(size=8)
    with pytest.raises(T2IError, match="of 8 px and data of 16 px, expected the same in training"):
        fit([smaller])


def test_the_end_may_come_before_the_last_epoch(fit):
    def stop(trainer, _):
        trainer.should_stop = True

    callback = Evaluation("agreement_synthetic", every_n_epochs=0, images=12)
    _, folder = fit([LambdaCallback(on_train_batch_end=lambda t, m, *_: stop(t, m)), callback], epochs=5)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {(line["epoch"], line["batches"]) for line in lines} == {(1, 1)}


def test_a_test_evaluates_too(fit, build_data, build_trainer, tmp_path):
    model, _ = fit([])
    callback = Evaluation("agreement_synthetic", images=12)
    trainer = build_trainer(callbacks=[callback], logger=RunLogger(tmp_path / "tested"))
    trainer.test(model, build_data(), verbose=False)
    (folder,) = (tmp_path / "tested").glob("version_*")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["metric"] for line in lines} >= {"agreement.petal_colour", "agreement.background"}
    assert {line["batches"] for line in lines} == {model.clock} == {4}
