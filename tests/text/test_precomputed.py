"""Precomputed features: every form that is read, look-up by caption, what a checkpoint carries, and mistakes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from published_files import write_pickle, write_reed, write_stackgan, write_t7, write_tacgan
from safetensors.numpy import save_file

from t2i_zoo.data.reading import lines_of, read_text
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.text import TextCache, build_text_encoder
from t2i_zoo.text.precomputed import PrecomputedEncoder

CAPTIONS = ["a red flower", "the petals are blue.", "Ein Gänseblümchen"]


def numbers(rows: int, dim: int = 6, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def write(path: Path, captions: list[str] = CAPTIONS, vectors: Any = None, **more: Any) -> Path:
    vectors = numbers(len(captions)) if vectors is None else vectors
    np.savez(path, sentence=vectors, captions=np.array(captions), **more)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "features.npz")


def lookup(encoder: Any, caption: str) -> Any:
    return encoder.encode([caption]).sentence[0].numpy()


# Look-up ------------------------------------------------------------------------------------------------------------


def test_captions_are_found_by_their_text(file: Path) -> None:
    encoder = build_text_encoder({"kind": "precomputed", "path": str(file)})
    assert encoder.dim == 6
    assert torch.equal(encoder.encode(CAPTIONS[::-1]).sentence, torch.from_numpy(numbers(3)[::-1].copy()))
    assert np.array_equal(lookup(encoder, " A  red\nFLOWER "), numbers(3)[0])
    assert np.array_equal(lookup(encoder, "ein ga\u0308nseblu\u0308mchen"), numbers(3)[2])  # marks of their own
    assert encoder.encode([]).sentence.shape == (0, 6)
    assert encoder.tokens("a red flower") == encoder.unknown_words("a zxqv") == []


def test_a_new_caption_is_refused_with_a_way_out(file: Path) -> None:
    encoder = PrecomputedEncoder(str(file))
    sentence = r"found no features of 'a green one' in .*features\.npz, which has 3 captions and cannot encode new"
    with pytest.raises(T2IError, match=rf"{sentence} ones: train with an encoder that can, such as .*char_cnn_rnn"):
        encoder.encode(["a green one"])
    with pytest.raises(T2IError, match="'a green one' and 1 more captions in"):
        encoder.encode(["a red flower", "a green one", "the petals are blue"])  # without its full stop
    with pytest.raises(T2IError, match=r"which has no word to encode: give it a word\.$"):
        encoder.encode([" "])
    with pytest.raises(T2IError, match="holds sentence embeddings, expected word vectors too"):
        encoder.encode(["a red flower"], words=True)


def test_one_caption_with_several_vectors_has_their_mean(tmp_path: Path) -> None:
    captions = ["same", "else", "Same", "rounded", "same ", "rounded"]
    vectors = numbers(6)
    vectors[5] = vectors[3] + 1e-6
    with pytest.warns(UserWarning, match="1 of 3 captions in .* have several vectors, and get their mean"):
        encoder = PrecomputedEncoder(str(write(tmp_path / "a.npz", captions, vectors)))
    np.testing.assert_allclose(lookup(encoder, "same"), vectors[[0, 2, 4]].mean(0), rtol=1e-6)
    assert np.array_equal(lookup(encoder, "else"), vectors[1])
    assert np.array_equal(lookup(encoder, "rounded"), vectors[3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PrecomputedEncoder(str(write(tmp_path / "b.npz", captions[3:], vectors[3:])))


# Forms --------------------------------------------------------------------------------------------------------------


def test_safetensors_with_an_index(tmp_path: Path) -> None:
    save_file({"sentence": numbers(3).astype(np.float16)}, tmp_path / "f.safetensors")
    (tmp_path / "f.json").write_text(json.dumps({"captions": CAPTIONS}), "utf-8")
    encoder = PrecomputedEncoder(str(tmp_path / "f.safetensors"))
    assert np.array_equal(lookup(encoder, "a red flower"), numbers(3).astype(np.float16)[0].astype(np.float32))


def test_rows_by_picture_and_number(tmp_path: Path) -> None:
    texts = tmp_path / "text"
    texts.mkdir()
    (texts / "a.b.txt").write_text("first\n\nsecond\n")
    np.savez(tmp_path / "f.npz", sentence=numbers(2), images=np.array(["a.b.jpg"] * 2), numbers=np.array([1, 0]))
    encoder = PrecomputedEncoder(str(tmp_path / "f.npz"), captions=str(texts))
    assert np.array_equal(lookup(encoder, "first"), numbers(2)[1])
    assert np.array_equal(lookup(encoder, "second"), numbers(2)[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_caption_files_are_read_as_the_sources_read_them(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text/a.txt").write_bytes("Ein Gänseblümchen\r\nzwei\r\n".encode(encoding))
    np.savez(tmp_path / "f.npz", sentence=numbers(2), images=np.array(["a.jpg"] * 2), numbers=np.array([0, 1]))
    encoder = PrecomputedEncoder(str(tmp_path / "f.npz"), captions=str(tmp_path / "text"))
    (caption, _) = lines_of(read_text(tmp_path / "text/a.txt"))
    assert caption == "Ein Gänseblümchen"
    assert np.array_equal(lookup(encoder, caption), numbers(2)[0])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("jpg/image_0000{}", "class_00001/image_0000{}.txt"),  # flowers: the number is the only link
        ("001.Albatross/Albatross_{}_1.2", "001.Albatross/Albatross_{}_1.2.txt"),  # birds
    ],
)
def test_the_embeddings_of_stackgan(tmp_path: Path, name: str, text: str) -> None:
    vectors, texts = numbers(6, 1024).reshape(3, 2, 1024), tmp_path / "text_c10"
    for i in range(3):
        file = texts / text.format(i)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"picture {i} is red .\npicture {i} is blue .\n")
    write_stackgan(tmp_path / "birds" / "train", [name.format(i) for i in (0, 1)], vectors[:2])
    write_stackgan(tmp_path / "birds" / "test", [name.format(2)], vectors[2:])
    encoder = PrecomputedEncoder(str(tmp_path / "birds"), captions=str(texts))
    for i in range(3):
        for number, colour in enumerate(("red", "blue")):
            assert np.array_equal(lookup(encoder, f"Picture {i} is {colour} ."), vectors[i, number])
    with pytest.raises(T2IError, match="names images and holds no captions: set text_encoder's captions"):
        PrecomputedEncoder(str(tmp_path / "birds"))
    (texts / text.format(1)).write_text("picture 1 is red .\n")
    with pytest.raises(T2IError, match=r"found 1 captions of .* below .*text_c10, expected 2, as its vectors have"):
        PrecomputedEncoder(str(tmp_path / "birds"), captions=str(texts))
    (texts / text.format(1)).unlink()
    with pytest.raises(T2IError, match=r"found no captions of .* below .*text_c10: set"):
        PrecomputedEncoder(str(tmp_path / "birds"), captions=str(texts))


def test_the_archive_of_the_captions_beside_the_embeddings(tmp_path: Path) -> None:
    """``images/`` and ``text_c10/`` hold .t7 files of another kind; a caption file may begin with a byte order mark."""
    texts = tmp_path / "text_c10"
    for folder in ("images", "text_c10"):
        write_t7(tmp_path / folder / "001.Albatross.t7", numbers(2))
    (texts / "a.txt").write_bytes("\ufeffa red one\r\na blue\u2028one\r\n".encode())
    write_stackgan(tmp_path / "train", ["a"], numbers(2, 1024).reshape(1, 2, 1024))
    encoder = PrecomputedEncoder(str(tmp_path), captions=str(texts))
    assert np.array_equal(lookup(encoder, "a red one"), numbers(2, 1024)[0])
    assert np.array_equal(lookup(encoder, "a blue one"), numbers(2, 1024)[1])


def test_the_t7_files_of_gan_cls(tmp_path: Path) -> None:
    vectors, long = numbers(4, 1024), "a flower with many words " * 12
    write_reed(tmp_path / "class_00001" / "a.t7", ["a red flower", "a flower of 2″"], vectors[:2])
    write_reed(tmp_path / "class_00002" / "b.t7", [long, "blåå petals"], vectors[2:])
    encoder = PrecomputedEncoder(str(tmp_path))
    for caption, vector in zip(["A red flower", "a flower of 2″", long, "blåå petals"], vectors, strict=True):
        assert np.array_equal(lookup(encoder, caption), vector)
    with pytest.raises(T2IError, match="found no features of 'bl petals'"):
        encoder.encode(["bl petals"])
    again = PrecomputedEncoder("gone", assets=encoder.assets())
    again.load_state_dict(encoder.state_dict())
    assert np.array_equal(lookup(again, "blåå petals"), vectors[3])
    with pytest.raises(T2IError, match=r"a\.t7, the captions of one image: set text_encoder's path to its folder"):
        PrecomputedEncoder(str(tmp_path / "class_00001" / "a.t7"))


def test_the_captions_that_stackgan_draws_coco_from(tmp_path: Path) -> None:
    vectors = numbers(3, 1024)
    table = {"raw_txt": CAPTIONS, "fea_txt": [vectors[:2], vectors[2:]]}
    for path in (write_t7(tmp_path / "test" / "val_captions.t7", table), tmp_path):
        assert np.array_equal(lookup(PrecomputedEncoder(str(path)), CAPTIONS[2]), vectors[2])


def test_the_skip_thoughts_of_tacgan(tmp_path: Path) -> None:
    vectors = numbers(10, 4800).reshape(2, 5, 4800)
    captions = [[f"picture {i}, caption {k}" for k in range(5)] for i in range(2)]
    write_tacgan(tmp_path, ["image_1.jpg", "image_2.jpg"], captions, vectors)
    encoder = PrecomputedEncoder(str(tmp_path))
    assert encoder.dim == 4800
    assert np.array_equal(lookup(encoder, "picture 1, caption 3"), vectors[1, 3])


# Checkpoints --------------------------------------------------------------------------------------------------------


def test_a_small_table_travels_and_a_large_one_stays(file: Path, tmp_path: Path) -> None:
    small = PrecomputedEncoder(str(file))
    assert small.state_dict().keys() == {"table"}
    assert not any(p.requires_grad for p in small.parameters())
    again = PrecomputedEncoder("gone", assets=small.assets())
    again.load_state_dict(small.state_dict())
    assert torch.equal(again.encode(CAPTIONS).sentence, small.encode(CAPTIONS).sentence)
    large = PrecomputedEncoder(str(file), checkpoint_mb=0)
    assert not large.state_dict()
    assert large.assets() == {}
    assert torch.equal(large.encode(CAPTIONS).sentence, small.encode(CAPTIONS).sentence)
    assert small.fingerprint() == again.fingerprint() == large.fingerprint()
    others = [write(tmp_path / "b.npz", vectors=numbers(3, seed=1)), write(tmp_path / "c.npz", ["x", *CAPTIONS[1:]])]
    assert len({small.fingerprint(), *(PrecomputedEncoder(str(path)).fingerprint() for path in others)}) == 3
    assert TextCache(tmp_path / "cache", small).sentences(CAPTIONS).shape == (3, 6)


@pytest.mark.parametrize("megabytes", [64, 0])
def test_a_gan_draws_known_captions(
    megabytes: int, tiny_options: Any, tiny_widths: Any, tiny_data: Any, build_trainer: Any, tmp_path: Path
) -> None:
    tiny_data.prepare_data()
    tiny_data.setup()
    known = sorted({caption for split in ("train", "val", "test") for caption in tiny_data.captions_of(split)})
    features = write(tmp_path / "features.npz", known)
    spec = {"kind": "precomputed", "path": str(features), "checkpoint_mb": megabytes}
    model = GANCLS(**{**tiny_options, **tiny_widths("gancls"), "text_encoder": spec})
    keeper = ModelCheckpoint(tmp_path / "checkpoints", save_last=True, save_top_k=0)
    build_trainer(limit_train_batches=2, callbacks=[keeper]).fit(model, tiny_data)
    noise = torch.zeros(2, 4)
    wanted = model.eval().generate(known[:2], noise=noise)
    assert torch.equal(load_model(tmp_path).generate(known[:2], noise=noise), wanted)
    features.unlink()
    if megabytes:
        found = load_model(tmp_path)
        assert torch.equal(found.generate(known[:2], noise=noise), wanted)
        with pytest.raises(T2IError, match="found no features of 'a new sentence' in"):
            found.generate(["a new sentence"])
    else:
        with pytest.raises(T2IError, match=r"found no precomputed features at .*features\.npz: put them there, or set"):
            load_model(tmp_path)


def test_captions_that_are_missing_are_found_before_training(
    tiny_options: Any, tiny_widths: Any, build_data: Any, build_trainer: Any, file: Path, tmp_path: Path
) -> None:
    model = GANCLS(
        **{**tiny_options, **tiny_widths("gancls"), "text_encoder": {"kind": "precomputed", "path": str(file)}}
    )
    with pytest.raises(T2IError, match=r"found no features of '.*' and \d+ more captions"):
        build_trainer().fit(model, build_data(cache_dir=str(tmp_path / "cache")))
    assert model.clock == 0


# Mistakes -----------------------------------------------------------------------------------------------------------


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    place = tmp_path / "f.npz"
    for content, sentence in (
        ({"captions": np.array(["a"])}, r"cannot read .*f\.npz as precomputed features \(KeyError: 'sentence'\)"),
        ({"sentence": numbers(2)}, "found no captions in .*, expected captions, or images and numbers"),
        ({"sentence": numbers(2), "captions": np.array(["a"])}, "found 1 captions and 2 vectors in"),
        ({"sentence": np.ones(2), "captions": np.array(["a", "b"])}, r"found sentence of float64 \(2,\) in"),
        ({"sentence": np.ones((1, 2), int), "captions": np.array(["a"])}, r"found sentence of int64 \(1, 2\) in"),
        ({"sentence": np.full((1, 2), np.nan), "captions": np.array(["a"])}, "found NaN or infinity in the vectors of"),
        ({"sentence": numbers(2), "captions": np.array(["a", " "])}, "found 1 blank captions in"),
        ({"sentence": numbers(1), "captions": np.array(["a"], object)}, r"cannot read .* \(ValueError: Object arrays"),
        ({"sentence": numbers(1), "images": np.array(["a"]), "numbers": np.array([0])}, "names images and holds no"),
    ):
        np.savez(place, **content)
        with pytest.raises(T2IError, match=sentence):
            PrecomputedEncoder(str(place))
    np.savez(place, sentence=numbers(1), images=np.array(["a"]), numbers=np.array([-1]))
    with pytest.raises(T2IError, match=r"found no \.txt file below"):
        PrecomputedEncoder(str(place), captions=str(tmp_path / "none"))
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(T2IError, match=r"found 1 captions of a below .*, expected number -1, as its vectors have"):
        PrecomputedEncoder(str(place), captions=str(tmp_path))


def test_paths_that_do_not_fit(file: Path, tmp_path: Path) -> None:
    with pytest.raises(T2IError, match=r"found no precomputed features at .*nowhere: put them there, or set"):
        PrecomputedEncoder(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(T2IError, match=r"found no precomputed features in .*empty, expected \.npz"):
        PrecomputedEncoder(str(tmp_path / "empty"))
    (tmp_path / "a.csv").write_text("a")
    with pytest.raises(
        T2IError, match=r"cannot read .*a\.csv as precomputed features \(ValueError: its name ends in \.csv"
    ):
        PrecomputedEncoder(str(tmp_path / "a.csv"))
    with pytest.raises(T2IError, match="found text_encoder's checkpoint_mb -1, expected 0 or more"):
        PrecomputedEncoder(str(file), checkpoint_mb=-1)
    write_pickle(tmp_path / "mixed" / "flower_tv.pkl", [])
    with pytest.raises(T2IError, match=r"flowers_caps\.pkl"):
        PrecomputedEncoder(str(tmp_path / "mixed"))
    table = {"raw_txt": ["a red flower"], "fea_txt": [numbers(1, 1024)]}
    write_t7(tmp_path / "both" / "val_captions.t7", table)
    write_tacgan(tmp_path / "both", ["i.jpg"], [[f"caption {k}" for k in range(5)]], numbers(5, 4800)[None])
    with pytest.raises(T2IError, match=r"found vectors of dimensions 1024 and 4800 in .*, expected one dimension"):
        PrecomputedEncoder(str(tmp_path / "both"))
