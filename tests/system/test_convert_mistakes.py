"""t2i-zoo convert: what is wrong with files, models and commands, as one sentence, and nothing half written."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import save_file

from t2i_zoo.__main__ import main
from t2i_zoo.commands.official_states import find_format
from t2i_zoo.models import model_class

GAN = "aelnouby_gancls"
WIDTHS = {"generator_width": 4, "discriminator_width": 2}
PORT = {"architecture": "dcgan", "projection_dim": 8, **WIDTHS}


def save(name: str, options: dict[str, Any], path: Path) -> Path:
    """The checkpoint of an untrained tiny model that the format may or may not hold."""
    options = {"noise_dim": 5, "text_encoder": {"kind": "hashing", "dim": 16}, **options}
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=path.parent)
    trainer.strategy.connect(model_class(find_format(name).model)(**options))
    trainer.save_checkpoint(path, weights_only=False)
    return path


def convert(*words: Any) -> None:
    assert main(["convert", *map(str, words)]) == 0


@pytest.fixture
def official(tmp_path: Path) -> list[Path]:
    """Discriminator and generator of a tiny GAN-CLS of the port, written from ``gan.ckpt`` beside their folder."""
    convert("--to", GAN, save(GAN, PORT, tmp_path / "gan.ckpt"), "--out", tmp_path / "official")
    return sorted((tmp_path / "official").iterdir())


@pytest.fixture
def refused(official: list[Path], tmp_path: Path, mistake: Any) -> Any:
    """``refused(change)``: what is said of the generator's file after ``change(state dict)``; nothing is written."""

    def run(change: Any) -> str:
        state = torch.load(official[1], weights_only=True)
        change(state)
        torch.save(state, official[1])
        before = sorted(tmp_path.rglob("*"))
        said: str = mistake("convert", "--from", GAN, *map(str, official), "--out", str(tmp_path / "x.safetensors"))
        assert sorted(tmp_path.rglob("*")) == before
        return said

    return run


def test_a_key_with_another_name(refused: Any) -> None:
    said = refused(lambda state: state.update({"module.netG.3.wieght": state.pop("module.netG.3.weight")}))
    assert "gen_190.pth lacks netG.3.weight of shape (32, 16, 4, 4), which is generator.layers.3.weight here" in said
    assert said.endswith("is netG.3.wieght of shape (32, 16, 4, 4) meant?")


def test_a_key_that_the_widths_are_read_from(refused: Any) -> None:
    said = refused(lambda state: state.pop("module.netG.12.weight"))
    assert "gen_190.pth lacks netG.12.weight, from which the width of the networks is read" in said


def test_a_key_too_many(refused: Any) -> None:
    said = refused(lambda state: state.update({"module.netG.99.weight": torch.zeros(2, 3)}))
    assert "gen_190.pth: netG.99.weight of shape (2, 3) has no place in our network" in said


def test_another_shape(refused: Any) -> None:
    said = refused(lambda state: state.update({"module.netG.3.weight": torch.zeros(2, 3)}))
    assert "gen_190.pth: netG.3.weight has shape (2, 3) there, and generator.layers.3.weight has (32, 16, 4, 4)" in said


def test_shapes_that_no_network_has(refused: Any) -> None:
    said = refused(lambda state: state.update({"module.projection.0.weight": torch.zeros(())}))
    assert "gen_190.pth: found shapes that no network of aelnouby_gancls has" in said


def test_more_text_than_input(refused: Any) -> None:
    said = refused(lambda state: state.update({"module.netG.0.weight": torch.zeros(1, 32, 4, 4)}))
    assert "found shapes that no network of aelnouby_gancls has" in said


def test_files_of_two_runs(official: list[Path], tmp_path: Path, mistake: Any) -> None:
    convert("--to", GAN, save(GAN, {**PORT, "projection_dim": 9}, tmp_path / "b.ckpt"), "--out", tmp_path / "b")
    files = [str(official[1]), str(tmp_path / "b" / "disc_190.pth")]
    said = mistake("convert", "--from", GAN, *files, "--out", str(tmp_path / "x.safetensors"))
    theirs, ours = "projector.projection.0.weight has shape (9, 16)", "discriminator.project.0.weight has (8, 16)"
    assert said.endswith(f"disc_190.pth: {theirs} there, and {ours} here: give files of one training run")


