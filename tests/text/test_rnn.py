"""The recurrent text encoder: words to numbers, the network against numbers of the reference, and encoding."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.text import TextCache, build_text_encoder
from t2i_zoo.text.rnn import PREFIX, RNNEncoder, RNNNetwork
from t2i_zoo.text.vocabulary import END, Words, padded, plain_tokens, random_subset

WORDS = ["a", "red", "flower", "with", "petals", "blue"]

# Words --------------------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_the_authors() -> None:
    assert plain_tokens("The bird's wing-bars, 2 of them: white_ish!") == [
        *("the", "bird", "s", "wing", "bars", "2", "of", "them", "white_ish"),
    ]
    assert plain_tokens("a red\ufffd\ufffdflower") == ["a", "red", "flower"]
    assert plain_tokens("फूल का रंग") == ["फूल", "का", "रंग"]  # with its vowel signs
    assert plain_tokens(" ?! ") == []
    assert plain_tokens("a wing_bar, caf\u00e9_au_lait \u2764\ufe0f") == ["a", "wing_bar", "caf\u00e9_au_lait"]
    assert plain_tokens("the bird\u2019s \ufb01ve\u2010inch wings") == ["the", "bird", "s", "five", "inch", "wings"]


@pytest.mark.parametrize(
    ("caption", "words", "unknown"),
    [
        ("A wing_bar, \u00e9!", ["a", "wing_bar"], ["\u00e9"]),  # nothing is left of the last one
        ("\ufb01ve \ufb02owers", ["ve", "owers"], ["\ufb02owers"]),  # ligatures are removed
        ("Caf\u00e9_au lait", ["caf_au", "lait"], ["lait"]),
        ("a red\ufffd\ufffdbill", ["a", "red", "bill"], ["bill"]),
        ("the bird\u2019s", ["the", "bird", "s"], ["the", "bird", "s"]),
        ("\uff32\uff25\uff24 \u092b\u0942\u0932", [], ["\uff52\uff45\uff44", "\u092b", "\u0932"]),
    ],
)
def test_the_vocabulary_of_the_authors(caption: str, words: list[str], unknown: list[str]) -> None:
    known = Words(["a", "red", "wing_bar", "ve", "caf_au"], ascii_only=True)
    assert known.tokens(caption) == words
    assert known.unknown(caption) == unknown
    found = [word for word in words if word in known.words]
    assert known.known(caption) == (found or ["<end>"])
    assert Words.of_captions([caption], ascii_only=True).words == sorted(set(words))


def test_the_order_of_words_is_that_of_frequency_then_the_alphabet() -> None:
    words = Words.of_captions(["b a", "c a", "b d", "a"])
    assert words.words == ["a", "b", "c", "d"]
    assert len(words) == 5
    assert words.numbers("d zebra A b") == [4, 1, 2]  # unknown words are left out
    assert words.unknown("d zebra A b") == ["zebra"]
    assert Words.of_captions(["b a", "c a"], limit=3).words == ["a", "b"]
    assert words.numbers("zebra") == [END]
    assert words.known("d zebra A") == ["d", "a"]
    assert words.known("zebra") == ["<end>"]


def test_words_of_other_alphabets_are_known_both_ways() -> None:
    assert Words(["café"]).numbers("Café") == [1]
    assert Words(["caf"]).numbers("a café") == [1]  # the authors' tables are ASCII, from which accents were stripped


def test_a_random_subset_keeps_the_order() -> None:
    torch.manual_seed(0)
    row = list(range(10, 40))
    drawn = [random_subset(row, 5) for _ in range(200)]
    assert all(len(set(found)) == 5 and sorted(found) == found and set(found) <= set(row) for found in drawn)
    assert {number for found in drawn for number in found} == set(row)
    assert random_subset(row, 30) == row
    assert drawn[0] != drawn[1]


def test_padding() -> None:
    table, lengths = padded([[3], [1, 2]])
    assert table.tolist() == [[3, END], [1, 2]]
    assert lengths.tolist() == [1, 2]
    assert padded([])[0].shape == (0, 0)


# The network --------------------------------------------------------------------------------------------------------

#: mean, unbiased standard deviation, first three values, last value of the reference's own class, weights by recipe
GOLDEN = {
    "words": (0.000374, 0.054982, (0.036481, 0.053025, 0.079324), 0.0),
    "sentence": (0.000179, 0.077104, (0.131415, 0.060041, -0.098719), -0.035456),
}


def recipe(key: str, shape: tuple[int, ...]) -> Tensor:
    """What the measured weights were: noise that follows from the reference's key."""
    draw = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    return torch.from_numpy(np.float32(draw * 0.1 if len(shape) < 2 else draw / shape[1] ** 0.5))


