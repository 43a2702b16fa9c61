"""t2i-zoo convert: official files in and out, bit for bit, and mistakes in them as one sentence."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from t2i_zoo.__main__ import main
from t2i_zoo.commands.official_states import FORMATS, find_format
from t2i_zoo.models import MODELS, load_model, model_class
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.text import TextFeatures

WIDTHS = {"generator_width": 4, "discriminator_width": 2}
WORDS = {"branches": 2, "image_size": 128, "condition_dim": 3, **WIDTHS}
TEXT_256 = {"kind": "hashing", "dim": 256}
#: of every format, tiny models that it can hold
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "gancls": ("aelnouby_gancls", {"architecture": "dcgan", "projection_dim": 8, **WIDTHS}),
    "stage 1": ("stackgan_v1", {"condition_dim": 3, "least_channels": 1, **WIDTHS}),
    "stage 2": (
        "stackgan_v1",
        {"stage": 2, "image_size": 256, "residual_blocks": 1, "least_channels": 1, **WIDTHS, "generator_width": 8},
    ),
    "stage 1, wider": ("stackgan_v1", {"condition_dim": 3, **WIDTHS, "generator_width": 8}),
    "two branches": ("stackgan_v2", {"branches": 2, "image_size": 128, "condition_dim": 3, **WIDTHS}),
    "four branches": (
        "stackgan_v2",
        {
            **WIDTHS,
            "branches": 4,
            "image_size": 512,
            "condition_dim": 3,
            "generator_width": 8,
            "late_residual_blocks": 1,
        },
    ),
    "words": ("attngan", {**WORDS, "damsm_weight": 0.0, "residual_blocks": 1}),
    "no words yet": (
        "attngan",
        {**WORDS, "damsm_weight": 0.0, "branches": 1, "image_size": 64, "text_encoder": {"kind": "hashing", "dim": 6}},
    ),
    "no words yet, last picture": (
        "mirrorgan",
        {**WORDS, "stream_weight": 0.0, "branches": 1, "image_size": 64, "last_only": True},
    ),
    "words, last picture": ("attngan", {**WORDS, "last_only": True, "residual_blocks": 0}),
    "words and sentence": ("mirrorgan", {**WORDS, "stream_weight": 0.0, "residual_blocks": 1}),
    "memory": ("dmgan", {**WORDS, "damsm_weight": 0.0, "residual_blocks": 1}),
    "no memory yet": ("dmgan", {**WORDS, "damsm_weight": 0.0, "branches": 1, "image_size": 64}),
    "dfgan": ("dfgan", {"image_size": 64, **WIDTHS}),
    "dfgan at 32 px": ("dfgan", {"image_size": 32, **WIDTHS}),
    "dfgan of the preprint": ("dfgan_preprint", {"variant": "preprint", "text_encoder": TEXT_256, **WIDTHS}),
    "no text": ("stackgan_v2", {"branches": 1, "image_size": 64, "text_encoder": "none", **WIDTHS}),
}
GAN = "aelnouby_gancls"
#: formats of models that draw; those of encoders are tested with their models
GANS = [name for name in FORMATS if MODELS[find_format(name).model].kind == "gan"]


def build(name: str, options: dict[str, Any]) -> TextToImageGAN:
    """A model in which every number differs from every other, the average from the live weights too."""
    torch.manual_seed(0)
    options = {"noise_dim": 5, "text_encoder": {"kind": "hashing", "dim": 16}, **options}
    model = model_class(find_format(name).model)(**options)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_().mul_(0.1).add_(1.0 if key.endswith("running_var") else 0.0)
        else:
            tensor.random_(1, 1000)
    assert isinstance(model, TextToImageGAN)
    return model


def save(model: TextToImageGAN, path: Path) -> Path:
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=path.parent)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path, weights_only=False)
    return path


@pytest.fixture(params=TINY)
def variant(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return TINY[request.param]


@pytest.fixture
def model(variant: tuple[str, dict[str, Any]]) -> TextToImageGAN:
    return build(*variant)


@pytest.fixture
def official(tmp_path: Path) -> list[Path]:
    """The two files of a tiny GAN-CLS of the port."""
    return write(GAN, save(build(*TINY["gancls"]), tmp_path / "gan.ckpt"), tmp_path / "official")


def write(name: str, source: Path, folder: Path, *more: str) -> list[Path]:
    assert main(["convert", "--to", name, str(source), "--out", str(folder), *more]) == 0
    return sorted(folder.iterdir())


def read(name: str, files: list[Path], out: Path) -> dict[str, Tensor]:
    assert main(["convert", "--from", name, *map(str, files), "--out", str(out)]) == 0
    return load_file(out)


def load(path: Path) -> dict[str, Tensor]:
    """All weights of a file, with the name of their network before their keys where it holds several."""
    found: dict[str, Any] = torch.load(path, weights_only=True)
    if "model" not in found:
        return found
    return {f"{network}:{key}": tensor for network, state in found["model"].items() for key, tensor in state.items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in first)


def networks(model: TextToImageGAN, generator: str = "generator_ema.") -> dict[str, Tensor]:
    """The discriminator and one of the generators, under the live one's name."""
    state = model.state_dict()
    found = {key: t for key, t in state.items() if key.startswith("discriminator.")}
    return found | {f"generator.{k.removeprefix(generator)}": t for k, t in state.items() if k.startswith(generator)}


