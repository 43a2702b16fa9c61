"""Skip-thought vectors of files in the authors' layout, against their equations written out in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.text import build_text_encoder
from t2i_zoo.text import skip_thought as module
from t2i_zoo.text.skip_thought import SkipThoughtEncoder, SkipThoughtNetwork

# of the word "red" the second line counts; the odd word holds a line end of another system
LINES = ["red", "flower", "<eos>", "A\u2028b", "UNK", "a", "with", "petals", ".", "red", "", "bird", "'s"]
CAPTIONS = ["a red flower with red petals.", "flower", "a zxqv with petals", "red red red red red a a"]
WIDTH, UNI, BI = 4, 5, 3


def options_of(units: int) -> bytes:
    """A dict as Python 2 pickles it, byte by byte."""
    return b"(dp0\nS'dim'\np1\nI%d\nsS'dim_word'\np2\nI%d\nsS'encoder'\np3\nS'gru'\np4\ns." % (units, WIDTH)


def gru(rng: np.random.RandomState, units: int, prefix: str) -> dict[str, np.ndarray]:
    shapes = {"W": (WIDTH, 2 * units), "b": (2 * units,), "U": (units, 2 * units)}
    shapes |= {"Wx": (WIDTH, units), "bx": (units,), "Ux": (units, units)}
    return {f"{prefix}_{name}": rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The authors' files, small."""
    rng, place = np.random.RandomState(0), tmp_path / "skip-thoughts"
    place.mkdir()
    (place / "dictionary.txt").write_bytes(("\n".join(LINES) + "\n").encode())
    np.save(place / "utable.npy", rng.standard_normal((len(LINES), WIDTH)).astype(np.float32))
    np.save(place / "btable.npy", rng.standard_normal((len(LINES), WIDTH)).astype(np.float32))
    np.savez(place / "uni_skip.npz", Wemb=np.ones(3), **gru(rng, UNI, "encoder"))
    np.savez(place / "bi_skip.npz", **gru(rng, BI, "encoder"), **gru(rng, BI, "encoder_r"))
    (place / "uni_skip.npz.pkl").write_bytes(options_of(UNI))
    (place / "bi_skip.npz.pkl").write_bytes(options_of(BI))
    return place


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def states_of(weights: Any, prefix: str, words: np.ndarray) -> np.ndarray:
    """The authors' recurrence, one sentence and one step at a time: (T, E) to (T, units)."""
    w, u, b, wx, ux, bx = (weights[f"{prefix}_{name}"].astype(np.float64) for name in ("W", "U", "b", "Wx", "Ux", "bx"))
    units = len(ux)
    h, found = np.zeros(units), []
    for x in words:
        gates = sigmoid(h @ u + x @ w + b)
        reset, update = gates[:units], gates[units:]
        h = update * h + (1 - update) * np.tanh((h @ ux) * reset + x @ wx + bx)
        found.append(h)
    return np.array(found)


