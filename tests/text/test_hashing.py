import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.text import build_text_encoder
from t2i_zoo.text.hashing import HashingEncoder, _scaled

SENTENCE = "this flower has Red petals and a yellow centre"


def cosine(first, second, encoder=None):
    sentence = (encoder or HashingEncoder()).encode([first, second]).sentence
    return torch.cosine_similarity(sentence[0], sentence[1], dim=0).item()


def test_golden_values():
    encoder = HashingEncoder(dim=16)
    sentence = encoder.encode([SENTENCE]).sentence[0]
    assert sentence[:6].tolist() == pytest.approx(
        [0.661627, -0.743309, -1.151721, 0.498262, -0.171533, 0.057178], abs=1e-6
    )
    word = HashingEncoder().encode(["red"], words=True).words[0, 0]
    assert word.nonzero().flatten()[:5].tolist() == [21, 30, 49, 55, 66]
    assert encoder.fingerprint() == "78eee134fd848a54"


def test_sums_are_exact_multiples_of_one_thirtysecond():
    """What makes the features equal on every machine: no sum is ever rounded."""
    encoder = HashingEncoder(dim=64)
    sums = encoder._sums([SENTENCE.lower().split() * 50])
    assert np.array_equal(sums * 32, np.round(sums * 32))
    assert np.abs(sums * 32).max() < 2**24


def test_shapes_scale_and_mask():
    encoder = HashingEncoder(dim=96, max_words=4)
    features = encoder.encode(["red", SENTENCE, "a blue bird"], words=True)
    assert features.sentence.shape == (3, 96)
    assert features.words.shape == (3, 4, 96)
    assert features.mask.sum(1).tolist() == [1, 4, 3]
    assert torch.allclose(features.sentence.square().mean(1), torch.ones(3))
    assert torch.allclose(features.words.square().mean(2), features.mask.float())
    assert features.sentence.dtype == features.words.dtype == torch.float32
    assert encoder.encode(["red"]).words is None
    assert torch.equal(encoder.encode(["red"]).sentence, features.sentence[:1])


def test_the_sentence_sees_words_beyond_max_words():
    short = HashingEncoder(dim=64, max_words=2)
    assert torch.equal(short.encode([SENTENCE]).sentence, HashingEncoder(dim=64).encode([SENTENCE]).sentence)


def test_chunks_do_not_matter(monkeypatch):
    captions = [f"flower {n} with {n % 7} petals" for n in range(10)]
    whole = HashingEncoder(dim=64).encode(captions).sentence
    monkeypatch.setattr("t2i_zoo.text.hashing._CHUNK", 3)
    assert torch.equal(HashingEncoder(dim=64).encode(captions).sentence, whole)


def test_equal_in_another_process_and_without_transformers():
    script = (
        "import sys, t2i_zoo.text.transformers_encoder; assert 'transformers' not in sys.modules\n"
        "from t2i_zoo.text.hashing import HashingEncoder\n"
        f"print(HashingEncoder(64).encode([{SENTENCE!r}]).sentence.numpy().tobytes().hex())"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    command, env = [sys.executable, "-c", script], os.environ | {"PYTHONHASHSEED": seed}
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == HashingEncoder(64).encode([SENTENCE]).sentence.numpy().tobytes().hex()


def test_misspelt_words_stay_near():
    assert cosine("a yelow flower", "a yellow flower") > cosine("a purple flower", "a yellow flower") + 0.05
    assert cosine("yelow", "yellow") > 0.2 > abs(cosine("blue", "yellow"))


def test_colours_outweigh_function_words():
    assert cosine("the red flower", "a red flower") > 0.9
    assert cosine("a blue flower", "a red flower") < 0.7


def test_order_matters_a_little():
    swapped = cosine("red petals and a yellow centre", "yellow petals and a red centre")
    assert 0.6 < swapped < 0.9


@pytest.mark.parametrize("caption", ["", "  ", "\u200d\ufe0f"])
def test_blank_caption(caption):
    with pytest.raises(T2IError, match=r"Caption 2 of 2 is .* no word"):
        HashingEncoder().encode(["red", caption])


def test_captions_without_a_word_are_read_by_their_names():
    encoder = HashingEncoder(64)
    odd, named = (encoder.encode(texts, words=True) for texts in (["\U0001f338\ufe0f", "!?"], NAMES))
    assert torch.equal(odd.sentence, named.sentence)
    assert torch.equal(odd.words, named.words)
    assert [encoder.tokens(text) for text in ("\U0001f338", "a \U0001f338")] == [["cherry", "blossom"], ["a"]]


NAMES = ["cherry blossom", "exclamation mark question mark"]


def test_features_of_the_former_version():
    """Sums of the features' values with weights 0, 1, ..., as version 0.1 gave them."""
    former, encoder = HashingEncoder(32), HashingEncoder(32)
    former.former_words = True
    assert former.fingerprint() == "1c87a691ac762ba6" != encoder.fingerprint()
    captions = [SENTENCE, "Stra\u00dfe", "\u7ea2\u8272\u7684\u82b1", "caf\u00e9 au lait"]
    weights = torch.arange(32).float()
    assert (former.encode(captions).sentence @ weights).tolist() == pytest.approx(
        [-206.57971, -64.40303, 118.37892, -99.87277], abs=1e-4
    )
    same = (former.encode(captions).sentence == encoder.encode(captions).sentence).all(1)
    assert same.tolist() == [True, False, False, True]


def test_only_function_words_no_captions_and_other_scripts():
    encoder = HashingEncoder(dim=16)
    assert encoder.encode(["it is the", "\u7ea2\u8272\u7684\u82b1", "x"]).sentence.isfinite().all()
    assert encoder.encode([]).sentence.shape == (0, 16)
    empty = encoder.encode([], words=True)
    assert (empty.words.shape, empty.mask.shape) == ((0, 0, 16), (0, 0))


@pytest.mark.parametrize("dim", [1, 2, 6, 15])
def test_few_dimensions(dim):
    captions = [" ".join(pair) for pair in itertools.product(["red", "blue", "a", "long", "tail"], repeat=2)]
    found = HashingEncoder(dim).encode(captions, words=True)
    assert found.sentence.shape == (25, dim)
    squares = found.sentence.square().mean(1)
    assert (((squares - 1).abs() < 1e-5) | (squares == 0)).all()
    assert found.words.isfinite().all()
    assert len(found.sentence.unique(dim=0)) > dim
    assert np.isfinite(_scaled(np.array([[0.0, 0.0], [3.0, 4.0]], np.float32))).all()  # where all signs cancel


def test_arguments():
    with pytest.raises(T2IError, match=r"dim=0 .* at least 1:"):
        HashingEncoder(dim=0)
    with pytest.raises(T2IError, match="max_words=0"):
        HashingEncoder(max_words=0)
    assert HashingEncoder(64).fingerprint() != HashingEncoder(65).fingerprint()
    assert build_text_encoder({"kind": "hashing", "dim": 64}).fingerprint() == HashingEncoder(64).fingerprint()
    assert not HashingEncoder().state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_follows_its_device():
    assert HashingEncoder(16).cuda().encode(["red"]).sentence.is_cuda