def sentences(model: TextToImageGAN, count: int) -> TextFeatures:
    drawn = torch.randn(count, 4, model.text_encoder.dim, generator=torch.Generator().manual_seed(1))
    return TextFeatures(drawn[:, 0], drawn[:, 1:], torch.ones(count, 3, dtype=torch.bool))


def test_every_format_has_its_tiny_model() -> None:
    assert {name for name, _ in TINY.values()} == set(GANS)


# There and back -------------------------------------------------------------------------------------------------------


def test_there_and_back_is_bit_equal(variant: Any, model: TextToImageGAN, tmp_path: Path) -> None:
    name, _ = variant
    first = write(name, save(model, tmp_path / "own.ckpt"), tmp_path / "first")
    files = find_format(name).files(model.hparams).values()
    assert [file.name for file in first] == sorted({file.partition(":")[0] for file in files})
    assert_same(read(name, first, tmp_path / "own.safetensors"), networks(model))
    second = write(name, tmp_path / "own.safetensors", tmp_path / "second")
    assert [file.name for file in second] == [file.name for file in first]
    for one, two in zip(first, second, strict=True):
        assert_same(load(one), load(two))


def test_the_pictures_are_the_same(variant: Any, model: TextToImageGAN, tmp_path: Path) -> None:
    files = write(variant[0], save(model, tmp_path / "own.ckpt"), tmp_path / "official")
    read(variant[0], files, tmp_path / "own.safetensors")
    found: Any = load_model(tmp_path / "own.safetensors")
    assert type(found) is type(model)
    assert not found.training
    noise = model.noise(2, torch.Generator().manual_seed(2))
    drawn = model.generate(sentences(model, 2), noise=noise)
    for ema in (True, False):  # a file has one generator
        assert torch.equal(drawn, found.generate(sentences(model, 2), noise=noise, ema=ema))
    assert (drawn[0] - drawn[1]).abs().max() > 0


def test_a_run_starts_from_it(variant: Any, model: TextToImageGAN, tmp_path: Path) -> None:
    files = write(variant[0], save(model, tmp_path / "own.ckpt"), tmp_path / "official")
    weights = read(variant[0], files, tmp_path / "own.safetensors")
    changed = {**model.hparams, "learning_rate": 0.5, "weights": str(tmp_path / "own.safetensors")}
    found: Any = type(model)(**changed)
    assert_same(networks(found), weights)
    assert_same(networks(found, "generator."), weights)


def test_the_last_weights_instead_of_their_average(variant: Any, model: TextToImageGAN, tmp_path: Path) -> None:
    files = write(variant[0], save(model, tmp_path / "own.ckpt"), tmp_path / "official", "--live")
    assert_same(read(variant[0], files, tmp_path / "own.safetensors"), networks(model, "generator."))


def test_sampling_from_it(variant: Any, model: TextToImageGAN, tmp_path: Path, capsys: Any) -> None:
    files = write(variant[0], save(model, tmp_path / "own.ckpt"), tmp_path / "official")
    capsys.readouterr()
    read(variant[0], files, tmp_path / "own.safetensors")
    assert ("note: official files hold no text encoder" in capsys.readouterr().err) == model.conditional
    words = ["--text", "a red bird"] if model.conditional else []
    place = ["--n", "1", "--out", str(tmp_path / "grid.png")]
    assert main(["sample", "--ckpt", str(tmp_path / "own.safetensors"), *words, *place]) == 0
    assert (tmp_path / "grid.png").is_file()


def test_loading_says_that_the_encoder_is_a_stand_in(official: list[Path], tmp_path: Path) -> None:
    read(GAN, official, tmp_path / "own.safetensors")
    with pytest.warns(UserWarning, match="came without its text encoder, so hashed words replace it"):
        load_model(tmp_path / "own.safetensors")


def test_the_file_says_what_it_holds(official: list[Path], tmp_path: Path) -> None:
    read(GAN, official, tmp_path / "new" / "own.safetensors")
    with safe_open(tmp_path / "new" / "own.safetensors", "pt") as file:
        about = file.metadata()["t2i_zoo"]
    assert '"model": "gancls"' in about
    assert '"from": "aelnouby_gancls"' in about
    assert '"projection_dim": 8' in about
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["own.safetensors"]


def test_a_generator_alone(official: list[Path], tmp_path: Path) -> None:
    weights = read(GAN, official[1:], tmp_path / "own.safetensors")
    assert all(key.startswith("generator.") for key in weights)
    with pytest.warns(UserWarning, match="holds no discriminator, which begins anew"):
        found: Any = load_model(tmp_path / "own.safetensors")
    assert_same({k: t for k, t in networks(found).items() if k in weights}, weights)
    (again,) = write(GAN, tmp_path / "own.safetensors", tmp_path / "again")
    assert_same(load(again), load(official[1]))


