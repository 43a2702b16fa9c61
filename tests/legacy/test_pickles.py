"""Pickles of every age come back whole; whatever else they ask for is named, and nothing of it happens."""

import contextlib
import os
import pickle
import random
import struct
import tracemalloc
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_zoo.errors import T2IError
from t2i_zoo.legacy import load_pickle

#: ``{'img\xe9': np.float32([[1, 2]]), u'n\xe4': [1, True, 2L, None, 0.5, 'a\nb']}`` by Python 2.7 and NumPy 1.16
PYTHON_2 = [
    b"(dp1\nS'img\\xe9'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntS'b'\ntRp5\n(I1\n(I1\nI2\ntc"
    b"numpy\ndtype\np6\n(S'f4'\nI0\nI1\ntRp7\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\x00@'\ntbsVn\xe4\n"
    b"p8\n(lp9\nI1\naI01\naL2L\naNaF0.5\naS'a\\nb'\np10\nas.",
    b"}q\x01(U\x04img\xe9q\x02cnumpy.core.multiarray\n_reconstruct\nq\x03(cnumpy\nndarray\nq\x04(K\x00tU\x01btRq\x05(K\x01("
    b"K\x01K\x02tcnumpy\ndtype\nq\x06(U\x02f4K\x00K\x01tRq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbI00\n"
    b"U\x08\x00\x00\x80?\x00\x00\x00@tbX\x03\x00\x00\x00n\xc3\xa4q\x08]q\t(K\x01I01\nL2L\nNG?\xe0\x00\x00\x00\x00\x00\x00"
    b"U\x03a\nbq\neu.",
    b"\x80\x02}q\x01(U\x04img\xe9q\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87"
    b"Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02f4K\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
    b"\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tbX\x03\x00\x00\x00n\xc3\xa4q\x08]q\t(K\x01\x88\x8a\x01\x02NG?\xe0\x00"
    b"\x00\x00\x00\x00\x00U\x03a\nbq\neu.",
]  # of protocol 0, 1 and 2

VALUES = [
    None, True, -5, 10**30, 1.25, 1j, "ü\r\n\n", "", b"", b"\xff\r\n", bytearray(), bytearray(b"\x80x"),
    [], (), {}, set(), [[1], (2, (3,))], {"a": 1, (1, "b"): 2, 3: None}, {1, "a"}, frozenset({1}),
    np.float32(1.5), np.int64(3), np.bool_(True), np.str_("äb"), np.bytes_(b"ab"), {np.int64(3): 1},
    np.arange(6, dtype="<f4").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3), "u1"),
    np.array(1 + 2j), np.arange(24, dtype="i2").reshape(2, 3, 4).transpose(1, 0, 2), np.arange(5000.0)[::2],
    np.array(["añ", "b"]), np.array([b"a", b"bc"]), np.array(["a", 1, None, ["x"], np.arange(2)], object),
    [np.ones((10, 1024), np.float32)] * 2, np.array([True, False]),
]  # fmt: skip


def write(tmp_path, content):
    path = tmp_path / "a.pickle"
    path.touch()
    with path.open("r+b") as file:  # emptying it first is slow on some systems, and the tests write it often
        file.write(content)
        file.truncate()
    return path


def refused(tmp_path, content):
    """The sentence for a file that is refused."""
    path = write(tmp_path, content)
    with pytest.raises(T2IError) as caught:
        load_pickle(path)
    message = str(caught.value)
    assert str(path) in message
    assert ", expected " in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))
    return message.replace(str(path), "FILE")


@pytest.mark.parametrize("content", PYTHON_2)
def test_pickles_of_python_2(tmp_path, content):
    value = load_pickle(write(tmp_path, content))
    assert list(value) == ["img\xe9", "nä"]
    array = value["img\xe9"]
    assert type(array) is np.ndarray
    assert array.dtype == np.float32
    assert array.tolist() == [[1, 2]]
    assert value["nä"] == [1, True, 2, None, 0.5, "a\nb"]
    assert [type(item) for item in value["nä"]] == [int, bool, int, type(None), float, str]


