"""Pickles of unknown origin, Python 2's included, read without running anything that they name."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.errors import T2IError
from t2i_zoo.legacy.reading import brief, broken, read_content

_OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}

#: what these do touches plain values only; whatever calls, sets a state or hashes is written anew below
_HARMLESS = """
    PROTO MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT EMPTY_SET
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL
"""
_PLAIN = {type(None), bool, int, float, complex, str, bytes, bytearray}
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|O[48]?|[SU]\d{1,9}")


def load_pickle(path: str | Path) -> Any:
    """Read a pickle of protocol 0 to 5 that holds NumPy arrays and plain containers, and nothing else.

    Nothing that the file names is imported or called: the few names that NumPy and Python write for such values are
    answered by functions of this module. ``OrderedDict`` and ``defaultdict`` come back as ``dict``, and the byte
    strings of Python 2 as latin1, so that ``text.encode("latin1")`` gives their bytes. Line ends that a transfer in
    text mode has turned into CRLF are mended.

    Raises:
        T2IError: names the file and the first thing in it that is refused, or says what is wrong with the file.
    """
    data = read_content(path, "a pickle")
    # a transfer in text mode leaves no bare line feed behind, and turning every CRLF back undoes it exactly
    hurt = b"\r\n" in data and re.search(rb"(?<!\r)\n", data) is None
    attempts = [data]
    if hurt:
        mended = data.replace(b"\r\n", b"\n")
        text_alone = not data.translate(None, bytes(range(32, 256)) + b"\t\r\n")
        # protocol 0 is text, so its CRLF are damage; in the others one may belong to a string
        attempts = [mended] if text_alone else [data, mended]
    for attempt in attempts:
        try:
            return _Unpickler(attempt, path).load()
        except MemoryError:  # says nothing about the file
            raise
        except T2IError as error:
            failure, cause = error, None
        except Exception as error:  # a broken pickle can raise any kind
            reason = "changed by a transfer in text mode" if hurt else f"{type(error).__name__}: {error}"
            failure, cause = broken(path, "a pickle", reason), error
    raise failure from cause


class _Name:
    """Stands on the stack for a name of the table below: none but REDUCE calls ``make``."""

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name, self.make = name, make


class _DType:
    """Stands on the stack for a dtype, since numpy's own accepts any state."""

    name = "numpy.dtype"

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def build(self, state: Any) -> None:
        version, order, subarray, names, fields, *_ = state
        if version not in (3, 4) or (subarray, names, fields) != (None, None, None):
            raise ValueError("a dtype is not plain")
        self.dtype = self.dtype.newbyteorder(order)


