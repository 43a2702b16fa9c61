"""The published folders are read whole, and every way in which they can be wrong is named with both sides."""

import io
import itertools
import pickle
import struct

import numpy as np
import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.legacy import (
    load_pickle,
    read_attngan_captions,
    read_reed_t7,
    read_stackgan,
    read_tacgan,
    read_val_captions_t7,
)

RNG = np.random.default_rng(0)


def python_2(value):
    """The pickle of text and containers as Python 2 writes it, where text is bytes; arrays as in protocol 2."""
    if isinstance(value, str):
        content = value.encode("utf-8")
        return b"T" + struct.pack("<i", len(content)) + content
    if isinstance(value, (list, tuple)):
        return b"](" + b"".join(map(python_2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python_2(key) + python_2(item) for key, item in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def save(folder, **contents):
    """Write pickles; the names of the files are those of the arguments, with "_" for "-"."""
    for name, value in contents.items():
        path = folder / {"embeddings": "char-CNN-RNN-embeddings.pickle"}.get(name, f"{name}.pickle")
        path.write_bytes(b"\x80\x02" + python_2(value) + b".")
    return folder


def t7(value, numbers=None):
    """A .t7 file in binary form; each object has a number, and none is shared."""
    numbers = numbers or itertools.count(1)
    if isinstance(value, str):
        content = value.encode()
        return struct.pack("<ii", 2, len(content)) + content
    if isinstance(value, float):
        return struct.pack("<id", 1, value)
    if isinstance(value, list):
        value = {float(i): item for i, item in enumerate(value, 1)}
    if isinstance(value, dict):
        head = struct.pack("<iii", 3, next(numbers), len(value))
        return head + b"".join(t7(key, numbers) + t7(item, numbers) for key, item in value.items())
    name = {"f4": "Float", "f8": "Double", "u1": "Byte", "i8": "Long"}[value.dtype.str[1:]]

    def head(kind):
        name_of_class = f"torch.{name}{kind}".encode()
        return struct.pack("<iii3si", 4, next(numbers), 3, b"V 1", len(name_of_class)) + name_of_class

    steps = [stride // value.itemsize for stride in value.strides]
    sizes = struct.pack(f"<i{2 * value.ndim + 1}q", value.ndim, *value.shape, *steps, 1)
    return head("Tensor") + sizes + head("Storage") + struct.pack("<q", value.size) + value.tobytes()


def save_t7(tmp_path, value):
    path = tmp_path / "a.t7"
    path.write_bytes(t7(value))
    return path


def wrong(reader, path):
    with pytest.raises(T2IError) as caught:
        reader(path)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message.split(", expected ", 1)[1]
    return message


NAMES = ["001.Föö/a_1", "001.Föö/a_2", "002.B/b_1"]


def test_stackgan(tmp_path):
    arrays = [RNG.normal(size=(10, 1024)).astype(np.float32) for _ in NAMES]
    for embeddings in (arrays, np.stack(arrays), np.stack(arrays).astype(np.float64)):
        save(tmp_path, filenames=NAMES, class_info=[1, 1, 2], embeddings=embeddings)
        found = read_stackgan(tmp_path)
        assert found.filenames == NAMES
        assert found.class_ids.dtype == np.int64
        assert found.class_ids.tolist() == [1, 1, 2]
        assert found.embeddings.dtype == np.float32
        np.testing.assert_array_equal(found.embeddings, np.stack(arrays))
    (tmp_path / "class_info.pickle").unlink()
    assert read_stackgan(str(tmp_path)).class_ids is None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"filenames": NAMES[:2]}, r"2 entries in \S+filenames\.pickle but 3 in \S+embeddings\.pickle, .*same down"),
        ({"class_info": [1, 2]}, r"3 entries in \S+filenames\.pickle but 2 in \S+class_info\.pickle"),
        ({"class_info": ["a", "b", "c"]}, r"an array of <U1 \(3,\) in \S+class_info\.pickle, expected numbers of cl"),
        ({"class_info": [1, 2, 10**30]}, r"an array of object \(3,\)"),
        ({"class_info": [[1], [1, 2], []]}, "rows of unequal length"),
        ({"class_info": None}, r"an array of object \(\)"),
        ({"filenames": ["a", 5, "b"]}, r"int at index 1 in \S+filenames\.pickle, expected image names"),
        ({"filenames": {"a": 1}}, r"dict of 1 in \S+, expected a list of image names"),
        ({"embeddings": [np.ones((10, 1024))] * 2 + [np.ones((9, 1024))]}, r".*\(9, 1024\) .* of image 2 .*\(10,"),
        ({"embeddings": [np.ones((10, 4800))] * 3}, r"an array of float64 \(10, 4800\) in .* of shape \(any, 1024\)"),
        ({"embeddings": np.ones((3, 1024))}, r"an array of float64 \(3, 1024\) .* of shape \(any, any, 1024\)"),
        ({"embeddings": [["a"] * 1024] * 3}, r"an array of <U1"),
        ({"embeddings": []}, "no embeddings"),
        ({"embeddings": 5}, r"int in \S+embeddings\.pickle, expected a list of arrays"),
    ],
)  # fmt: skip
def test_stackgan_mistakes(tmp_path, change, found):
    whole = {"filenames": NAMES, "class_info": [1, 1, 2], "embeddings": [np.ones((10, 1024))] * 3}
    save(tmp_path, **{**whole, **change})
    with pytest.raises(T2IError, match=f"^found {found}"):
        read_stackgan(tmp_path)


