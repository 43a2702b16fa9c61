"""Torch7's files in both forms come back as plain values; whatever else they hold is named."""

import contextlib
import random
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_zoo.errors import T2IError
from t2i_zoo.legacy import load_t7

NAMES = {"f8": "Double", "f4": "Float", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char", "u1": "Byte"}


class Writer:
    """What Torch7 writes for Python's values: the objects are numbered in their order, and written once.

    Arrays are tensors; one that is a view has the storage of its base. ``Storage`` is the storage alone.
    """

    def __init__(self, ascii):
        self.ascii, self.parts, self.seen = ascii, [], {}

    def numbers(self, code, *values):
        if not self.ascii:
            self.parts.append(struct.pack(f"<{len(values)}{code}", *values))
        elif values:
            form = {"d": "%.17g", "f": "%.9g"}.get(code, "%d")
            self.parts.append((" ".join(form % value for value in values) + "\n").encode())

    def chars(self, content):
        self.parts.append(content + b"\n" if self.ascii and content else content)

    def string(self, content):
        self.numbers("i", len(content))
        self.chars(content)

    def known(self, value):
        """Write the number of an object; whether that is all there is to write."""
        key = value if isinstance(value, tuple) else id(value)
        new = key not in self.seen
        self.seen.setdefault(key, len(self.seen) + 1)
        self.numbers("i", self.seen[key])
        return not new

    def torch(self, name):
        self.string(b"V 1")
        self.string(name.encode())

    def write(self, value):
        if value is None:
            self.numbers("i", 0)
        elif isinstance(value, bool):
            self.numbers("i", 5)
            self.numbers("i", value)
        elif isinstance(value, (int, float)):
            self.numbers("i", 1)
            self.numbers("d", value)
        elif isinstance(value, (str, bytes)):
            self.numbers("i", 2)
            self.string(value.encode() if isinstance(value, str) else value)
        elif isinstance(value, (list, dict)):
            self.numbers("i", 3)
            if not self.known(value):
                items = list(value.items() if isinstance(value, dict) else enumerate(value, 1))
                self.numbers("i", len(items))
                for pair in items:
                    self.write(pair[0])
                    self.write(pair[1])
        elif isinstance(value, Storage):
            self.storage(value.array)
        else:
            self.tensor(value)
        return b"".join(self.parts)

    def tensor(self, array):
        self.numbers("i", 4)
        if self.known(array):
            return
        base = array if array.base is None else array.base
        self.torch(f"torch.{NAMES[array.dtype.str[1:]]}Tensor")
        self.numbers("i", array.ndim if array.size else 0)
        if array.size:
            self.numbers("q", *array.shape)
            self.numbers("q", *(stride // array.itemsize for stride in array.strides))
        self.numbers("q", (array.ctypes.data - base.ctypes.data) // array.itemsize + 1)
        if array.size:
            self.storage(base)
        else:
            self.numbers("i", 0)

    def storage(self, base):
        self.numbers("i", 4)
        if self.known(("storage", id(base))):
            return
        self.torch(f"torch.{NAMES[base.dtype.str[1:]]}Storage")
        self.numbers("q", base.size)
        code = {"i1": "b", "u1": "B", "i2": "h", "i4": "i", "i8": "q", "f4": "f", "f8": "d"}[base.dtype.str[1:]]
        if base.itemsize == 1:
            self.chars(base.tobytes())
        else:
            self.numbers(code, *base.ravel().tolist())


class Storage:
    def __init__(self, array):
        self.array = array


def write(tmp_path, content):
    path = tmp_path / "a.t7"
    path.touch()
    with path.open("r+b") as file:  # emptying it first is slow on some systems, and the tests write it often
        file.write(content)
        file.truncate()
    return path


def refused(tmp_path, content):
    """The sentence for a file that is refused."""
    path = write(tmp_path, content)
    with pytest.raises(T2IError) as caught:
        load_t7(path)
    message = str(caught.value)
    assert str(path) in message
    assert ", expected " in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    return message.replace(str(path), "FILE")


both_forms = pytest.mark.parametrize("ascii", [False, True], ids=["binary", "ascii"])


def load(tmp_path, value, ascii):
    return load_t7(write(tmp_path, Writer(ascii).write(value)))


def equal(found, wanted):
    """Of the same types, values and shapes throughout."""
    if isinstance(wanted, np.ndarray):
        assert type(found) is np.ndarray
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(found, wanted)
        assert found.flags.writeable
    elif isinstance(wanted, (list, dict)):
        assert type(found) is type(wanted)
        assert len(found) == len(wanted)
        for key, value in wanted.items() if isinstance(wanted, dict) else enumerate(wanted):
            equal(found[key], value)
    else:
        assert type(found) is type(wanted)
        assert found == wanted


def test_bytes_by_hand(tmp_path):
    """``torch.DoubleTensor{0.5, 2}``: the ascii form, and byte by byte the binary one."""
    text = b"4\n1\n3\nV 1\n18\ntorch.DoubleTensor\n1\n2\n1\n1\n4\n2\n3\nV 1\n19\ntorch.DoubleStorage\n2\n0.5 2\n"
    binary = (
        b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1\x12\0\0\0torch.DoubleTensor\x01\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"
        b"\x01\0\0\0\0\0\0\0\x04\0\0\0\x02\0\0\0\x03\0\0\0V 1\x13\0\0\0torch.DoubleStorage\x02\0\0\0\0\0\0\0"
        b"\0\0\0\0\0\0\xe0\x3f\0\0\0\0\0\0\0\x40"
    )
    array = np.array([0.5, 2])
    for content, ascii in ((text, True), (binary, False)):
        assert Writer(ascii).write(array) == content
        equal(load_t7(write(tmp_path, content)), array)
        old = content.replace(*(b"3\nV 1\n", b"") if ascii else (b"\x03\0\0\0V 1", b""))  # before there were versions
        equal(load_t7(write(tmp_path, old)), array)


@both_forms
def test_plain_values(tmp_path, ascii):
    for value in [None, True, False, 0.0, -1.5, 1e300, float("inf"), "", "a b\n", " x", "ü", "a\0b", [], [1.0, "a"],
                  {"a": [True, {"b": {}}][:1], 5: "x"}, {2: 1.0, 1: 2.0, 4: 0.0}, ["\n", "", "\n1"]]:  # fmt: skip
        equal(load(tmp_path, value, ascii), value)
    equal(load(tmp_path, b"\xe9\xff", ascii), "\xe9\xff")
    equal(load(tmp_path, {2: "b", 1: "a", 3: "c"}, ascii), ["a", "b", "c"])  # Lua has no order of its own
    equal(load(tmp_path, {"a": None, 1: "x"}, ascii), ["x"])  # nil is nothing
    assert np.isnan(load(tmp_path, float("nan"), ascii))
    equal(load(tmp_path, {-1: 1.0, 0: 2.0}, ascii), {-1: 1.0, 0: 2.0})


@both_forms
@pytest.mark.parametrize("code", NAMES)
def test_tensors_and_storages(tmp_path, ascii, code):
    rng = np.random.default_rng(0)
    for shape in [(3,), (2, 3), (2, 1, 4, 3), (1, 1)]:
        array = rng.integers(-100, 100, shape).astype(code)
        equal(load(tmp_path, array, ascii), array)
        equal(load(tmp_path, {"x": array, "y": 1.0}, ascii), {"x": array, "y": 1.0})
        equal(load(tmp_path, Storage(array), ascii), array.ravel())
    equal(load(tmp_path, [np.zeros(0, code), "a"], ascii), [np.zeros(0, code), "a"])
    equal(load(tmp_path, Storage(np.zeros(0, code)), ascii), np.zeros(0, code))
    base = np.arange(24).astype(code)
    views = [base[5:9], base[1:24:3], base.reshape(4, 6)[1:, 2:5], base.reshape(2, 3, 4).transpose(2, 0, 1), base[23:]]
    equal(load(tmp_path, views, ascii), [view.copy() for view in views])


@both_forms
def test_exact_numbers(tmp_path, ascii):
    array = np.array([np.pi, 1e-300, np.inf, -np.inf, np.nan, -0.0])
    equal(load(tmp_path, array, ascii), array)
    equal(load(tmp_path, array.astype("f4"), ascii), array.astype("f4"))
    for code in ("i8", "i4", "i2", "i1", "u1"):
        extremes = np.array([np.iinfo(code).min, np.iinfo(code).max], code)
        equal(load(tmp_path, extremes, ascii), extremes)


@both_forms
def test_what_is_shared_stays_shared(tmp_path, ascii):
    base, table = np.arange(6.0), {"a": 1.0}
    value = {"whole": base, "part": base[2:4], "again": base, "first": table, "second": table}
    loaded = load(tmp_path, value, ascii)
    assert loaded["again"] is loaded["whole"]
    assert loaded["first"] is loaded["second"]
    loaded["whole"][2] = 50
    assert loaded["part"].tolist() == [50, 3]


def objects(ascii, *numbers):
    """Integers and strings in turn as they stand in a file."""
    writer = Writer(ascii)
    for number in numbers:
        if isinstance(number, tuple):
            writer.numbers("q", *number)
        elif isinstance(number, int):
            writer.numbers("i", number)
        else:
            writer.string(number)
    return b"".join(writer.parts)


@both_forms
def test_code_and_classes_are_refused_by_name(tmp_path, ascii):
    for content, found in [
        ((6, b"\x1bLua"), "a Lua function"), ((7, 1, b"\x1bLua"), "a Lua function"),
        ((8, 1, b"\x1bLua"), "a Lua function"), ((3, 1, 1, 2, b"f", 8, 2, b"\x1bLJ"), "a Lua function"),
        ((4, 1, b"V 1", b"nn.Linear", 3, 2, 0), "an object of class nn.Linear"),
        ((4, 1, b"nn.Linear"), "an object of class nn.Linear"), ((4, 1, b"V 1", b"tds.Vec"), "an object of class tds."),
        ((4, 1, b"V 1", b"torch.CudaTensor"), "an object of class torch.CudaTensor"),
        ((4, 1, b"V 1", b"torch.FloatTensor\n"), "an object of class torch.FloatTensor"),
        ((4, 1, b"V 1", b"x" * 500), "an object of class xxx"),
        ((3, 1, 1, 0, 0), "a key of type NoneType"), ((3, 1, 1, 5, 1, 0), "a key of type bool"),
        ((3, 1, 1, 3, 2, 0, 0), "a key of type list"), ((3, 1, 1, 2, b"a", 3, 1), "a table that holds itself"),
        ((3, 1, 1, 2, b"a", 3, 2, 1, 2, b"b", 3, 1), "a table that holds itself"),
    ]:  # fmt: skip
        message = refused(tmp_path, objects(ascii, *content))
        assert message.startswith(f"found {found}"), message
        assert message.endswith(
            "expected tables, strings, numbers and tensors: save the tensors alone, with torch.save in Lua"
        )
    assert refused(tmp_path, Writer(ascii).write({0.5: "a"})).startswith("found a key of type float")
    content = b"".join(objects(ascii, 3, number, 1) + Writer(ascii).write(1.0) for number in range(1, 2000))
    assert refused(tmp_path, content).startswith("found tables more than 100 deep")


def tensor(ascii, sizes, strides, offset, claimed, held, kind=b"Float", storage=b"Float"):
    head = objects(
        ascii, 4, 1, b"V 1", b"torch." + kind + b"Tensor", len(sizes), tuple(sizes), tuple(strides), (offset,)
    )
    body = objects(ascii, 4, 2, b"V 1", b"torch." + storage + b"Storage", (claimed,))
    writer = Writer(ascii)
    writer.numbers("f", *range(held))
    return head + body + b"".join(writer.parts)


@both_forms
def test_tensors_that_claim_other_than_they_hold(tmp_path, ascii):
    assert load_t7(write(tmp_path, tensor(ascii, [2, 2], [3, 1], 2, 6, 6))).tolist() == [[1, 2], [4, 5]]
    for arguments in [
        ([2, 2], [3, 1], 3, 6, 6), ([2, 2], [3, 1], 0, 6, 6), ([2, 2], [3, 1], -2, 6, 6), ([7], [1], 1, 6, 6),
        ([2, 2], [-3, 1], 4, 6, 6), ([-2, 2], [3, 1], 1, 6, 6), ([2], [2**61], 1, 6, 6), ([2**62], [2**62], 1, 6, 6),
        ([10**12], [0], 1, 6, 6), ([10**6] * 9, [0] * 9, 1, 6, 6), ([1] * 40, [1] * 40, 1, 6, 7),
        ([2], [1], 1, 10**12, 6), ([2], [1], 1, 2**62, 6), ([2], [1], 1, -1, 6), ([2], [1], 1, 7, 6),
        ([2], [1], 1, 6, 6, b"Double"), ([2], [1], 1, 3, 6, b"Float", b"Double"),
    ]:  # fmt: skip
        content = tensor(ascii, *arguments)
        tracemalloc.start()
        try:
            message = refused(tmp_path, content)
            assert message.startswith("found damage in FILE (ValueError: "), arguments
            assert arguments[3:] != (6, 6) or "exceeds its storage of 6" in message or "a negative" in message
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
    other = objects(ascii, 4, 1, b"V 1", b"torch.FloatTensor", 1, (2,), (1,), (1,))
    for storage in (objects(ascii, 0), objects(ascii, 2, b"abc"), objects(ascii, 4, 1), objects(ascii, 3, 2, 0)):
        refused(tmp_path, other + storage)


def test_what_is_no_such_file(tmp_path):
    for content in [
        objects(False, 2, 2**31 - 1), objects(False, 2, -1), objects(False, 3, 1, -5), objects(False, 3, 1, 2**31 - 1),
        objects(True, 2, 2**31 - 1), objects(True, 3, 1, 2**31 - 1), b"2\n-3\nabc", b"PK\x03\x04", b"\x80\x02}q\x00.",
        objects(False, 17), b"17\n", b"1\n1e5x\n", b"1\n", b"\x89PNG", b"1" * 10_000,
    ]:  # fmt: skip
        message = refused(tmp_path, content)
        assert message.startswith("found damage in FILE (")
        assert message.endswith("), expected a .t7 file of Torch7: download it again in binary mode")
    assert "found a web page in FILE" in refused(tmp_path, b"<html><body>404</body></html>")
    assert "found an empty file in FILE" in refused(tmp_path, b"")
    with pytest.raises(T2IError, match=r"nowhere\.t7 cannot be read \(.*\), expected a \.t7 file of Torch7: check the"):
        load_t7(tmp_path / "nowhere.t7")


WHOLE = [
    Writer(ascii).write(
        {"img": "jpg/a.jpg", "txt": np.ones((2, 3), "f4"), "char": np.arange(6, dtype="u1"), 1: [True, None]}
    )
    for ascii in (False, True)
]


@pytest.mark.parametrize("content", WHOLE)
def test_truncated_at_every_byte(tmp_path, content):
    whole = load_t7(write(tmp_path, content))
    assert whole["img"] == "jpg/a.jpg"
    for length in range(len(content) - 1):  # the ascii form ends with a line feed that says nothing
        refused(tmp_path, content[:length])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=100), seed=st.integers(0, 2**32))
def test_noise_and_changed_files_raise_nothing_else(folder, noise, seed):
    rng = random.Random(seed)
    changed = [bytearray(content) for content in WHOLE]
    for content in changed:
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(content))
            content[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
    for content in (noise, b"\x03\0\0\0\x01\0\0\0" + noise, b"3\n1\n2\n" + noise, *changed):
        with contextlib.suppress(T2IError):
            repr(load_t7(write(folder, content)))