def test_two_generators(official: list[Path], tmp_path: Path, mistake: Any) -> None:
    second = official[1].rename(tmp_path / "gen_100.pth")
    convert("--to", GAN, tmp_path / "gan.ckpt", "--out", tmp_path / "official", "--overwrite")
    files = [str(official[1]), str(second)]
    said = mistake("convert", "--from", GAN, *files, "--out", str(tmp_path / "x.safetensors"))
    assert said == f"{files[0]} and {files[1]} both hold the generator: give one of them"
    assert "twice" in mistake("convert", "--from", GAN, files[0], files[0], "--out", str(tmp_path / "x.safetensors"))


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(zipped: bool, tmp_path: Path, mistake: Any) -> None:
    torch.save({"a": Malicious(tmp_path / "ran")}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    said = mistake("convert", "--from", GAN, str(tmp_path / "a.pth"), "--out", str(tmp_path / "x.safetensors"))
    assert "a.pth holds posix.mkdir, which could run code, and is not read: give a file of weights alone" in said
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


FILES: dict[str, tuple[Any, str]] = {
    "page.pth": (b"\n<!DOCTYPE html><html></html>", "is a web page, not the file that it offers"),
    "empty.pth": (b"", "is no readable .pth file"),
    "archive.pth": (b"\x1f\x8b" + b"0" * 99, "is no readable .pth file .*unpack it if it is an archive"),
    "module.pth": (torch.nn.Linear(1, 1), "holds torch.nn.modules.linear.Linear, which could run code"),
    "list.pth": ([torch.zeros(1)], "holds a list, expected the state dict"),
    "nothing.pth": ({}, "holds a dict, expected the state dict"),
    "epochs.pth": ({"netG": {"a": torch.zeros(1)}}, "has a dict at 'netG', expected the state dict of one network"),
    "other.pth": ({"conv1.weight": torch.zeros(1)}, "holds no network of aelnouby_gancls: its first .* conv1.weight"),
}


@pytest.mark.parametrize("file", FILES)
def test_files_that_are_no_weights(file: str, tmp_path: Path, mistake: Any) -> None:
    content, sentence = FILES[file]
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        torch.save(content, tmp_path / file)
    said = mistake("convert", "--from", GAN, str(tmp_path / file), "--out", str(tmp_path / "x.safetensors"))
    assert said.startswith(f"{tmp_path / file} ")
    assert re.search(sentence, said), said


def test_half_a_file(official: list[Path], tmp_path: Path, mistake: Any) -> None:
    official[0].write_bytes(official[0].read_bytes()[:-100])
    said = mistake("convert", "--from", GAN, str(official[0]), "--out", str(tmp_path / "x.safetensors"))
    assert "disc_190.pth is no readable .pth file" in said


def test_a_former_file_outlives_a_failure(official: list[Path], tmp_path: Path, monkeypatch: Any, mistake: Any) -> None:
    out, before = tmp_path / "own.safetensors", [path.read_bytes() for path in official]
    convert("--from", GAN, *official, "--out", out)
    former = out.read_bytes()

    def half(state: Any, path: Path, *more: Any, **options: Any) -> None:
        path.write_text("half")
        raise OSError("disk full")

    def half_of(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", half_of)
    monkeypatch.setattr(torch, "save", half)
    assert "disk full" in mistake("convert", "--from", GAN, *map(str, official), "--out", str(out), "--overwrite")
    assert "disk full" in mistake(
        *("convert", "--to", GAN, str(tmp_path / "gan.ckpt"), "--out", str(tmp_path / "official"), "--overwrite")
    )
    assert out.read_bytes() == former
    assert [path.read_bytes() for path in sorted((tmp_path / "official").iterdir())] == before


WRONG_MODELS: list[tuple[str, dict[str, Any], str]] = [
    ("aelnouby_gancls", {**WIDTHS}, "found a model with architecture residual, expected architecture dcgan"),
    ("aelnouby_gancls", {"architecture": "dcgan", "image_size": 32, **WIDTHS}, "image_size 32, expected image_size 64"),
    ("stackgan_v1", {"ca_activation": "glu", "least_channels": 1, **WIDTHS}, "ca_activation"),
    ("stackgan_v1", {**WIDTHS}, "width 4 with at least 4 channels, expected 2 at its end as in the authors' code"),
    ("stackgan_v2", {"branches": 1, "image_size": 32, **WIDTHS}, "32 px, expected 64 px"),
    (
        "stackgan_v2",
        {"branches": 4, "image_size": 512, **WIDTHS, "generator_width": 8},
        "2 residual blocks in its fourth branch, expected 1 as in the authors' code",
    ),
    (
        "stackgan_v2",
        {"branches": 5, "image_size": 1024, "late_residual_blocks": 1, **WIDTHS, "generator_width": 16},
        "a model of 5 branches, expected at most 4",
    ),
    ("attngan", {"branches": 4, "image_size": 512, "damsm_weight": 0.0, **WIDTHS}, "4 branches, expected at most 3"),
    ("dfgan", {"image_size": 16, **WIDTHS}, "image_size 16, expected at least 32"),
    ("dfgan", {"variant": "preprint", "image_size": 64, **WIDTHS}, "variant preprint, expected variant cvpr"),
    ("dfgan_preprint", {"image_size": 64, **WIDTHS}, "variant cvpr, expected variant preprint"),
    ("dfgan_preprint", {"variant": "preprint", "image_size": 64, **WIDTHS}, "image_size 64, expected 256"),
    ("dfgan_preprint", {"variant": "preprint", **WIDTHS}, "sentence embedding of dimension 16, expected 256"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), WRONG_MODELS)
def test_models_that_a_format_cannot_hold(name: str, options: Any, sentence: str, tmp_path: Path, mistake: Any) -> None:
    path = save(name, options, tmp_path / "own.ckpt")
    said = mistake("convert", "--to", name, str(path), "--out", str(tmp_path / "out"))
    assert said.startswith(f"{name} cannot hold this model: ")
    assert sentence in said
    assert [file.name for file in tmp_path.iterdir()] == ["own.ckpt"]


def test_a_checkpoint_of_another_model(official: list[Path], tmp_path: Path, mistake: Any) -> None:
    said = mistake("convert", "--to", "stackgan_v2", str(tmp_path / "gan.ckpt"), "--out", str(tmp_path / "out"))
    assert "holds t2i_zoo.models.gancls.module.GANCLS, expected t2i_zoo.models.stackganpp" in said
    convert("--from", GAN, *official, "--out", tmp_path / "gan.safetensors")
    said = mistake("convert", "--to", "stackgan_v2", str(tmp_path / "gan.safetensors"), "--out", str(tmp_path / "out"))
    assert said.endswith("holds gancls, expected stackganpp")


def test_weights_that_name_no_model(tmp_path: Path, mistake: Any) -> None:
    save_file({"generator.project.0.bias": torch.zeros(8)}, path := tmp_path / "plain.safetensors")
    said = mistake("sample", "--ckpt", str(path), "--text", "a bird", "--out", str(tmp_path / "x.png"))
    assert said.startswith(f"{path} does not say which model it holds")
    assert "--model.weights" in said
    said = mistake("convert", "--to", GAN, str(path), "--out", str(tmp_path / "out"))
    assert "holds weights of a model that it does not name, expected gancls" in said
    path.write_bytes(b"\x05\0\0\0\0\0\0\0junk!")
    assert "is not a readable .safetensors file" in mistake("sample", "--ckpt", str(path), "--text", "a bird")


WORDS = {  # with files A.pth and B.pth, of which neither is there
    "--from aelnouby_ganclss A.pth --out x.safetensors": "no format 'aelnouby_ganclss': did you mean aelnouby_gancls?",
    "--to zebra A.pth --out x": "no format 'zebra': expected one of stackgan_v1, stackgan_v2, aelnouby_gancls",
    "A.pth --out x.safetensors": "neither --from nor --to: give one",
    "--from aelnouby_gancls --to stackgan_v1 A.pth --out x": "both --from and --to: give one",
    "--from aelnouby_gancls --out x.safetensors": "no file to convert: give the .pth files of aelnouby_gancls",
    "--from aelnouby_gancls A.pth": "found no --out",
    "--from aelnouby_gancls A.pth --out x.pth": "--out x.pth, expected a file name that ends in .safetensors",
    "--from aelnouby_gancls A.pth --out x.safetensors": "found no file A.pth",
    "--from aelnouby_gancls . --out x.safetensors": "is a folder: give the files in it",
    "--from aelnouby_gancls A.pth --live --out x.safetensors": "they belong to --to",
    "--from aelnouby_gancls A.pth --no-module-prefix --out x.safetensors": "they belong to --to",
    "--to aelnouby_gancls A.pth B.pth --out x": "found 2 things to convert, expected one checkpoint",
    "--to aelnouby_gancls --out x": "found 0 things to convert, expected one checkpoint",
    "--to aelnouby_gancls A.ckpt --out x": "found no checkpoint at A.ckpt",
    "--to aelnouby_gancls A.ckpt --out x.pth": "--out x.pth, expected a folder",
    "--form aelnouby_gancls A.ckpt --out x.pth": "no option --form: did you mean --from?",
}


@pytest.mark.parametrize("words", WORDS)
def test_mistakes_on_the_command_line(words: str, tmp_path: Path, monkeypatch: Any, mistake: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert WORDS[words] in mistake("convert", *words.split())
    assert list(tmp_path.iterdir()) == []
