"""A generator in one file: what is in it, encoders with weights, classes of one's own, and files that are wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model, name_of
from t2i_zoo.models.exported import pack, write
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.models.state import read_weights
from t2i_zoo.text.rnn import RNNNetwork

CAPTIONS = ["a red flower", "a white flower"]


@pytest.fixture
def build(tiny_options: Any, tiny_widths: Any) -> Any:
    """``build(cls, learning_rate=0.1)``: a tiny GAN-CLS with its own average."""

    def make(cls: type[GANCLS] = GANCLS, **changed: Any) -> GANCLS:
        torch.manual_seed(3)
        return cls(**{**tiny_options, **tiny_widths("gancls"), **changed}).eval()

    return make


def save(model: GANCLS, path: Path, **changed: Any) -> Path:
    tensors, header = pack(model, name_of(model) or "studio.Fresco")
    write(tensors, json.dumps({**header, **changed}), path)
    return path


def test_what_is_in_a_file(build: Any, tmp_path: Path) -> None:
    model = build(weights=None)
    model.vocabulary = frozenset({"red", "a", "flower"})
    path = save(model, tmp_path / "new" / "small.safetensors")
    assert [file.name for file in path.parent.iterdir()] == ["small.safetensors"]
    tensors, about = read_weights(path)
    assert set(tensors) == {f"generator.{key}" for key in model.generator.state_dict()}
    kinds = {tensor.dtype for tensor in tensors.values()}
    assert kinds == {torch.float16, torch.int64}  # counters of batch norms are whole numbers
    assert (about["format"], about["model"], about["vocabulary"]) == (1, "gancls", ["a", "flower", "red"])
    assert about["hparams"]["text_encoder"] == {"kind": "hashing", "dim": 32}
    weights = sum(x.numel() for x in model.generator.parameters())
    assert 2 * weights < path.stat().st_size < 2 * weights + 8192
    assert load_model(path).unknown_words("a green flower") == ["green"]


def test_what_aids_keep_stays_behind(build: Any, tmp_path: Path) -> None:
    model = build(lecam=0.1, augment_target=0.6, augment=["translation"])
    path = save(model, tmp_path / "aided.safetensors")
    tensors, _ = read_weights(path)
    assert all(key.startswith("generator.") for key in tensors)
    load_model(path)
    aside = {"lecam.averages": torch.zeros(2), "lecam.updates": torch.tensor(3), "augment_probability": torch.ones(())}
    write(tensors | aside, json.dumps(pack(model, "gancls")[1]), path)  # as earlier versions wrote it
    load_model(path)


def test_the_file_is_the_start_of_a_new_run(build: Any, tmp_path: Path) -> None:
    path = save(build(), tmp_path / "small.safetensors")
    with pytest.warns(UserWarning, match="holds no discriminator, which begins anew"):
        started = build(weights=str(path))
    wanted = load_model(path).state_dict()
    for name in ("generator.", "generator_ema."):
        own = {k.removeprefix(name): v for k, v in started.state_dict().items() if k.startswith(name)}
        assert all(torch.equal(v, wanted[f"generator.{k}"]) for k, v in own.items())


def test_an_encoder_with_weights_travels(build: Any, tmp_path: Path) -> None:
    network = RNNNetwork(4, 6, 8)
    words = {"t2i_zoo": json.dumps({"words": ["a", "red", "flower"]})}
    damsm = tmp_path / "home" / "damsm.safetensors"
    damsm.parent.mkdir()
    save_file({f"text_network.{k}": v for k, v in network.state_dict().items()}, damsm, words)
    model = build(text_encoder={"kind": "rnn", "path": str(damsm)})
    path, noise = save(model, tmp_path / "small.safetensors"), torch.zeros(2, 4)
    plain = model.generate(CAPTIONS, noise=noise)
    damsm.unlink()
    found: Any = load_model(path)
    assert found.unknown_words("a white flower") == ["white"]
    torch.testing.assert_close(found.generate(CAPTIONS, noise=noise), plain, rtol=0, atol=0.02)
    assert found.text_encoder.encode(CAPTIONS).sentence.dtype == torch.float32
    assert str(tmp_path).encode() not in path.read_bytes()  # whose machine it was is nobody's business


def test_a_table_of_captions_stays_at_home(build: Any) -> None:
    model = build()
    model.hparams["text_encoder"] = {"kind": "precomputed", "path": "captions.npz"}
    with pytest.raises(T2IError, match=r"text encoder precomputed, .*: train with another --model\.text_encoder"):
        pack(model, "gancls")


def test_numbers_that_half_precision_has_no_room_for(build: Any, tmp_path: Path) -> None:
    model = build()
    norm = next(m for m in model.generator_ema.modules() if isinstance(m, torch.nn.BatchNorm2d))
    norm.running_var.fill_(1e6)
    found: Any = load_model(save(model, tmp_path / "small.safetensors"))
    again = next(m for m in found.generator_ema.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert torch.equal(again.running_var, norm.running_var)
    norm.running_var[0] = torch.nan
    with pytest.raises(T2IError, match=r"found generator_ema\.layers\.1\.running_var with NaN .*: export an earlier"):
        pack(model, "gancls")


class Fresco(GANCLS):
    """A class of one's own, with the signature of its parent."""