def test_stackgan_of_missing_and_broken_files(tmp_path):
    assert "filenames.pickle cannot be read (No such file" in wrong(read_stackgan, tmp_path)
    save(tmp_path, filenames=NAMES)
    assert "char-CNN-RNN-embeddings.pickle cannot be read" in wrong(read_stackgan, tmp_path)
    (tmp_path / "char-CNN-RNN-embeddings.pickle").write_bytes(b"cposix\nsystem\n(S'false'\ntR.")
    assert "found posix.system in" in wrong(read_stackgan, tmp_path)


def tacgan(folder, **changes):
    names = ["image_00003.jpg", "image_00001.jpg", "image_00002.jpg"]
    contents = {
        "flowers_caps": {name: [f"{name} a", "b", "ç", "d", "e"] for name in names},
        "flower_tv": {name: np.full((5, 4800), i, np.float32) for i, name in enumerate(names)},
        "flower_tc": {name: np.eye(102)[i * 50] for i, name in enumerate(reversed(names))},
        "train_ids": names[:1],
        "val_ids": names[1:2],
    }
    for name, value in {**contents, **changes}.items():
        (folder / f"{name}.pkl").write_bytes(b"\x80\x02" + python_2(value) + b".")
    return contents


def test_tacgan(tmp_path):
    tacgan(tmp_path)
    found = read_tacgan(tmp_path)
    assert found.filenames == ["image_00001.jpg", "image_00002.jpg", "image_00003.jpg"]
    assert found.captions[0] == ["image_00001.jpg a", "b", "ç", "d", "e"]
    assert found.embeddings.shape == (3, 5, 4800)
    assert found.embeddings.dtype == np.float32
    assert found.embeddings[:, 4, 4799].tolist() == [1, 2, 0]
    assert found.class_ids.dtype == np.int64
    assert found.class_ids.tolist() == [50, 0, 100]
    assert (found.train, found.val) == (["image_00003.jpg"], ["image_00001.jpg"])