# Files as they are found ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GANS)
def test_module_prefix(name: str, tmp_path: Path) -> None:
    source = save(build(*next(v for v in TINY.values() if v[0] == name)), tmp_path / "own.ckpt")
    folders = {flag: tmp_path / (flag or "default") for flag in ("", "--module-prefix", "--no-module-prefix")}
    files = {flag: write(name, source, folder, *flag.split()) for flag, folder in folders.items()}
    with_prefix = {f: {":module." in f":{k}" for file in paths for k in load(file)} for f, paths in files.items()}
    by_default = name in ("aelnouby_gancls", "stackgan_v2", "dfgan")
    assert with_prefix == {"": {by_default}, "--module-prefix": {True}, "--no-module-prefix": {False}}
    first, second = (read(name, files[flag], tmp_path / f"{flag}.safetensors") for flag in list(files)[1:])
    assert_same(first, second)


def test_missing_counters_are_zero(official: list[Path], tmp_path: Path) -> None:
    whole = read(GAN, official, tmp_path / "whole.safetensors")
    for path in official:
        torch.save({k: t for k, t in load(path).items() if not k.endswith("num_batches_tracked")}, path)
    found = read(GAN, official, tmp_path / "own.safetensors")
    counters = {key for key in whole if key.endswith("num_batches_tracked")}
    assert len(counters) == 9
    assert all(whole[key] > 0 for key in counters)
    assert_same(found, {k: torch.zeros_like(t) if k in counters else t for k, t in whole.items()})


def file_of_2017(state: dict[str, Tensor]) -> bytes:
    """As PyTorch 0.3 under Python 2 saved weights on a GPU: byte strings, ``_rebuild_tensor``, storages behind."""

    def text(string: str) -> bytes:
        return b"U" + bytes([len(string)]) + string.encode()

    def numbers(values: Any) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values) + b"t"

    def tensor(number: int, t: Tensor) -> bytes:
        place = (
            b"ctorch.cuda\nFloatStorage\n" + text(str(number)) + text("cuda:0") + b"J" + struct.pack("<i", t.numel())
        )
        storage = b"(" + text("storage") + place + b"NtQ"
        return b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\0" + numbers(t.shape) + numbers(t.stride()) + b"tR"

    magic = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
    head = magic + b"\x80\x02M\xe9\x03." + b"\x80\x02}" + text("little_endian") + b"\x88s."
    items = b"".join(b"](" + text(key) + tensor(i, t) + b"e" for i, (key, t) in enumerate(state.items()))
    keys = b"".join(text(str(i)) for i in range(len(state)))
    body = b"\x80\x02ccollections\nOrderedDict\n](" + items + b"e\x85R." + b"\x80\x02](" + keys + b"e."
    return head + body + b"".join(struct.pack("<q", t.numel()) + t.numpy().tobytes() for t in state.values())


@pytest.mark.parametrize("kind", ["zip", "legacy", "of 2017", "wrapped", "parameters", "double"])
def test_other_ways_to_write_the_same(kind: str, official: list[Path], tmp_path: Path) -> None:
    wanted = read(GAN, official, tmp_path / "whole.safetensors")
    for path in official:
        state: Any = load(path)
        if kind == "of 2017":
            state = {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
            path.write_bytes(file_of_2017(state))
            wanted |= {key: torch.zeros_like(t) for key, t in wanted.items() if key.endswith("num_batches_tracked")}
            continue
        if kind == "parameters":
            state = {k: torch.nn.Parameter(t) if t.is_floating_point() else t for k, t in state.items()}
        elif kind == "double":
            state = {k: t.double() for k, t in state.items()}
        state = {"epoch": 3, "state_dict": state} if kind == "wrapped" else state
        torch.save(state, path, _use_new_zipfile_serialization=kind != "legacy")
    assert_same(read(GAN, official, tmp_path / "own.safetensors"), wanted)


def test_weights_that_lie_otherwise_in_memory(official: list[Path], tmp_path: Path) -> None:
    """Two that share theirs, and one whose dimensions lie in another order."""
    state = load(official[1])
    shared, turned = state["module.projection.1.weight"], state["module.netG.3.weight"]
    state |= {"module.projection.1.bias": shared, "module.netG.3.weight": turned.permute(3, 2, 1, 0)}
    state["module.netG.3.weight"] = state["module.netG.3.weight"].contiguous().permute(3, 2, 1, 0)
    torch.save(state, official[1])
    found = read(GAN, official, tmp_path / "own.safetensors")
    assert torch.equal(found["generator.project.1.weight"], shared)
    assert torch.equal(found["generator.project.1.bias"], shared)
    assert torch.equal(found["generator.layers.3.weight"], turned)
