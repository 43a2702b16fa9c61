"""Ways on from a checkpoint: a resumed run takes no overrides, a fine-tuning run takes any; and whose class it is."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file
from torch import Tensor, nn

from t2i_zoo.__main__ import main
from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.exported import pack, write
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.quiet import quieten
from t2i_zoo.runs import check_no_overrides

TINY = {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4}
NETWORKS = ("generator", "generator_ema", "discriminator")


@pytest.fixture
def trained(tiny_options: dict[str, Any], tiny_data: Any, build_trainer: Any, tmp_path: Path) -> tuple[GANCLS, Path]:
    """A model after one epoch, and its checkpoint."""
    L.seed_everything(0, verbose=False)
    model, trainer = GANCLS(**tiny_options, **TINY), build_trainer()
    trainer.fit(model, tiny_data)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    return model, tmp_path / "first.ckpt"


def networks(model: TextToImageGAN) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items() if name.startswith(NETWORKS)}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


class Start(L.Callback):
    """The optimizers as they are before the first batch."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.clock = pl_module.clock
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
        self.moments = sum(len(optimizer.state) for optimizer in trainer.optimizers)


def test_fine_tuning_begins_anew(trained: Any, tiny_options: Any, build_data: Any, build_trainer: Any) -> None:
    former, path = trained
    options = {**tiny_options, **TINY, "learning_rate": 0.01, "mismatch_weight": 0.25, "ema_decay": 0.5}
    model = GANCLS(**options, weights=str(path))
    assert_same(networks(former), networks(model))
    trainer = build_trainer(callbacks=[start := Start()])
    trainer.fit(model, build_data())
    assert (start.clock, start.rates, start.moments) == (0, [0.01, 0.01], 0)
    trainer.save_checkpoint(path.with_name("second.ckpt"))
    path.unlink()  # what a fine-tuning run began from may go
    again = load_model(path.with_name("second.ckpt"))
    assert_same(networks(model), networks(again))
    assert again.hparams["mismatch_weight"] == 0.25


@pytest.mark.parametrize("averaged", [True, False])
def test_from_safetensors(trained: Any, tiny_options: Any, averaged: bool, tmp_path: Path) -> None:
    former, _ = trained
    kept = NETWORKS if averaged else ("generator.", "discriminator.")
    weights = {name: t for name, t in networks(former).items() if name.startswith(kept)}
    save_file(weights, tmp_path / "weights.safetensors")
    model = GANCLS(**tiny_options, **TINY, weights=str(tmp_path / "weights.safetensors"))
    wanted = networks(former)
    if not averaged:  # then the average starts at the live weights
        wanted |= {
            name.replace("generator.", "generator_ema."): t for name, t in wanted.items() if "generator." in name
        }
    assert_same(wanted, networks(model))


def test_shapes_are_compared(trained: Any, tiny_options: Any) -> None:
    _, path = trained
    shapes = r"generator\.layers.*has shape \(12, 8, 4, 4\) there and \(12, 16, 4, 4\) here"
    with pytest.raises(T2IError, match=rf"{shapes}: it was trained with --model\.generator_width 4, so add that$"):
        GANCLS(**tiny_options, **{**TINY, "generator_width": 8}, weights=str(path))
    with pytest.raises(T2IError, match=r"discriminator.* there and .* here: .* --model\.discriminator_width 4, so add"):
        GANCLS(**tiny_options, **{**TINY, "discriminator_width": 8}, weights=str(path))