def test_tacgan_mistakes(tmp_path):
    whole = tacgan(tmp_path)

    def without(name):
        return {key: value for key, value in whole[name].items() if key != "image_00001.jpg"}

    def with_one(name, value):
        return {**whole[name], "image_00002.jpg": value}

    for change, found in [
        ({"flower_tv": without("flower_tv")}, r"image_00001.jpg in \S+flowers_caps\.pkl but not in \S+flower_tv\.pkl"),
        ({"flower_tc": without("flower_tc")}, r"image_00001.jpg in \S+flowers_caps\.pkl but not in \S+flower_tc\.pkl"),
        ({"flowers_caps": without("flowers_caps")}, r"image_00001.jpg in \S+flower_tv\.pkl but not in \S+flowers_caps"),
        ({"train_ids": ["image_9.jpg"]}, r"image_9.jpg in \S+train_ids\.pkl but not in \S+flowers_caps\.pkl"),
        ({"val_ids": [3]}, r"int at index 0 in \S+val_ids\.pkl"),
        ({"flowers_caps": []}, r"list of 0 in \S+flowers_caps\.pkl, expected a dictionary"),
        (
            {"flowers_caps": with_one("flowers_caps", ["a"])},
            r"1 captions of image_00002.jpg .* expected 5 for each image",
        ),
        ({"flowers_caps": with_one("flowers_caps", "abcde")}, r"str of 5 in .* expected a list of captions"),
        ({"flower_tv": with_one("flower_tv", np.ones((5, 2400)))}, r"an array of float64 \(5, 2400\) .* \(5, 4800\)"),
        ({"flower_tc": with_one("flower_tc", np.eye(20)[0])}, r"an array of float64 \(20,\) .* of shape \(102\)"),
        ({"flower_tc": with_one("flower_tc", np.zeros(102))}, "0 classes of image_00002.jpg .* expected exactly one"),
        ({"flower_tc": with_one("flower_tc", np.ones(102))}, "102 classes of image_00002.jpg"),
        ({"flower_tc": with_one("flower_tc", 2 * np.eye(102)[3])}, "1 classes of image_00002.jpg"),
        ({"flower_tc": {5: 1}}, "int at index 0"),
    ]:
        tacgan(tmp_path, **change)
        with pytest.raises(T2IError, match=f"^found {found}"):
            read_tacgan(tmp_path)
    (tmp_path / "flower_tc.pkl").unlink()
    assert "flower_tc.pkl cannot be read" in wrong(read_tacgan, tmp_path)


