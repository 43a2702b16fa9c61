"""char-CNN-RNN: characters, both networks against their equations, weights from every kind of file, encoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import write_t7
from safetensors.torch import save_file

from t2i_zoo.errors import T2IError
from t2i_zoo.text import TextCache, build_text_encoder
from t2i_zoo.text.char_cnn_rnn import PREFIX, CharCNNRNNEncoder
from t2i_zoo.text.char_cnn_rnn_network import ALPHABET, LENGTH, STRIDES, CharCNNRNNNetwork, numbers_of

CAPTIONS = ["this flower has petals that are red, with 5 stamens - and a long stem", "blue", "a (very) long one " * 20]

# Characters ---------------------------------------------------------------------------------------------------------


def test_the_alphabet_is_that_of_the_authors() -> None:
    assert len(ALPHABET) == 70
    assert [number for number, character in enumerate(ALPHABET, 1) if character == "-"] == [37, 60]
    numbers = numbers_of(["az09- Aé\n", "x" * 300])
    assert numbers.shape == (2, 201)
    assert numbers[0, :9].tolist() == [1, 26, 27, 36, 60, 70, 0, 0, 0]  # nothing for what it does not know
    assert not numbers[0, 9:].any()
    assert (numbers[1] == 24).all()  # the rest is cut
    assert numbers_of(["AZ"], lowercase=True)[0, :3].tolist() == [1, 26, 0]
    assert numbers_of([]).shape == (0, 201)


# The networks -------------------------------------------------------------------------------------------------------


def network(variant: Any = "rnn", seed: int = 1, **changed: Any) -> CharCNNRNNNetwork:
    torch.manual_seed(seed)
    widths = {"cnn_dim": 5, "dim": 8, "first_channels": 6, "second_channels": 7, **changed}
    found = CharCNNRNNNetwork(variant, **widths)
    for parameter in found.parameters():  # the authors' initial weights hardly stir so narrow a network
        torch.nn.init.normal_(parameter, std=0.4)
    return found.requires_grad_(False)


@pytest.mark.parametrize(("variant", "parameters"), [("rnn", 1_814_144), ("gru", 4_045_184)])
def test_widths_of_the_authors(variant: Any, parameters: int) -> None:
    found = CharCNNRNNNetwork(variant)
    assert sum(p.numel() for p in found.parameters()) == parameters
    assert 0.079 < max(float(p.detach().abs().max()) for p in found.parameters()) <= 0.08
    states, sentence = found(numbers_of(["a red flower"]))
    assert states.shape == ((1, 8, 256) if variant == "rnn" else (1, 18, 512))
    assert sentence.shape == (1, 1024)


def by_hand(weights: dict[str, np.ndarray], variant: str, caption: str) -> tuple[np.ndarray, np.ndarray]:
    """The network of one caption, window by window and step by step."""
    x = np.zeros((201, 70))
    for place, character in enumerate(caption[:201]):
        if character in ALPHABET:
            x[place, ALPHABET.rindex(character)] = 1

    def convolve(x: np.ndarray, name: str) -> np.ndarray:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        windows = [np.einsum("tc,oct->o", x[i : i + 4], weight) + bias for i in range(len(x) - 3)]
        return np.maximum(windows, 0)

    def pool(x: np.ndarray, stride: int) -> np.ndarray:
        return np.stack([x[i : i + 3].max(0) for i in range(0, len(x) - 2, stride)])

    x = pool(convolve(x, "conv1"), 3)
    x = pool(convolve(x, "conv2"), 3)
    x = convolve(x, "conv3")
    assert len(x) == 18
    x = pool(x, 2) if variant == "rnn" else x
    into, along = ((weights[f"recurrent.{n}.weight"], weights[f"recurrent.{n}.bias"]) for n in ("i2h", "h2h"))
    width, states = x.shape[1], []
    for step, row in enumerate(x):
        given = into[0] @ row + into[1]
        h = states[-1] if states else np.zeros(width)
        if variant == "rnn":
            state = np.maximum(given + (along[0] @ h + along[1] if step else 0), 0)
        elif step == 0:
            state = np.tanh(given[2 * width :])
        else:
            z, r = (
                1 / (1 + np.exp(-(given[i * width : (i + 1) * width] + (along[0] @ h + along[1])[i * width :][:width])))
                for i in (0, 1)
            )
            n = np.tanh(given[2 * width :] + along[0][2 * width :] @ (r * h) + along[1][2 * width :])
            state = z * n + (1 - z) * h
        states.append(state)
    return np.stack(states), weights["linear.weight"] @ np.mean(states, 0) + weights["linear.bias"]


@pytest.mark.parametrize("variant", ["rnn", "gru"])
def test_the_network_follows_its_equations(variant: str) -> None:
    found = network(variant)
    weights = {name: tensor.double().numpy() for name, tensor in found.state_dict().items()}
    states, sentences = found(numbers_of(CAPTIONS))
    for row, caption in enumerate(CAPTIONS):
        wanted_states, wanted = by_hand(weights, variant, caption)
        np.testing.assert_allclose(states[row].numpy(), wanted_states, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(sentences[row].numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert float(sentences.std(0).mean()) > 0.01  # captions differ


@pytest.mark.parametrize(("variant", "reach"), [("rnn", 66), ("gru", 48)])
def test_how_far_a_step_sees(variant: Any, reach: int) -> None:
    found = network(variant, cnn_dim=32, first_channels=32, second_channels=32)
    plain = found(numbers_of(["a" * 201]))[0][0]

    def differs(place: int, step: int) -> bool:
        changed = numbers_of(["a" * place + mark + "a" * (200 - place) for mark in "bcdefgh79."])
        return not torch.allclose(found(changed)[0][:, step], plain[step].expand(10, -1), rtol=1e-4, atol=1e-5)

    stride = STRIDES[variant]
    assert differs(0, 0)
    assert differs(reach - 1, 0)
    assert not differs(reach, 0)
    assert differs(stride + reach - 1, 1)
    assert not differs(stride + reach, 1)


# Files --------------------------------------------------------------------------------------------------------------


def write(path: Path, found: CharCNNRNNNetwork, **options: Any) -> Path:
    """Weights in the form that the path's ending asks for."""
    state = found.state_dict()
    if path.suffix == ".ckpt":
        named = {f"{PREFIX}{key}": tensor for key, tensor in state.items()} | {"image_network.a": torch.ones(1)}
        torch.save({"state_dict": named, "hyper_parameters": options}, path)
    elif path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".t7":  # in Lua a window lies flat, place by place
        flat = {key: tensor.mT.flatten(1) if tensor.dim() == 3 else tensor for key, tensor in state.items()}
        write_t7(path, {key: tensor.numpy() for key, tensor in flat.items()})
    else:
        torch.save(state, path, _use_new_zipfile_serialization="old" not in path.name)
    return path