class _Unpickler(pickle._Unpickler):
    """The standard library's interpreter with a closed table of opcodes.

    It is the one written in Python: that in C has no such table, calls ``__setstate__`` and ``setattr`` on whatever
    lies on its stack, and enlarges its memo to any index that a file names.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: pickle._Unpickler.dispatch[code] for (code,) in (getattr(pickle, name) for name in _HARMLESS.split())
    }
    stack: list[Any]
    metastack: list[list[Any]]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, data: bytes, path: str | Path) -> None:
        file = io.BytesIO(data)
        super().__init__(file, encoding="latin1")
        self.read, self.readline = file.read, file.readline
        self.path = path
        # a byte is copied twice at most, decoded and put into an array; else a small file could fill the memory
        self.budget = 2 * len(data)
        self.blank: dict[int, NDArray] = {}  # arrays whose content is still to come

    def load(self) -> Any:
        self.stack, self.metastack = [], []
        self.append = self.stack.append
        while (code := self.read(1)) != pickle.STOP:
            if not code:
                raise EOFError("it ends early")
            handler = self.dispatch.get(code[0])
            if handler is None:
                if code[0] in _OPCODES:
                    raise self.refusal(f"the opcode {_OPCODES[code[0]]}")
                raise ValueError(f"{code[0]:#04x} is no opcode")
            handler(self)
        value = self.stack.pop()
        if self.blank:
            raise ValueError("an array without content")
        self.check_plain(value)
        return value

    def refusal(self, found: str) -> T2IError:
        remedy = "nothing of it was run, download the file from its authors or have it saved without that"
        return T2IError(f"found {brief(found)} in {self.path}, expected NumPy arrays and plain containers: {remedy}")

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise ValueError("its parts claim more than the file holds")

    def check_plain(self, value: Any) -> None:
        """Whatever happened before, only plain values leave; a bare name does not."""
        seen, todo = set(), [value]
        while todo:
            item = todo.pop()
            kind = type(item)
            if kind in _PLAIN or issubclass(kind, np.generic) or id(item) in seen:
                continue
            seen.add(id(item))
            inner: Collection[Any] = ()
            if kind is dict:
                inner = item.values()
            elif kind in (list, tuple, set, frozenset):
                inner = item
            elif kind is not np.ndarray:
                raise self.refusal(getattr(item, "name", kind.__name__))
            elif item.dtype.hasobject:
                inner = item.ravel().tolist()
            if not _PLAIN.issuperset(map(type, inner)):
                todo.extend(inner)

    def find_class(self, module: str, name: str) -> _Name:
        make = _ADMITTED.get((_MODULES.get(module, module), name))
        if make is None:
            raise self.refusal(f"{module}.{name}")
        return _Name(f"{module}.{name}", make)

    def load_reduce(self) -> None:
        args, name = self.stack.pop(), self.stack[-1]
        if type(name) is not _Name or type(args) is not tuple:
            raise self.refusal(f"a call of {getattr(name, 'name', type(name).__name__)}")
        self.stack[-1] = name.make(self, *args)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _DType:
            target.build(state)
        elif id(target) in self.blank:
            _fill(self, self.blank.pop(id(target)), state)
        else:
            raise self.refusal(f"a state for {getattr(target, 'name', type(target).__name__)}")

    def load_inst(self) -> None:
        module, name = self.readline()[:-1], self.readline()[:-1]
        self.find_class(module.decode("latin1"), name.decode("latin1"))  # names the class, if it is refused
        raise self.refusal("the opcode INST")

    def load_frame(self) -> None:
        self.read(8)  # its length: no value crosses its end, so it can be read through

    def load_bytearray8(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.stack.append(bytearray(self.read(size)))  # the original allocates before it reads

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.stack.append(_pairs(items))

    def load_setitem(self) -> None:
        value, key, target = self.stack.pop(), self.stack.pop(), self.stack[-1]
        dict.update(target, _pairs([key, value]))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        dict.update(self.stack[-1], _pairs(items))

    def load_additems(self) -> None:
        items = self.pop_mark()
        set.update(self.stack[-1], _keys(items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        self.stack.append(frozenset(_keys(items)))

    dispatch |= {
        pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build, pickle.INST[0]: load_inst,
        pickle.FRAME[0]: load_frame, pickle.BYTEARRAY8[0]: load_bytearray8, pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems, pickle.FROZENSET[0]: load_frozenset,
    }  # fmt: skip


def _keys(items: Collection[Any]) -> Collection[Any]:
    """Plain values and tuples of them may be hashed; the hash of nested tuples that share parts can take for ever."""
    kinds = set(map(type, items))
    if tuple in kinds:
        kinds.remove(tuple)
        kinds.update(type(part) for item in items if type(item) is tuple for part in item)
    if not all(kind in _PLAIN or issubclass(kind, np.generic) for kind in kinds):
        raise TypeError("a key is no plain value")
    return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn, as a dict."""
    return dict(zip(_keys(items[::2]), items[1::2], strict=True))


def _raw(content: Any) -> bytes:
    """The bytes of a string of Python 2, which came as latin1, or of Python 3."""
    if type(content) is str:
        return content.encode("latin1")
    if type(content) not in (bytes, bytearray):
        raise TypeError("the content of an array is no string")
    return bytes(content)


def _collection(kind: type) -> Callable[..., Any]:
    def make(reader: _Unpickler, items: Any = ()) -> Any:
        if type(items) not in (list, tuple, set, frozenset):
            raise TypeError(f"a {kind.__name__} of {type(items).__name__}")
        reader.spend(len(items))
        return kind(_keys(items) if kind in (set, frozenset) else items)

    return make