def reed(**changes):
    whole = {
        "img": "102flowers/jpg/image_00001.jpg",
        "txt": RNG.normal(size=(10, 1024)),
        "char": RNG.integers(0, 71, (201, 10)).astype(np.uint8),
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def test_reed(tmp_path):
    for dtype in (np.uint8, np.float64, np.int64):
        record = reed(word=np.ones((30, 10)))
        record["char"] = record["char"].astype(dtype)
        found = read_reed_t7(save_t7(tmp_path, record))
        assert found.image == "102flowers/jpg/image_00001.jpg"
        assert found.embeddings.dtype == np.float32
        np.testing.assert_array_equal(found.embeddings, record["txt"].astype(np.float32))
        assert found.characters.dtype == np.uint8
        np.testing.assert_array_equal(found.characters, record["char"])


def test_reed_mistakes(tmp_path):
    for change, found in [
        ({"txt": None}, r"a table with img, char in \S+a\.t7, expected a table with img, txt, char"),
        ({"img": 5.0}, "float for 'img'"),
        ({"txt": np.ones((10, 512))}, r"an array of float64 \(10, 512\) .* in 'txt' of shape \(any, 1024\)"),
        ({"txt": "a"}, "an array of <U1"),
        ({"char": np.ones((201, 9), np.uint8)}, r"an array of uint8 \(201, 9\) .* of shape \(201, 10\)"),
        ({"char": np.full((201, 10), 71, np.uint8)}, "other values in 'char' .* integers from 0 to 70"),
        ({"char": np.full((201, 10), 0.5)}, "other values in 'char'"),
        ({"char": np.full((201, 10), np.nan)}, "other values in 'char'"),
    ]:
        path = save_t7(tmp_path, reed(**change))
        with pytest.raises(T2IError, match=f"^found {found}"):
            read_reed_t7(path)
    assert "found list of 2 in" in wrong(read_reed_t7, save_t7(tmp_path, ["a", "b"]))
    assert "found str of 1 in" in wrong(read_reed_t7, save_t7(tmp_path, "a"))


def test_val_captions(tmp_path):
    features = RNG.normal(size=(5, 1024)).astype(np.float32)
    for parts in ([features[:2], features[2:4], features[4:]], features):
        path = save_t7(tmp_path, {"raw_txt": ["a", "b", "c", "d", "é"], "fea_txt": parts})
        found = read_val_captions_t7(path)
        assert found.captions == ["a", "b", "c", "d", "é"]
        assert found.embeddings.dtype == np.float32
        np.testing.assert_array_equal(found.embeddings, features)
    for change, message in [
        ({"raw_txt": ["a"]}, "1 captions and 5 embeddings"),
        ({"raw_txt": "abcde"}, "str of 5"),
        ({"raw_txt": ["a", 1.0]}, "float at index 1"),
        ({"fea_txt": [features, features[0]]}, r"an array of float32 \(1024,\)"),
        ({"fea_txt": ["a"]}, "an array of <U1"),
    ]:
        path = save_t7(tmp_path, {"raw_txt": ["a"] * 5, "fea_txt": features, **change})
        assert f"found {message}".replace("\\", "") in wrong(read_val_captions_t7, path)


def test_attngan_captions(tmp_path):
    ixtoword = {0: "<end>", 1: "a", 2: "naïve", 3: "bird"}
    wordtoix = {word: number for number, word in ixtoword.items()}
    whole = [[[1, 3], [2, 3, 1]], [[3], []], ixtoword, wordtoix]
    found = read_attngan_captions(save(tmp_path, captions=whole) / "captions.pickle")
    assert found == (whole[0], whole[1], ixtoword, wordtoix)
    assert found.ixtoword[2] == "naïve"
    for place, value, message in [
        (0, [[1, 4]], "a number without a word in train caption 0"),
        (1, [[1], [1.0]], "a number without a word in test caption 1"),
        (1, [[True]], "a number without a word in test caption 0"),
        (0, [np.arange(2)], "list of 1"),
        (1, {}, "dict of 0"),
        (2, [1], "list of 1 and dict of 4"),
        (2, {"a": 1}, "a word's number that is no integer"),
        (3, {"a": np.arange(2)}, "a word's number that is no integer"),
        (2, {0: "a", 1: 5}, "int at index 1"),
        (3, {**wordtoix, "bird": 2}, "ixtoword of 4 words and wordtoix of 4 that do not fit"),
        (3, {**wordtoix, "cat": 4}, "ixtoword of 4 words and wordtoix of 5 that do not fit"),
        (2, {**ixtoword, 4: "bird"}, "ixtoword of 5 words and wordtoix of 4 that do not fit"),
        (2, {9: "bird", **ixtoword}, "ixtoword of 5 words and wordtoix of 4 that do not fit"),
    ]:
        path = save(tmp_path, captions=[*whole[:place], value, *whole[place + 1 :]]) / "captions.pickle"
        assert f"found {message} in {path}" in wrong(read_attngan_captions, path)
    assert "found list of 3 in" in wrong(read_attngan_captions, save(tmp_path, captions=whole[:3]) / "captions.pickle")
    assert "found int in" in wrong(read_attngan_captions, save(tmp_path, captions=5) / "captions.pickle")


def test_files_of_torch_are_no_pickles_of_arrays(tmp_path):
    for modern, found in ((False, "a file of torch.save"), (True, "a zip archive")):
        buffer = io.BytesIO()
        torch.save({"a": torch.ones(2)}, buffer, _use_new_zipfile_serialization=modern)
        (tmp_path / "a.pickle").write_bytes(buffer.getvalue())
        message = wrong(load_pickle, tmp_path / "a.pickle")
        assert message.startswith(f"found {found} in {tmp_path}")
        assert "expected a pickle of NumPy arrays: read it with torch.load(path, weights_only=True)" in message