def test_containers_of_python_2(tmp_path):
    ordered = b"ccollections\nOrderedDict\np0\n((lp1\n(lp2\nS'b'\np3\naI1\naa(lp4\nS'a'\np5\naI2\naatp6\nRp7\n."
    assert list(load_pickle(write(tmp_path, ordered)).items()) == [("b", 1), ("a", 2)]
    default = b"\x80\x02ccollections\ndefaultdict\nc__builtin__\nlist\nq\x01\x85q\x02Rq\x03U\x01aq\x04]q\x05K\x07as."
    assert load_pickle(write(tmp_path, default)) == {"a": [7]}
    assert load_pickle(write(tmp_path, b"c__builtin__\nset\np0\n((lp1\nI1\naI2\natp2\nRp3\n.")) == {1, 2}
    scalar = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\np1\n(S'i8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    assert load_pickle(write(tmp_path, scalar + b"S'\\x05\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\ntRp3\n.")) == np.int64(5)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_written_comes_back(tmp_path, protocol):
    for value in [*VALUES, VALUES]:
        loaded = load_pickle(write(tmp_path, pickle.dumps(value, protocol)))
        assert type(loaded) is type(value)
        assert repr(loaded) == repr(value)
        if isinstance(value, np.ndarray):
            assert loaded.dtype == value.dtype
    assert load_pickle(write(tmp_path, pickle.dumps(OrderedDict(b=1, a=2), protocol))) == {"b": 1, "a": 2}
    assert load_pickle(write(tmp_path, pickle.dumps(defaultdict(list, a=[1]), protocol))) == {"a": [1]}
    assert load_pickle(write(tmp_path, pickle.dumps(np.arange(3, dtype=">i4"), protocol))).tolist() == [0, 1, 2]


def test_arrays_of_numpy_1_and_2(tmp_path):
    content = pickle.dumps(np.arange(3), 2).replace(b"numpy._core.", b"numpy.core.")
    for module in (b"numpy.core.", b"numpy._core."):
        assert load_pickle(write(tmp_path, content.replace(b"numpy.core.", module))).tolist() == [0, 1, 2]


def test_shared_parts_stay_shared_and_arrays_can_be_written(tmp_path):
    array = np.zeros(3)
    first, second = load_pickle(write(tmp_path, pickle.dumps([array, array], 2)))
    first[0] = 1
    assert second is first
    circle = load_pickle(write(tmp_path, b"]q\x00h\x00a."))
    assert circle[0] is circle


@pytest.mark.parametrize("content", PYTHON_2)
def test_line_ends_changed_by_a_transfer_are_mended(tmp_path, content):
    value = load_pickle(write(tmp_path, content.replace(b"\n", b"\r\n")))
    assert repr(value) == repr(load_pickle(write(tmp_path, content)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_changed_line_ends_in_every_protocol(tmp_path, protocol):
    value = ["a\r\nb", b"\n\r\n", np.arange(20, dtype=np.uint8), "\n", 10, 13, 2573]
    content = pickle.dumps(value, protocol)
    assert repr(load_pickle(write(tmp_path, content.replace(b"\n", b"\r\n")))) == repr(value)


def test_a_crlf_that_belongs_to_a_string_stays(tmp_path):
    for protocol in (1, 2, 4):
        content = pickle.dumps(["ab\r\n"], protocol)
        assert load_pickle(write(tmp_path, content)) == ["ab\r\n"]
    assert load_pickle(write(tmp_path, b"Vab\r\np0\r\n.")) == "ab"  # in text, the carriage return is damage


def test_damage_by_a_transfer_is_called_so(tmp_path):
    content = pickle.dumps(["ab\n", 1000000], 2).replace(b"\n", b"\r\n")
    assert refused(tmp_path, content[:-3]) == (
        "found damage in FILE (changed by a transfer in text mode), expected a pickle: download it again in binary mode"
    )
    assert "found posix.system in" in refused(tmp_path, b"\x80\x02cposix\r\nsystem\r\nX\x01\x00\x00\x00a\x85R.")


def test_what_is_no_pickle(tmp_path):
    assert refused(tmp_path, b"") == "found an empty file in FILE, expected a pickle: download it again"
    assert "found a web page in FILE" in refused(tmp_path, b"\n<!DOCTYPE html><html><body>404</body></html>")
    assert "0xff is no opcode" in refused(tmp_path, b"\xff\xd8\xff\xe0")
    assert "it ends early" in refused(tmp_path, b"\x80\x02]q\x00")
    with pytest.raises(T2IError, match=r"nowhere\.pickle cannot be read \(No such file or directory\), expected a pi"):
        load_pickle(tmp_path / "nowhere.pickle")


class Touch:
    """Its pickle leaves a file behind, wherever it is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_executes_nothing(tmp_path, protocol):
    marker = tmp_path / "marker"
    attack = Touch(marker)
    for value in (attack, [{"a": (np.arange(3), attack)}], np.array([1, attack, None], object)):
        content = pickle.dumps(value, protocol)
        assert refused(tmp_path, content) == (
            f"found {os.system.__module__}.system in FILE, expected NumPy arrays and plain containers: nothing of it "
            "was run, download the file from its authors or have it saved without that"
        )
        assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # or the attack would have failed by itself


def call(module, name, *args, text=True):
    """A pickle that calls something by name: with GLOBAL as text, or with STACK_GLOBAL."""
    if text:
        return f"c{module}\n{name}\n".encode() + pickle.dumps(args, 0)[:-1] + b"R."
    names = b"".join(b"\x8c" + bytes([len(part.encode())]) + part.encode() for part in (module, name))
    return b"\x80\x04" + names + b"\x93" + pickle.dumps(args, 3)[2:-1] + b"R."


def array_pickle(code, shape, content, order="<"):
    """The pickle of an array that may claim anything."""
    dtype = call("numpy", "dtype", code, 0, 1)[:-1] + b"(I3\n" + f"S'{order}'\n".encode() + b"NNNI-1\nI-1\nI0\ntb"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
        + pickle.dumps(shape, 0)[:-1] + dtype + b"I00\n" + pickle.dumps(content, 0)[:-1] + b"tb."
    )  # fmt: skip


@pytest.mark.parametrize("text", [True, False])
def test_every_other_name_is_refused(tmp_path, text):
    marker = tmp_path / "marker"
    touch, code = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    for module, name, *args in [
        ("posix", "system", touch), ("os", "system", touch), ("nt", "system", touch), ("os", "popen", touch),
        ("subprocess", "Popen", ["touch", str(marker)]), ("subprocess", "check_output", ["touch", str(marker)]),
        ("builtins", "eval", code), ("__builtin__", "eval", code), ("builtins", "exec", code),
        ("__builtin__", "execfile", str(marker)), ("builtins", "open", str(marker), "w"), ("io", "open"),
        ("builtins", "getattr", "", "join"), ("builtins", "__import__", "this"), ("importlib", "import_module", "this"),
        ("builtins", "type", "T", (), {}), ("builtins", "object"), ("builtins", "int", "5"), ("builtins", "str", b""),
        ("builtins", "list.__class__"), ("builtins", "list.append.__class__"), ("builtins.list", "__class__"),
        ("functools", "partial", "a"), ("operator", "attrgetter", "a"), ("copyreg", "_reconstructor"),
        ("copy_reg", "_reconstructor"), ("copyreg", "add_extension", "os", "system", 1), ("types", "FunctionType"),
        ("numpy.testing", "rundocs", str(marker)), ("numpy.testing._private.utils", "runstring", code, {}),
        ("numpy", "load", str(marker)), ("numpy", "fromfile", str(marker)), ("numpy", "memmap", str(marker)),
        ("numpy", "matrix", [1]), ("numpy", "ndarray.tofile", str(marker)), ("numpy", "dtype.__class__"),
        ("numpy.core.multiarray", "frombuffer", b"ab"), ("numpy.core.multiarray", "_reconstruct.__self__"),
        ("numpy.core.records", "recarray"), ("numpy.ma.core", "_mareconstruct"), ("numpy", "core.multiarray.scalar"),
        ("_codecs", "decode", b"a"), ("collections", "Counter", "ab"), ("collections", "OrderedDict.update", {}),
        ("pickle", "loads", b"."), ("pandas.core.frame", "DataFrame"), ("torch._utils", "_rebuild_tensor_v2"),
        ("t2i_zoo.legacy.pickles", "_Unpickler"), ("__main__", "Thing"), ("", ""), ("b\xe4d", "n\u2028ame"),
    ]:  # fmt: skip
        message = refused(tmp_path, call(module, name, *args, text=text))
        shown = f"{module}.{name}".encode("ascii", "backslashreplace").decode() if name.isascii() else "b\\xe4d.n ame"
        assert message.startswith(f"found {shown} in FILE, expected NumPy arrays and plain containers: nothing of")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"Pabc\n.", "the opcode PERSID"),
        (b"K\x01Q.", "the opcode BINPERSID"),
        (b"\x80\x02\x82\x01.", "the opcode EXT1"),
        (b"\x80\x02\x84\x01\x00\x00\x00.", "the opcode EXT4"),
        (b"\x80\x05\x97.", "the opcode NEXT_BUFFER"),
        (b"\x80\x05C\x00\x98.", "the opcode READONLY_BUFFER"),
        (b"(S'touch marker'\niposix\nsystem\n.", "the opcode INST"),
        (b"(i__builtin__\nlist\n.", "the opcode INST"),
        (b"(c__builtin__\nlist\no.", "the opcode OBJ"),
        (b"\x80\x02c__builtin__\nlist\n)\x81.", "the opcode NEWOBJ"),
        (b"\x80\x04c__builtin__\nlist\n)}\x92.", "the opcode NEWOBJ_EX"),
        (b"]}b.", "a state for list"),
        (b"c__builtin__\nlist\n}b.", "a state for __builtin__.list"),
        (b"cnumpy\nndarray\n(tb.", "a state for numpy.ndarray"),
        (b"ccollections\nOrderedDict\n)R}b.", "a state for dict"),
        (b"c__builtin__\nlist\n.", "__builtin__.list"),
        (b"]]cnumpy\ndtype\naa.", "numpy.dtype"),
        (b"cnumpy\ndtype\n(S'f4'\ntR.", "numpy.dtype"),
        (b"S'system'\n)R.", "a call of str"),
        (b"c__builtin__\nset\n)R)R.", "a call of set"),
        (b"c__builtin__\nlist\n]R.", "a call of __builtin__.list"),
        (b"cnumpy\nndarray\n((I5\ntS'f8'\ntR.", "a call of numpy.ndarray"),
        (call("numpy", "dtype", "V1000000000"), "numpy.dtype V1000000000"),
        (array_pickle("S0", (10**12,), ""), "numpy.dtype S0"),  # of no size, yet numpy gives each element a byte
        (call("numpy", "dtype", "f4,(1000000,1000000)f8"), "numpy.dtype f4,(1000000,1000000)f8"),
        (call("numpy", "dtype", [("a", "O")]), "numpy.dtype"),
        (call("_codecs", "encode", "a", "rot13"), "_codecs.encode to something else than latin1"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(c__builtin__\nlist\n(I0\ntS'b'\ntR.", "an array of another kind"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99\ntS'b'\ntR.", "an array of another kind"),
    ],
)
def test_every_other_use_is_refused(tmp_path, content, found):
    assert refused(tmp_path, content).startswith(f"found {found}")


def test_arrays_that_claim_other_than_they_hold(tmp_path):
    assert load_pickle(write(tmp_path, array_pickle("f4", (2,), "12345678"))).shape == (2,)
    for arguments in [
        ("f4", (3,), "12345678"), ("f4", (1,), "12345678"), ("f4", (-2,), "12345678"), ("f4", [2], "12345678"),
        ("f4", (2.0,), "12345678"), ("f4", (True, 2), "12345678"), ("f4", (1,) * 40 + (2,), "12345678"),
        ("f4", (2,), ["12345678"]), ("f4", (2,), None), ("f4", (2,), "\u20ac2345678"), ("O", (1,), "a"),
        ("O", (3,), [1, 2]), ("O", (1,), [1, 2]), ("f4", None, "12345678"), ("O", (2,), {0: 1, 1: 2}),
    ]:  # fmt: skip
        assert "found damage in FILE" in refused(tmp_path, array_pickle(*arguments)), arguments
    whole = array_pickle("f4", (2,), "12345678")
    assert "a dtype is not plain" in refused(tmp_path, whole.replace(b"NNNI-1", b"N(S'a'\nt}I-1"))
    assert "an array without content" in refused(tmp_path, whole[: whole.index(b"R(I1") + 1] + b".")
    leak = array_pickle("O", (1,), [5]).replace(b"I5\n", b"c__builtin__\nlist\n")
    assert "found __builtin__.list in" in refused(tmp_path, leak)
    assert "found a state for ndarray" in refused(tmp_path, whole[:-1] + b"(tb.")


@pytest.mark.parametrize(
    "content",
    [
        *(array_pickle(code, shape, "") for code in ("f8", "S1", "U1") for shape in ((10**12,), (10**6,) * 9)),
        array_pickle("O", (10**10,), []),
        array_pickle("S999999999", (10**10,), ""),
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"ab.",  # BINBYTES8
        b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1) + b"ab.",
        b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"ab.",  # BINUNICODE8
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"ab.",  # BYTEARRAY8
        b"\x80\x05\x96" + struct.pack("<Q", 2**64 - 1) + b"ab.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"X\xff\xff\xff\xff.",  # FRAME, BINUNICODE
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.",  # LONG4
        b"T" + struct.pack("<i", 2**31 - 1) + b"ab.",  # BINSTRING
        b"B" + struct.pack("<I", 2**32 - 1) + b"ab.",  # BINBYTES
        b"L" + b"9" * 100_000 + b"L\n.",
        call("builtins", "bytearray", 10**12),
        b"K\x01r\xff\xff\xff\xff",  # LONG_BINPUT, for which the interpreter in C makes room in its memo
        # one string of 100 kB, made an array, a copy or bytes a thousand times
        b"(" + pickle.dumps("a" * 100_000, 2)[2:-1] + b"0" + b"c__builtin__\nbytearray\nh\x00\x85R" * 1000 + b"l.",
        b"(" + pickle.dumps([0] * 100_000, 2)[2:-1] + b"0" + b"c__builtin__\nset\nh\x00\x85R" * 1000 + b"l.",
        b"\x80\x02}K\x01" + b"\x85" * 1_000_000 + b"K\x02s.",  # too deep to hash: the one in C crashes the process
        # 2 ** 24 steps to hash; a few bytes more would take for ever
        b"\x80\x02}K\x01" + b"2\x86" * 24 + b"K\x02s.",
        b"\x80\x04\x8f(K\x01" + b"2\x86" * 24 + b"\x90.",
        b"\x80\x04(K\x01" + b"2\x86" * 24 + b"\x91.",
        b"\x80\x02c__builtin__\nset\n]K\x01" + b"2\x86" * 24 + b"a\x85R.",
    ],
)
def test_a_small_file_cannot_fill_the_memory_or_the_day(tmp_path, content):
    path = write(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(T2IError, match="found damage in"):
            load_pickle(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * len(content) + 1_000_000  # a byte can be a tuple or a dict
    finally:
        tracemalloc.stop()


WHOLE = [
    *PYTHON_2,
    *(pickle.dumps({"a": [np.arange(3), {1}, np.array(["b", None], object)]}, protocol) for protocol in range(6)),
]


@pytest.mark.parametrize("content", WHOLE)
def test_truncated_at_every_byte(tmp_path, content):
    load_pickle(write(tmp_path, content))
    for length in range(len(content)):
        refused(tmp_path, content[:length])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=80, deadline=None)
@given(noise=st.binary(max_size=200), seed=st.integers(0, 2**32))
def test_noise_and_changed_files_raise_nothing_else(folder, noise, seed):
    rng = random.Random(seed)
    changed = [bytearray(content) for content in WHOLE]
    for content in changed:
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(content))
            content[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
    for content in (noise, b"\x80\x04" + noise, *changed):
        with contextlib.suppress(T2IError):
            repr(load_pickle(write(folder, content)))