def test_a_class_of_ones_own(build: Any, tmp_path: Path) -> None:
    path = save(build(Fresco), tmp_path / "own.safetensors")
    assert type(load_model(path)) is Fresco
    other = save(build(Fresco), tmp_path / "other.safetensors", **{"class": "studio.models.Fresco"})
    with pytest.raises(T2IError, match=r"made by studio\.models\.Fresco, which is not imported: import it before"):
        load_model(other)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, r"is an export of format 2 and t2i-zoo \S+ reads 1: pip install --upgrade t2i-zoo"),
        ({"format": "one"}, r"is an export of format 'one' .*: export it again"),
        ({"hparams": None}, r"without a readable 'hparams' in its header: export it again"),
        ({"vocabulary": 3}, r"without a readable 'vocabulary'"),
        ({"hparams": {"image_size": 32}}, r"do not fit its own header \(.*size mismatch"),
        ({"hparams": {"wings": 2}}, r"do not fit its own header \(.*wings"),
    ],
)
def test_a_header_that_is_wrong(build: Any, changed: Any, message: str, tmp_path: Path) -> None:
    path = save(build(), tmp_path / "small.safetensors", **changed)
    with pytest.raises(T2IError, match=message) as error:
        load_model(path)
    assert "\n" not in str(error.value)


def test_weights_too_few_and_too_many(build: Any, tmp_path: Path) -> None:
    tensors, header = pack(build(), "gancls")
    first = next(iter(tensors))
    few = {key: tensor for key, tensor in tensors.items() if key != first}
    for changed, said in ((few, "missing"), ({**tensors, "generator.wings": torch.zeros(1)}, "is unknown")):
        write(changed, json.dumps(header), tmp_path / "odd.safetensors")
        with pytest.raises(T2IError, match=said):
            load_model(tmp_path / "odd.safetensors")


def test_files_that_cannot_be_read(build: Any, tmp_path: Path) -> None:
    whole = save(build(), tmp_path / "small.safetensors").read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    broken = {
        "cut": whole[:-7],
        "cut in the header": whole[: length // 2],
        "empty": b"",
        "text": b"this is no file of weights",
        "no JSON": whole.replace(b'\\"format\\": 1', b'\\"format\\": '),
    }
    for content in broken.values():
        (tmp_path / "broken.safetensors").write_bytes(content)
        with pytest.raises(T2IError, match=r"is not a readable \.safetensors file"):
            load_model(tmp_path / "broken.safetensors")
    save_file({"generator.x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(T2IError, match="does not say which model it holds, as files of t2i-zoo export and convert do"):
        load_model(tmp_path / "other.safetensors")