def test_golden_values() -> None:
    network = RNNNetwork(5450).eval()
    network.load_state_dict({key: recipe(key, tuple(t.shape)) for key, t in network.state_dict().items()})
    lengths = torch.tensor([9, 7, 5, 3])
    numbers = torch.from_numpy(np.random.RandomState(7).randint(1, 5450, (4, 18)))[:, :9]
    with torch.no_grad():
        words, sentence = network(numbers, lengths)
        shuffled = network(numbers[[2, 0, 3, 1]], lengths[[2, 0, 3, 1]])
    for name, found in {"words": words.mT, "sentence": sentence}.items():
        mean, std, first, last = GOLDEN[name]
        values = found.double().flatten()
        numbers_found = [float(n) for n in (values.mean(), values.std(), *values[:3], values[-1])]
        assert numbers_found == pytest.approx([mean, std, *first, last], rel=0, abs=1e-5)
    torch.testing.assert_close(shuffled[1], sentence[[2, 0, 3, 1]])  # captions need not be sorted by length
    torch.testing.assert_close(shuffled[0], words[[2, 0, 3, 1]])


@pytest.mark.parametrize(("words", "parameters"), [(5450, 2_075_320), (27_297, 8_629_420)])
def test_parameters_of_the_published_encoders(words: int, parameters: int) -> None:
    with torch.device("meta"):
        network = RNNNetwork(words)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == 9


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_sentence_is_the_last_state_of_both_directions(kind: Any) -> None:
    torch.manual_seed(0)
    network = RNNNetwork(9, 5, 8, kind)
    assert 0.09 < float(network.encoder.weight.detach().abs().max()) <= 0.1
    numbers, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    dropped, _ = network(numbers, lengths)
    words, sentence = network.eval()(numbers, lengths)
    assert not torch.allclose(dropped, words)
    assert words.shape == (2, 3, 8)
    assert not words[1, 2].any()
    for row, length in enumerate(lengths):
        torch.testing.assert_close(sentence[row], torch.cat([words[row, length - 1, :4], words[row, 0, 4:]]))


# The encoder --------------------------------------------------------------------------------------------------------