@pytest.mark.parametrize("variant", ["rnn", "gru"])
@pytest.mark.parametrize("ending", ["ckpt", "pth", "old.pth", "safetensors", "t7"])  # before torch 1.6
def test_weights_of_every_form(variant: Any, ending: str, tmp_path: Path) -> None:
    found = network(variant)
    encoder = build_text_encoder({"kind": "char_cnn_rnn", "path": str(write(tmp_path / f"w.{ending}", found))})
    assert torch.equal(encoder.encode(CAPTIONS).sentence, found(numbers_of(CAPTIONS))[1])
    assert (encoder.dim, encoder.word_dim) == (8, 5)
    assert encoder.max_words == (8 if variant == "rnn" else 18)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "gru.pth", network("gru"))


def test_mistakes(file: Path, tmp_path: Path) -> None:
    with pytest.raises(T2IError, match="found no checkpoint at"):
        CharCNNRNNEncoder(str(tmp_path / "nowhere.ckpt"))
    (tmp_path / "a.pth").write_bytes(b"no weights")
    with pytest.raises(T2IError, match=r"cannot read .*a\.pth as weights of char_cnn_rnn"):
        CharCNNRNNEncoder(str(tmp_path / "a.pth"))
    torch.save({"encoder.weight": torch.ones(3, 2)}, tmp_path / "b.pth")
    with pytest.raises(T2IError, match=r"b\.pth has no conv1\.weight, expected 12 tensors from conv1\.weight"):
        CharCNNRNNEncoder(str(tmp_path / "b.pth"))
    torch.save(network().state_dict() | {"linear.weight": torch.ones(8, 4)}, tmp_path / "c.pth")
    with pytest.raises(T2IError, match=r"has linear\.weight of shape \(8, 4\), expected \(8, 5\) beside its other"):
        CharCNNRNNEncoder(str(tmp_path / "c.pth"))
    torch.save(torch.ones(3), tmp_path / "d.pth")
    with pytest.raises(T2IError, match=r"cannot read .*d\.pth as weights"):
        CharCNNRNNEncoder(str(tmp_path / "d.pth"))
    published = b"\4\0\0\0\1\0\0\0\3\0\0\0V 1\x0a\0\0\0nn.gModule"  # how the authors' files begin
    (tmp_path / "lm_sje.t7").write_bytes(published)
    with pytest.raises(T2IError, match=r"found an object of class nn\.gModule in .*save the tensors alone"):
        CharCNNRNNEncoder(str(tmp_path / "lm_sje.t7"))