def by_hand(folder: Path, caption: str, end: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Combine-skip vector (D,) and states (T, D) of one caption."""
    rows = {line: number for number, line in enumerate(LINES)}
    tokens = [*caption.replace(".", " .").split(), *(["<eos>"] if end else [])]
    numbers = [rows.get(token, rows["UNK"]) for token in tokens]
    uni, bi = np.load(folder / "uni_skip.npz"), np.load(folder / "bi_skip.npz")
    one = states_of(uni, "encoder", np.load(folder / "utable.npy")[numbers])
    words = np.load(folder / "btable.npy")[numbers]
    forth, back = states_of(bi, "encoder", words), states_of(bi, "encoder_r", words[::-1])
    both = np.concatenate([forth[-1], back[-1]])
    vector = np.concatenate([one[-1] / np.linalg.norm(one[-1]), both / np.linalg.norm(both)])
    return vector, np.concatenate([one, forth, back[::-1]], axis=1)


# The published files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [False, True])
def test_parity_with_the_equations(folder: Path, end: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 3)  # captions of unlike lengths share a pass, and there are two
    encoder = build_text_encoder({"kind": "skip_thought", "path": str(folder), "use_eos": end or None})
    found = encoder.encode(CAPTIONS, words=True)
    assert encoder.dim == encoder.word_dim == found.sentence.shape[1] == UNI + 2 * BI
    assert found.words.shape == (*found.mask.shape, encoder.dim)
    for row, caption in enumerate(CAPTIONS):
        vector, states = by_hand(folder, caption, end)
        np.testing.assert_allclose(found.sentence[row], vector, atol=1e-5)
        assert found.mask[row].tolist() == [i < len(states) for i in range(found.mask.shape[1])]
        np.testing.assert_allclose(found.words[row][found.mask[row]], states, atol=1e-5)
    assert not found.words[~found.mask].any()
    assert torch.equal(encoder.encode(CAPTIONS).sentence, found.sentence)


def test_a_sentence_alone_equals_the_sentence_in_a_batch(folder: Path) -> None:
    encoder = SkipThoughtEncoder(str(folder))
    batch = encoder.encode(CAPTIONS).sentence
    for caption, row in zip(CAPTIONS, batch, strict=True):
        torch.testing.assert_close(encoder.encode([caption]).sentence[0], row, atol=1e-6, rtol=0)
    assert torch.allclose(batch[:, :UNI].norm(dim=1), torch.ones(4))
    assert torch.allclose(batch[:, UNI:].norm(dim=1), torch.ones(4))


def test_the_published_widths() -> None:
    """A GRU of the authors has a bias a gate; the other one of PyTorch's is zero."""
    with torch.device("meta"):
        network = SkipThoughtNetwork(10, 620, 2400, 1200)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert count["uni"] - 3 * 2400 == 620 * 4800 + 4800 + 2400 * 4800 + 620 * 2400 + 2400 + 2400 * 2400 == 21_751_200
    assert count["bi"] - 2 * 3 * 1200 == 2 * (620 * 2400 + 2400 + 1200 * 2400 + 620 * 1200 + 1200 + 1200 * 1200)


def test_unknown_words_are_reported_and_unknown_marks_are_left_out(folder: Path) -> None:
    encoder = SkipThoughtEncoder(str(folder))
    assert encoder.unknown_words("A red zxqv, with the bird's petals.") == ["zxqv", "the"]
    plain, marked, stopped = encoder.encode(["a zxqv flower", "a zxqv! flower!?", "a zxqv flower."]).sentence
    assert torch.equal(plain, marked)
    assert not torch.allclose(plain, stopped)  # the dictionary has the full stop
    assert torch.allclose(plain, encoder.encode(["A UNK Flower"]).sentence[0])
    assert encoder.encode(["?!"]).sentence.isfinite().all()


def test_long_captions_are_cut_and_blank_ones_are_mistakes(folder: Path) -> None:
    encoder = SkipThoughtEncoder(str(folder), max_words=2, use_eos=True)
    cut = encoder.encode(["a red flower with petals", "a red"], words=True)
    assert torch.equal(cut.sentence[0], cut.sentence[1])
    assert cut.mask.sum(1).tolist() == [3, 3]
    assert encoder.encode([]).sentence.shape == (0, encoder.dim)
    assert encoder.encode([], words=True).words.shape == (0, 0, encoder.dim)
    with pytest.raises(T2IError, match=r"Caption 2 of 2 is ' ', which has no word"):
        encoder.encode(["a", " "])


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_vocabulary_says_which_words_are_kept(folder: Path, tmp_path: Path, as_folder: bool) -> None:
    text = tmp_path / "captions" / "class_1" / "one.txt"
    text.parent.mkdir(parents=True)
    text.write_text("red flower\nA red flower with zxqv\r\nred petals\n")
    given = str(tmp_path / "captions" if as_folder else text)
    encoder = SkipThoughtEncoder(str(folder), max_vocabulary=3, vocabulary=given)
    assert encoder.known.words == ["red", "flower", "a"]  # by their number, then by the alphabet
    assert len(encoder.network.uni_words.weight) == 6
    whole = SkipThoughtEncoder(str(folder)).encode(["a red flower", "a UNK flower"]).sentence
    assert torch.equal(encoder.encode(["a red flower", "a petals flower"]).sentence, whole)
    assert encoder.unknown_words("red petals") == ["petals"]


def test_a_checkpoint_alone_rebuilds_the_encoder(folder: Path, tmp_path: Path) -> None:
    first = SkipThoughtEncoder(str(folder), max_words=9, use_eos=True)
    before = first.encode(CAPTIONS, words=True)
    torch.save({"assets": first.assets(), "state": first.state_dict()}, tmp_path / "saved.pt")
    folder.rename(tmp_path / "moved")
    saved, seed = torch.load(tmp_path / "saved.pt", weights_only=True), torch.get_rng_state()
    second = SkipThoughtEncoder(str(folder), max_words=9, assets=saved["assets"])
    assert torch.equal(torch.get_rng_state(), seed)
    stale = second.fingerprint()
    second.load_state_dict(saved["state"])
    assert all(torch.equal(a, b) for a, b in zip(before, second.encode(CAPTIONS, words=True), strict=True))
    assert stale != second.fingerprint() == first.fingerprint()
    assert second.assets() == first.assets()
    assert second.known.words == first.known.words


def test_the_fingerprint_follows_the_features(folder: Path) -> None:
    first = SkipThoughtEncoder(str(folder))
    others = [SkipThoughtEncoder(str(folder), **options) for options in ({"use_eos": True}, {"max_words": 3})]
    prints = {encoder.fingerprint() for encoder in (first, *others)}
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    state["network.bi.weight_hh_l0_reverse"][1, 2] += 1e-3
    first.load_state_dict(state)
    prints.add(first.fingerprint())
    lines = [{"bird": "birds"}.get(line, line) for line in LINES]
    (folder / "dictionary.txt").write_bytes("\n".join(lines).encode())
    assert len({*prints, SkipThoughtEncoder(str(folder)).fingerprint()}) == 5


def test_frozen_and_float32_under_autocast(folder: Path) -> None:
    encoder = SkipThoughtEncoder(str(folder)).train()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    plain = encoder.encode(CAPTIONS).sentence
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode(CAPTIONS).sentence, plain)