def _mapping(reader: _Unpickler, items: Any = ()) -> dict[Any, Any]:
    if type(items) not in (list, tuple) or not all(type(pair) in (list, tuple) for pair in items):
        raise TypeError("a dict of something else than pairs")
    reader.spend(len(items))
    return _pairs([part for key, value in items for part in (key, value)])


def _encode(reader: _Unpickler, text: Any, encoding: Any) -> bytes:
    """So Python 3 writes bytes in protocols 0 to 2."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise reader.refusal("_codecs.encode to something else than latin1")
    reader.spend(len(text))
    return text.encode("latin1")


def _bytearray(reader: _Unpickler, content: Any = b"", *_: Any) -> bytearray:
    content = _raw(content)  # a number would ask for that many bytes
    reader.spend(len(content))
    return bytearray(content)


def _uncalled(reader: _Unpickler, *_: Any) -> Any:
    raise reader.refusal("a call of numpy.ndarray")  # which is admitted as an argument alone


def _reconstruct(reader: _Unpickler, kind: Any, shape: Any, code: Any) -> NDArray:
    if type(kind) is not _Name or kind.name != "numpy.ndarray" or shape != (0,):
        raise reader.refusal("an array of another kind than numpy.ndarray")
    array: NDArray = np.empty(0, np.int8)
    reader.blank[id(array)] = array
    return array


def _dtype(reader: _Unpickler, code: Any, *_: Any) -> _DType:
    if type(code) is not str or not _DTYPE.fullmatch(code):
        raise reader.refusal(f"numpy.dtype {code if type(code) is str else ''}")
    return _DType(np.dtype("O" if code.startswith("O") else code))


def _claim(reader: _Unpickler, shape: Any, kind: Any) -> int:
    """The length of an array's content, which the file must be able to hold: bytes, or objects."""
    sizes = type(shape) is tuple and len(shape) <= 32 and all(type(side) is int and side >= 0 for side in shape)
    if not sizes or type(kind) is not _DType:
        raise TypeError("an array has no shape or no dtype")
    count = math.prod(shape)
    length: int = count if kind.dtype.hasobject else count * kind.dtype.itemsize
    reader.spend(max(count, length))
    return length


def _fill(reader: _Unpickler, array: NDArray, state: Any) -> None:
    """numpy's ``__setstate__``, with every argument checked."""
    _, shape, kind, fortran, content = state
    length = _claim(reader, shape, kind)
    content = content if kind.dtype.hasobject else _raw(content)
    if type(content) not in (bytes, list) or length != len(content):
        raise ValueError("an array's shape does not fit to its content")
    array.__setstate__((1, shape, kind.dtype, bool(fortran), content))  # type: ignore[arg-type]


def _scalar(reader: _Unpickler, kind: Any, content: Any) -> Any:
    return _frombuffer(reader, content, kind, (1,), "C")[0]


def _frombuffer(reader: _Unpickler, content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> NDArray:
    """Arrays of protocol 5; newer NumPy passes ``axes`` where the order is neither C nor F."""
    content = _raw(content)
    if _claim(reader, shape, kind) != len(content) or kind.dtype.hasobject:
        raise ValueError("an array's shape does not fit to its content")
    array = np.frombuffer(bytearray(content), kind.dtype)
    return array.reshape(shape, order="F" if order == "F" else "C").transpose(axes or range(len(shape)))


#: the names of NumPy 2 and of Python 2
_MODULES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "__builtin__": "builtins",
}

_ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _uncalled,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("builtins", "complex"): lambda reader, real, imaginary: complex(float(real), float(imaginary)),
    ("builtins", "bytes"): lambda reader: b"",  # the empty one, in protocols 0 to 2
    ("builtins", "bytearray"): _bytearray,
    **{("builtins", kind.__name__): _collection(kind) for kind in (list, tuple, set, frozenset)},
    ("builtins", "dict"): _mapping,
    ("collections", "OrderedDict"): _mapping,
    ("collections", "defaultdict"): lambda reader, factory=None: {},  # its items follow
}