# The encoder --------------------------------------------------------------------------------------------------------


def test_encoding(file: Path) -> None:
    encoder = CharCNNRNNEncoder(str(file))
    found = encoder.encode(CAPTIONS, words=True)
    states = network("gru")(numbers_of(CAPTIONS))[0]
    assert found.mask is not None
    assert found.words is not None
    assert found.mask.sum(1).tolist() == [8, 1, 18]  # 70 and 4 characters in steps of 9
    assert torch.equal(found.words[0, :8], states[0, :8])
    assert not found.words[1, 1:].any()
    assert torch.equal(encoder.encode(CAPTIONS).sentence, found.sentence)
    many = encoder.encode(["a red flower"] * 300 + ["blue"])
    torch.testing.assert_close(many.sentence[[0, 299]], encoder.encode(["a red flower"]).sentence.expand(2, -1))
    assert not torch.allclose(many.sentence[299], many.sentence[300])
    assert not encoder.train().training
    assert not any(p.requires_grad for p in encoder.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode(CAPTIONS).sentence, found.sentence)
    assert encoder.encode([], words=True).sentence.shape == (0, 8)
    with pytest.raises(T2IError, match="Caption 2 of 2 is ' ', which has no word to encode"):
        encoder.encode(["a", " "])


def test_tokens_are_where_the_steps_begin(file: Path, tmp_path: Path) -> None:
    assert CharCNNRNNEncoder(str(file)).tokens("a red flower with") == ["a red flo", "wer with"]
    rnn = CharCNNRNNEncoder(str(write(tmp_path / "rnn.pth", network())))
    assert rnn.tokens("a red flower with petals") == ["a red flower with ", "petals"]
    assert len(rnn.tokens("x" * 300)) == 8
    assert len(CharCNNRNNEncoder(str(file)).tokens("x" * 300)) == 18


def test_unseen_characters_and_what_is_too_long(file: Path, tmp_path: Path) -> None:
    encoder = CharCNNRNNEncoder(str(file))

    def same(one: str, other: str, by: CharCNNRNNEncoder = encoder) -> bool:
        first, second = by.encode([one]).sentence, by.encode([other]).sentence
        return torch.equal(first, second)

    assert same("a Äed flower", "a 字ed flower")
    assert same("a Red flower", "a 字ed flower")  # capital letters too are nothing to the authors' network
    assert not same("a Red flower", "a red flower")
    assert not same("a Red flower", "a ed flower")  # the place stays empty
    assert same("x" * LENGTH + " red", "x" * LENGTH)
    assert encoder.unknown_words("A red flöwer, 5 petals") == ["A", "flöwer,"]
    lower = CharCNNRNNEncoder(str(file), lowercase=True)
    assert same("a Red flower", "a red flower", lower)
    assert lower.unknown_words("A red flöwer, 5 petals") == ["flöwer,"]
    trained = write(tmp_path / "run.ckpt", network("gru"), lowercase=True)
    assert CharCNNRNNEncoder(str(trained)).lowercase  # as it was trained
    assert not CharCNNRNNEncoder(str(trained), lowercase=False).lowercase


def test_the_fingerprint_knows_weights_and_options(file: Path, tmp_path: Path) -> None:
    prints = {CharCNNRNNEncoder(str(file)).fingerprint(), CharCNNRNNEncoder(str(file), lowercase=True).fingerprint()}
    prints |= {CharCNNRNNEncoder(str(write(tmp_path / "b.pth", network("gru", seed=2)))).fingerprint()}
    assert len(prints) == 3
    moved = write(tmp_path / "moved.safetensors", network("gru"))
    assert CharCNNRNNEncoder(str(moved)).fingerprint() in prints


def test_assets_rebuild_it(file: Path) -> None:
    encoder = CharCNNRNNEncoder(str(file), lowercase=True)
    assert json.loads(encoder.assets()["options.json"])["lowercase"] is True
    again = CharCNNRNNEncoder("gone", assets=encoder.assets())
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.encode(CAPTIONS).sentence, encoder.encode(CAPTIONS).sentence)
    assert again.fingerprint() == encoder.fingerprint()


def test_the_cache_keeps_its_states(file: Path, tmp_path: Path) -> None:
    encoder = CharCNNRNNEncoder(str(file))
    flat, offsets = TextCache(tmp_path / "cache", encoder, words=True).word_rows(["a red flower", "blue"])
    assert offsets.tolist() == [0, 2, 3]
    found = encoder.encode(["blue"], words=True).words
    assert found is not None
    np.testing.assert_allclose(flat[2], found[0, 0].numpy(), rtol=1e-4, atol=1e-6)