LIGHT = {"architecture": "light", "large": True}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "--model.architecture light --model.large true"),
        ({"architecture": "light"}, "--model.large true"),
        (
            {**LIGHT, "text_encoder": {"kind": "hashing", "dim": 48}, "noise_dim": 5},
            '--model.noise_dim 4 --model.text_encoder "{kind: hashing, dim: 32}"',
        ),
        ({**LIGHT, "image_size": 16}, "--model.image_size 32"),
    ],
)
def test_a_generator_of_other_options_is_refused_with_them(
    tiny_options: Any, tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    """Most of its weights would be left out without a word, and training would begin nearly anew."""
    former = {**tiny_options, **TINY, "image_size": 32}
    write(*map(_dumped, pack(GANCLS(**former, **LIGHT), "gancls")), tmp_path / "light.safetensors")
    with pytest.raises(T2IError, match=rf"light\.safetensors.*: it was trained with {re.escape(told)}, so add that$"):
        GANCLS(**{**former, **changed}, weights=str(tmp_path / "light.safetensors"))


def _dumped(part: Any) -> Any:
    return json.dumps(part) if "hparams" in part else part


def test_another_model_is_named(trained: Any, tiny_options: Any) -> None:
    with pytest.raises(T2IError, match=r"that this Sketch lacks.*: it holds a GANCLS, so give the file of a Sketch$"):
        Sketch(**tiny_options, weights=str(trained[1]))


def test_next_to_nothing_of_a_generator_is_refused(tiny_options: Any, tmp_path: Path) -> None:
    bias = {"generator.project.0.bias": networks(GANCLS(**tiny_options, **TINY))["generator.project.0.bias"]}
    save_file(bias, tmp_path / "bias.safetensors")
    with pytest.raises(T2IError, match=r"holds 8 of the [\d,]+ numbers of this GANCLS's generator: give the model the"):
        GANCLS(**tiny_options, **TINY, weights=str(tmp_path / "bias.safetensors"))


def test_options_without_a_shape_are_noted(trained: Any, tiny_options: Any, recwarn: Any) -> None:
    changed = {"text_encoder": {"kind": "hashing", "dim": 32}, "third_activation": False, "r1": 1.0}
    GANCLS(**{**tiny_options, **TINY, **changed}, weights=str(trained[1]))
    (found,) = (str(warning.message) for warning in recwarn)
    assert found == (
        f"{trained[1]} was trained with --model.third_activation true, and this run has --model.third_activation false"
    )


def test_notes_are_no_lines_of_code(tiny_options: Any, tmp_path: Path, capsys: Any, recwarn: Any) -> None:
    kept = {k: v for k, v in networks(GANCLS(**tiny_options, **TINY)).items() if k.startswith("generator.")}
    save_file(kept, tmp_path / "half.safetensors")
    with warnings.catch_warnings():  # which restores how they are shown
        quieten()
        quieten()
        GANCLS(**tiny_options, **TINY, weights=str(tmp_path / "half.safetensors"))
        warnings.warn("of others", stacklevel=1)
    assert (
        capsys.readouterr().err == f"note: {tmp_path / 'half.safetensors'} holds no discriminator, which begins anew\n"
    )
    assert [str(warning.message) for warning in recwarn] == ["of others"]


@pytest.mark.parametrize("name", ["gone.ckpt", "gone.safetensors"])
def test_a_missing_file_is_named(tiny_options: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(T2IError, match=f"found no .* at .*{name}"):
        GANCLS(**tiny_options, **TINY, weights=str(tmp_path / name))


def test_foreign_weights_are_refused(tiny_options: Any, tmp_path: Path) -> None:
    save_file({"net.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(T2IError, match=r"holds no weight of a GANCLS: give another file"):
        GANCLS(**tiny_options, **TINY, weights=str(tmp_path / "other.safetensors"))
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(T2IError, match=r"other\.ckpt was not written by t2i-zoo"):
        GANCLS(**tiny_options, **TINY, weights=str(tmp_path / "other.ckpt"))


def test_what_is_not_there_starts_anew(trained: Any, tiny_options: Any, tmp_path: Path) -> None:
    former, _ = trained
    weights = {name: t for name, t in networks(former).items() if name.startswith("generator.")}
    save_file(weights, tmp_path / "half.safetensors")
    with pytest.warns(UserWarning, match=r"half\.safetensors holds no discriminator, which begins anew"):
        model = GANCLS(**tiny_options, **TINY, weights=str(tmp_path / "half.safetensors"))
    assert_same(
        {name: t for name, t in networks(model).items() if name.startswith("generator.")},
        weights,
    )


def test_a_loaded_model_trains_on_with_the_seed_of_its_run(trained: Any, build_data: Any, build_trainer: Any) -> None:
    ends = []
    for seed in (1, 2):
        L.seed_everything(seed, verbose=False)
        build_trainer(limit_train_batches=1).fit(model := load_model(trained[1]), build_data())
        ends.append(networks(model)["generator.layers.0.weight"])
    assert not torch.equal(*ends)


class Rows(CSVLogger):
    """The losses that are written, by batch."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows = {**getattr(self, "rows", {}), step: metrics["train/generator_loss"]}


def test_a_loaded_model_logs_the_batch_that_is_written(
    trained: Any, build_data: Any, build_trainer: Any, tmp_path: Path
) -> None:
    rows = []
    for clock in (0, 3):  # as of another run
        model, logger = load_model(trained[1]), Rows(tmp_path)
        model.clock = clock
        L.seed_everything(5, verbose=False)
        build_trainer(limit_train_batches=4, log_every_n_steps=2, logger=logger, max_epochs=2).fit(model, build_data())
        rows.append(logger.rows)
    assert rows[0] == pytest.approx(rows[1])
    assert list(rows[0]) == [1, 3, 5, 7]


def test_one_data_module_serves_one_model_after_another(tiny_options: Any, tiny_data: Any, build_trainer: Any) -> None:
    assert len(tiny_data.vocabulary()) > 20  # asking before any training must not keep it from being set up
    for dim in (32, 48):
        model = GANCLS(**{**tiny_options, "text_encoder": {"kind": "hashing", "dim": dim}}, **TINY)
        build_trainer(limit_train_batches=1).fit(model, tiny_data)
        assert model.clock == 1


# Resuming -----------------------------------------------------------------------------------------------------------


def test_a_resumed_run_takes_no_overrides() -> None:
    saved = {"learning_rate": 0.1, "weights": None, "text_encoder": {"kind": "hashing", "assets": {"a": "b"}}}
    same = {"learning_rate": 0.1, "weights": "first.ckpt", "text_encoder": {"kind": "hashing"}}
    check_no_overrides(saved, same, Path("last.ckpt"))
    with pytest.raises(T2IError, match=r"trained with --model\.learning_rate 0\.1 and the command says 0\.2"):
        check_no_overrides(saved, {**same, "learning_rate": 0.2}, Path("last.ckpt"))
    with pytest.raises(T2IError, match=r"--model\.text_encoder .*start a new run .* --model\.weights last\.ckpt"):
        check_no_overrides(saved, {**same, "text_encoder": {"kind": "hashing", "dim": 8}}, Path("last.ckpt"))


def fit(folder: Path, *words: str) -> int:
    """``t2i-zoo fit`` of a tiny model on the flowers of this run."""
    flags = {
        **{"model": "GANCLS", "model.image_size": 16, "model.generator_width": 4, "model.discriminator_width": 4},
        **{"model.text_encoder": "{kind: hashing, dim: 32}", "data.image_size": 16, "data.batch_size": 8},
        **{"data.source": "SyntheticFlowers", "data.source.images": 64, "data.source.size": 24},
        **{"trainer.default_root_dir": folder, "trainer.accelerator": "cpu", "trainer.enable_progress_bar": "false"},
        **{"trainer.enable_model_summary": "false", "trainer.limit_val_batches": 0, "samples.rows": 1},
    }
    return main(["fit", *(f"--{name}={value}" for name, value in flags.items()), *words])


def test_resume_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(tmp_path, "--trainer.max_epochs=1") == 0
    clock = load_model(tmp_path).clock
    capsys.readouterr()
    assert fit(tmp_path, "--trainer.max_epochs=2", "--ckpt_path=last", "--model.learning_rate=0.01") == 2
    sentence = capsys.readouterr().err
    assert "was trained with --model.learning_rate 0.0002 and the command says 0.01" in sentence
    assert "--model.weights" in sentence
    assert fit(tmp_path, "--trainer.max_epochs=2", "--ckpt_path=last") == 0
    assert load_model(tmp_path).clock == 2 * clock > 0
    assert len(list(tmp_path.glob("version_*"))) == 1  # resumed in place


# Classes of one's own -----------------------------------------------------------------------------------------------


class Strokes(nn.Module):
    """One linear layer from noise and sentence to a picture."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 3 * 16 * 16)

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        return self.layer(torch.cat([noise, sentence], 1)).tanh().unflatten(1, (3, 16, 16))


class Sketch(TextToImageGAN):
    """A user's model: two networks and two losses."""

    def __init__(self, *, ink: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.set_networks(Strokes(4 + self.text_encoder.dim), nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1)))

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        return {"loss": (self.discriminator(fakes.images[-1]) - self.discriminator(batch["images"][-1])).mean()}

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        return {"loss": -self.hparams["ink"] * self.discriminator(fakes.images[-1]).mean()}


class Etching(Sketch):
    """Its sibling: the same signature and the same shapes."""


@pytest.mark.parametrize("cls", [Sketch, Etching])
def test_a_class_of_ones_own(cls: Any, tiny_options: Any, tiny_data: Any, build_trainer: Any, tmp_path: Path) -> None:
    """Trap 18: a checkpoint is rebuilt as the class that it was saved from, not as one that fits as well."""
    trainer = build_trainer()
    trainer.fit(model := cls(ink=2.0, **tiny_options), tiny_data)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    found = load_model(tmp_path / "own.ckpt")
    assert type(found) is cls
    assert found.hparams["ink"] == 2.0
    assert_same(networks(model), networks(found))


def test_a_class_that_is_not_imported(trained: Any) -> None:
    _, path = trained
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["t2i_zoo"]["model"] = "studio.models.Fresco"
    torch.save(checkpoint, path)
    with pytest.raises(T2IError, match=r"made by studio\.models\.Fresco, which is not imported: import it before"):
        load_model(path)
