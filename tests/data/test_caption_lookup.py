"""Features of captions by their numbers, from a cache in several files, against the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from t2i_zoo.data import CaptionFolder, captions
from t2i_zoo.data.captions import CaptionLookup, pad_words
from t2i_zoo.data.store import Store, StoreSpec, open_store
from t2i_zoo.text import TextCache
from t2i_zoo.text.hashing import HashingEncoder

CAPTIONS = [f"flower {n} with {n % 3} petals" + " and leaves" * (n % 4) for n in range(12)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    from PIL import Image

    root = tmp_path_factory.mktemp("source")
    for i in range(4):
        Image.new("RGB", (9, 9)).save(root / f"{i}.png")
        (root / f"{i}.txt").write_text("\n".join(CAPTIONS[3 * i : 3 * i + 3]))
    return open_store(StoreSpec(CaptionFolder(str(root)), 8), tmp_path_factory.mktemp("stores"))


@pytest.fixture
def lookup(store: Store, tmp_path: Path) -> CaptionLookup:
    """Over a cache of two files, of which the second holds what comes first."""
    cache = TextCache(tmp_path, HashingEncoder(16), words=True)
    cache.ensure(CAPTIONS[6:])
    cache.ensure(store.captions)
    assert len(list(cache.folder.glob("seg-*"))) == 2
    return CaptionLookup(store, cache, True, torch.device("cpu"))


@pytest.mark.parametrize("numbers", [[[5], [6], [0]], [[4, 9], [9, 9], [0, 1]], [[2], [3], [4]]])
def test_sentences_are_means_and_words_are_padded(lookup: CaptionLookup, numbers: list[list[int]]) -> None:
    encoder = HashingEncoder(16)
    assert lookup.has_sentences
    assert lookup.has_words
    found = lookup.sentence(torch.tensor(numbers))
    for vector, own in zip(found, numbers, strict=True):
        assert torch.allclose(vector, encoder.encode([CAPTIONS[i] for i in own]).sentence.mean(0), atol=1e-6)
    words, mask = lookup.padded_words(torch.tensor(numbers))
    expected = encoder.encode([CAPTIONS[own[0]] for own in numbers], words=True)
    assert expected.words is not None
    assert torch.equal(mask, expected.mask)
    assert torch.equal(words, expected.words)


def test_a_device_holds_all_sentences(lookup: CaptionLookup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "_AT_ONCE", 5)
    assert lookup._rows is not None
    table = captions._table(lookup._rows, torch.device("cpu"))
    assert torch.equal(table, HashingEncoder(16).encode(CAPTIONS).sentence)


def test_padding_of_a_single_caption_of_each_length() -> None:
    rows = [np.full((n, 2), n, np.float32) for n in (3, 1, 2)]
    words, mask = pad_words(rows)
    assert mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert words[:, :, 0].tolist() == [[3, 3, 3], [1, 0, 0], [2, 2, 0]]


def test_without_an_encoder_there_are_strings_alone(store: Store) -> None:
    lookup = CaptionLookup(store, None, True, torch.device("cpu"))
    assert not lookup.has_sentences
    assert not lookup.has_words
    assert lookup.strings(torch.tensor([[4], [0]])) == [CAPTIONS[4], CAPTIONS[0]]