# What can be wrong with the files -----------------------------------------------------------------------------------


def break_file(folder: Path, name: str, content: Any) -> None:
    if content is None:
        (folder / name).unlink()
    elif isinstance(content, bytes):
        (folder / name).write_bytes(content)
    elif isinstance(content, dict):
        np.savez(folder / name, **{**np.load(folder / name), **content})
    else:
        np.save(folder / name, content, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("bi_skip.npz.pkl", None, r"found no bi_skip\.npz\.pkl in .*: download it there"),
        ("dictionary.txt", b"red\nUNK\n", r"no line '<eos>' in .*dictionary\.txt"),
        ("dictionary.txt", b"r\xe9d\nUNK\n", r"dictionary\.txt is not UTF-8"),
        ("dictionary.txt", b"red\nUNK\n<eos>\n", r"utable\.npy has the shape \(13, 4\), expected \(3, 4\)"),
        ("btable.npy", np.zeros((13, 5), np.float32), r"btable\.npy has the shape \(13, 5\), expected \(13, 4\)"),
        ("btable.npy", np.array([{}] * 13), r"btable\.npy holds no readable NumPy array"),
        ("uni_skip.npz", b"PK\x03\x04", r"uni_skip\.npz holds no readable NumPy array"),
        ("bi_skip.npz", {"encoder_r_U": np.zeros(2)}, r"encoder_r_U in .* has the shape \(2,\), expected \(3, 6\)"),
        ("bi_skip.npz", {"encoder_U": np.array([{}])}, r"bi_skip\.npz has no readable array encoder_U"),
        ("uni_skip.npz.pkl", b"(lp0\n.", r"found no dim and dim_word in .*uni_skip\.npz\.pkl"),
        ("uni_skip.npz.pkl", b"cos\nsystem\n(S'echo'\ntR.", r"found os\.system in .*uni_skip\.npz\.pkl"),
        ("uni_skip.npz.pkl", options_of(UNI).replace(b"gru", b"lstm"), r"found an encoder 'lstm' in"),
    ],
)
def test_broken_files_are_named(folder: Path, name: str, content: Any, sentence: str) -> None:
    break_file(folder, name, content)
    with pytest.raises(T2IError, match=sentence):
        SkipThoughtEncoder(str(folder))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_vocabulary": 3}, r"has 9 words in no useful order, more than max_vocabulary 3: .* a vocabulary"),
        ({"max_vocabulary": 0}, "found text_encoder's max_vocabulary 0, expected at least 1"),
        ({"max_words": 0}, "found text_encoder's max_words 0, expected at least 1"),
        ({"vocabulary": "nowhere.txt"}, r"found no text at nowhere\.txt"),
    ],
)
def test_wrong_options(folder: Path, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        SkipThoughtEncoder(str(folder), **options)


def test_a_folder_of_neither_kind(tmp_path: Path) -> None:
    with pytest.raises(T2IError, match=r"found no last\.ckpt in the run folder"):
        SkipThoughtEncoder(str(tmp_path))


# Vocabulary expansion -----------------------------------------------------------------------------------------------

NEW = ["rose", "Tulip", "daisy", "iris"]


def second_table(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Vectors of which the uni-skip table is a linear map with an offset, and what that map makes of the new words."""
    rng = np.random.RandomState(1)
    known = ["flower", "red", "a", "with", "petals", "bird", "'s"]
    vectors = {word: rng.standard_normal(3).astype(np.float32) for word in [*NEW[:2], *known, *NEW[2:]]}
    matrix, offset = rng.standard_normal((3, WIDTH)), rng.standard_normal(WIDTH)
    table = np.load(folder / "utable.npy")
    for number, line in enumerate(LINES):
        if line in vectors:
            table[number] = vectors[line] @ matrix + offset
    np.save(folder / "utable.npy", table)
    return vectors, np.array([vectors[word] @ matrix + offset for word in NEW])


def save(vectors: dict[str, np.ndarray], place: Path, kind: str) -> str:
    if kind == "npy":
        np.save(place / "other.npy", np.array(list(vectors.values())))
        (place / "other.txt").write_text("\n".join(vectors) + "\n")
        return str(place / "other.npy")
    lines = [f"{word} {' '.join(map(repr, vector.tolist()))}" for word, vector in vectors.items()]
    header = [f"{len(vectors)} 3"] if kind == "word2vec" else []
    (place / "vectors.vec").write_text("\n".join([*header, *lines]) + "\n")
    return str(place / "vectors.vec")


@pytest.mark.parametrize("kind", ["glove", "word2vec", "npy"])
def test_expansion_maps_new_words(folder: Path, tmp_path: Path, kind: str) -> None:
    vectors, wanted = second_table(folder)
    path, plain = save(vectors, tmp_path, kind), SkipThoughtEncoder(str(folder))
    encoder = SkipThoughtEncoder(str(folder), expansion=path)
    assert encoder.known.words == [*plain.known.words, "rose", "daisy", "iris"]  # upper case is never looked up
    for word, vector in zip(NEW, wanted, strict=True):
        if word != "Tulip":
            np.testing.assert_allclose(encoder.network.uni_words.weight[encoder.known.number(word)], vector, atol=1e-4)
    assert torch.equal(encoder.network.uni_words.weight[: len(plain.known)], plain.network.uni_words.weight)
    assert encoder.network.bi_words.weight.shape == encoder.network.uni_words.weight.shape
    assert encoder.unknown_words("a rose tulip") == ["tulip"]
    assert torch.equal(encoder.encode(CAPTIONS).sentence, plain.encode(CAPTIONS).sentence)


def test_expansion_fits_the_least_squares(folder: Path, tmp_path: Path) -> None:
    """Of the bi-skip table the second one is no linear map: the normal equations say which map comes nearest."""
    vectors, _ = second_table(folder)
    encoder = SkipThoughtEncoder(str(folder), expansion=save(vectors, tmp_path, "glove"))
    shared = [word for word in vectors if word in LINES]
    source = np.array([[*vectors[word], 1.0] for word in shared])
    target = encoder.network.bi_words.weight[[encoder.known.number(word) for word in shared]].numpy()
    matrix = np.linalg.solve(source.T @ source, source.T @ target)
    found = encoder.network.bi_words.weight[encoder.known.number("daisy")]
    np.testing.assert_allclose(found, np.array([*vectors["daisy"], 1.0]) @ matrix, atol=1e-4)


def test_expansion_keeps_to_its_limits(folder: Path, tmp_path: Path) -> None:
    path = save(second_table(folder)[0], tmp_path, "glove")
    own = len(SkipThoughtEncoder(str(folder)).known.words)
    assert SkipThoughtEncoder(str(folder), own + 1, expansion=path).known.words[own:] == ["rose"]
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "all.txt").write_text("iris " + " ".join(word for word in LINES if word != "UNK"))
    chosen = SkipThoughtEncoder(str(folder), vocabulary=str(tmp_path / "words"), expansion=path)
    assert {"rose", "daisy", "iris"} & set(chosen.known.words) == {"iris"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("red 1 2 3\nflower 1 2 3\na 0 0 1\n", r"shares 3 words with the encoder, expected at least 4"),
        ("zxqv 1 2\n", r"shares 0 words with the encoder"),
        ("red 1 2 3\nflower 1 two 3\n", r"vectors\.vec, line 2: .*'two'.*, expected a word and 3 numbers"),
        ("red 1 2 3\nflower 1 2\n", r"line 2: too few numbers"),
        ("red\n", r"line 1: too few numbers"),
        (b"3 2\nred \xff\xfe\x00", r"vectors\.vec is not UTF-8 text"),
    ],
)
def test_broken_tables_are_named(folder: Path, tmp_path: Path, content: str | bytes, sentence: str) -> None:
    (tmp_path / "vectors.vec").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(T2IError, match=sentence):
        SkipThoughtEncoder(str(folder), expansion=str(tmp_path / "vectors.vec"))


def test_a_table_whose_words_do_not_fit_is_named(folder: Path, tmp_path: Path) -> None:
    path = save(second_table(folder)[0], tmp_path, "npy")
    (tmp_path / "other.txt").write_text("red\nflower\n")
    with pytest.raises(T2IError, match=r"other\.npy has the shape \(11, 3\), expected .* 2 lines of .*other\.txt"):
        SkipThoughtEncoder(str(folder), expansion=path)