def network(rows: int = len(WORDS) + 1, kind: Any = "lstm") -> RNNNetwork:
    torch.manual_seed(1)
    return RNNNetwork(rows, 5, 8, kind).eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A converted file with the words ``WORDS``."""
    return write(tmp_path / "damsm.safetensors", network())


def write(path: Path, found: RNNNetwork, words: list[str] = WORDS) -> Path:
    state = {f"{PREFIX}{key}": tensor for key, tensor in found.state_dict().items()}
    save_file(state, path, {"t2i_zoo": json.dumps({"model": "damsm", "words": words})})
    return path


def test_encoding(file: Path) -> None:
    encoder = build_text_encoder({"kind": "rnn", "path": str(file), "max_words": 4})
    captions = ["a red flower with blue petals", "blue", "a zebra, red"]
    found = encoder.encode(captions, words=True)
    assert found.mask is not None
    assert found.words is not None
    assert found.mask.sum(1).tolist() == [4, 1, 2]
    plain = network()
    for row, numbers in enumerate([[1, 2, 3, 4], [6], [1, 2]]):  # the first four words; unknown ones left out
        words, sentence = plain(torch.tensor([numbers]), torch.tensor([len(numbers)]))
        torch.testing.assert_close(found.sentence[row], sentence[0].detach())
        torch.testing.assert_close(found.words[row, : len(numbers)], words[0].detach())
        assert not found.words[row, len(numbers) :].any()
    assert torch.equal(encoder.encode(captions).sentence, found.sentence)
    assert encoder.encode(captions).words is None
    assert encoder.unknown_words("a zebra, red") == ["zebra"]
    assert encoder.tokens(captions[0]) == ["a", "red", "flower", "with"]
    assert not encoder.train().training
    assert not any(p.requires_grad for p in encoder.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode(captions).sentence, found.sentence)
    assert encoder.encode([]).sentence.shape == (0, 8)
    with pytest.raises(T2IError, match="Caption 2 of 2 is ' ', which has no word to encode"):
        encoder.encode(["a", " "])


def test_the_fingerprint_knows_weights_words_and_length(file: Path, tmp_path: Path) -> None:
    prints = {RNNEncoder(str(file)).fingerprint(), RNNEncoder(str(file), max_words=3).fingerprint()}
    renamed = RNNEncoder(str(write(tmp_path / "b.safetensors", network(), [*WORDS[:-1], "green"])))
    prints |= {renamed.fingerprint()}
    other = RNNEncoder(str(write(tmp_path / "c.safetensors", network(kind="gru"))))
    prints |= {other.fingerprint()}
    assert len(prints) == 4
    assert RNNEncoder(str(file)).fingerprint() in prints


def test_the_authors_words_are_told_by_the_file(tmp_path: Path) -> None:
    state = {f"{PREFIX}{key}": tensor for key, tensor in network().state_dict().items()}
    prints = set()
    for flag in (False, True):
        about = {"model": "damsm", "words": WORDS, "hparams": {"ascii_words": flag}}
        save_file(state, tmp_path / "a.safetensors", {"t2i_zoo": json.dumps(about)})
        torch.save({"t2i_zoo": about, "hyper_parameters": about["hparams"], "state_dict": state}, tmp_path / "a.ckpt")
        for path in (tmp_path / "a.safetensors", tmp_path / "a.ckpt"):
            encoder = RNNEncoder(str(path))
            again = RNNEncoder("gone", assets=encoder.assets())
            again.load_state_dict(encoder.state_dict())
            for each in (encoder, again):
                assert each.tokens("red\ufb02 \ufb02flower") == (["red", "flower"] if flag else ["<end>"])
                prints.add(each.fingerprint())
    assert len(prints) == 2


def test_assets_rebuild_it(file: Path) -> None:
    encoder = RNNEncoder(str(file))
    again = RNNEncoder("gone", assets=encoder.assets())
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.encode(["a red flower"]).sentence, encoder.encode(["a red flower"]).sentence)
    assert again.fingerprint() == encoder.fingerprint()


def test_the_cache_keeps_its_words(file: Path, tmp_path: Path) -> None:
    encoder = RNNEncoder(str(file))
    cache = TextCache(tmp_path / "cache", encoder, words=True)
    flat, offsets = cache.word_rows(["a red flower", "blue"])
    assert offsets.tolist() == [0, 3, 4]
    found = encoder.encode(["blue"], words=True).words
    assert found is not None
    np.testing.assert_allclose(flat[3], found[0, 0].numpy(), rtol=1e-5)


def test_mistakes(file: Path, tmp_path: Path) -> None:
    with pytest.raises(T2IError, match="found text_encoder's max_words 0, expected at least 1"):
        RNNEncoder(str(file), max_words=0)
    with pytest.raises(T2IError, match="found no checkpoint at"):
        RNNEncoder(str(tmp_path / "nowhere.ckpt"))
    torch.save({"t2i_zoo": {"words": []}, "state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(T2IError, match=r"a\.ckpt holds no text encoder of DAMSM \(KeyError\)"):
        RNNEncoder(str(tmp_path / "a.ckpt"))
    short = write(tmp_path / "short.safetensors", network(), WORDS[:-1])
    with pytest.raises(T2IError, match="holds 5 words and a word table of 7 rows, expected 6 words"):
        RNNEncoder(str(short))
