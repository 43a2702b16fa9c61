"""Pickles of unknown origin, those of Python 2 included, read without running anything that they name.

``pickle.Unpickler`` with an allow-list in ``find_class`` is not enough: 8 bytes make it allocate gigabytes (LONG_BINPUT
with a large index), and tuples nested a million deep, as the key of a dict, crash the process. Both are tested.
"""

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

#: opcodes that touch plain values only; whatever calls, sets a state or hashes is replaced below
_HARMLESS = """
    PROTO MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT EMPTY_SET
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL FRAME STOP
"""
_PLAIN = {type(None), bool, int, float, complex, str, bytes, bytearray}
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|O[48]?|[SU][1-9]\d{0,8}")
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # the first of several pickles in a file of torch.save before PyTorch 1.6


def load_pickle(path: str | Path) -> Any:
    """Read a pickle of protocol 0 to 5 that holds NumPy arrays and plain containers, and nothing else.

    Nothing that the file names is imported or called: the few names that NumPy and Python write for such values are
    answered by functions of this module. ``OrderedDict`` and ``defaultdict`` come back as ``dict``, and the byte
    strings of Python 2 as latin1, so that ``text.encode("latin1")`` gives their bytes. Line ends that a transfer in
    text mode has turned into CRLF are repaired.

    Raises:
        T2IError: the file is damaged, or holds anything else; the first such thing is named.
    """
    data = read_content(path, "a pickle")
    if data.startswith(b"PK\x03\x04"):
        raise _other_format(path, "a zip archive")
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
            value = _Unpickler(attempt).load()
        except MemoryError:  # says nothing about the file
            raise
        except _RefusedError as error:
            remedy = "nothing of it was run, download the file from its authors or have it saved without that"
            found = f"found {brief(error)} in {path}, expected NumPy arrays and plain containers"
            failure, cause = T2IError(f"{found}: {remedy}"), None
        except Exception as error:  # a broken pickle can raise any kind
            reason = f"{type(error).__name__}: {str(error) or 'it ends early'}"
            failure, cause = broken(path, "a pickle", "changed by a transfer in text mode" if hurt else reason), error
        else:
            if type(value) is int and value == _TORCH_MAGIC:
                raise _other_format(path, "a file of torch.save")
            return value
    raise failure from cause


def _other_format(path: str | Path, found: str) -> T2IError:
    remedy = "read it with torch.load(path, weights_only=True), or with numpy.load if it is an .npz"
    return T2IError(f"found {found} in {path}, expected a pickle of NumPy arrays: {remedy}")


class _RefusedError(Exception):
    """Something that a pickle of plain data never holds; its text completes "found ..."."""


class _Name:
    """What GLOBAL pushes onto the stack; REDUCE calls ``make``, which is None for names that are only arguments."""

    def __init__(self, module: str, name: str) -> None:
        self.name = f"{module}.{name}"
        if (_MODULES.get(module, module), name) not in _ADMITTED:
            raise _RefusedError(self.name)
        self.make = _ADMITTED[_MODULES.get(module, module), name]


class _DType:
    """Takes the place of a dtype on the stack, since NumPy's accepts any state."""

    name = "numpy.dtype"

    def __init__(self, code: Any, *_: Any) -> None:
        if type(code) is not str or not _DTYPE.fullmatch(code):
            raise _RefusedError(f"numpy.dtype {code if type(code) is str else ''}")
        self.dtype = np.dtype("O" if code.startswith("O") else code)

    def build(self, state: Any) -> None:
        version, order, subarray, names, fields, *_ = state
        if version not in (3, 4) or (subarray, names, fields) != (None, None, None):
            raise ValueError("a dtype is not plain")
        self.dtype = self.dtype.newbyteorder(order)


class _Opcodes(dict[int, Any]):
    def __missing__(self, code: int) -> Any:
        if code in _OPCODES:
            raise _RefusedError(f"the opcode {_OPCODES[code]}")
        raise ValueError(f"{code:#04x} is no opcode")


class _Unpickler(pickle._Unpickler):
    """The standard library's interpreter, which is written in Python, with a closed table of opcodes."""

    dispatch: ClassVar[dict[int, Any]] = _Opcodes(
        {code: pickle._Unpickler.dispatch[code] for (code,) in (getattr(pickle, name) for name in _HARMLESS.split())}
    )
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        # a byte is copied twice at most, decoded and put into an array; else a small file could fill the memory
        self.budget = 2 * len(data)
        self.blank: dict[int, NDArray] = {}  # arrays whose content is still to come

    def load(self) -> Any:
        value = super().load()
        if self.blank:
            raise ValueError("an array without content")
        _check_plain(value)
        return value

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise ValueError("its parts claim more than the file holds")

    def find_class(self, module: str, name: str) -> _Name:
        return _Name(module, name)

    def load_reduce(self) -> None:
        arguments, name = self.stack.pop(), self.stack[-1]
        if type(name) is not _Name or type(arguments) is not tuple or name.make is None:
            raise _RefusedError(f"a call of {getattr(name, 'name', type(name).__name__)}")
        self.spend(sum(len(part) for part in arguments if hasattr(part, "__len__")))
        self.stack[-1] = value = name.make(*arguments)
        if name.make is _reconstruct:
            self.blank[id(value)] = value

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _DType:
            target.build(state)
        elif id(target) in self.blank:
            self.spend(len(state[-1]))
            _fill(self.blank.pop(id(target)), *state)
        else:
            raise _RefusedError(f"a state for {getattr(target, 'name', type(target).__name__)}")

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
        pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build, pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.DICT[0]: load_dict, pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems, pickle.FROZENSET[0]: load_frozenset,
    }  # fmt: skip


def _check_plain(value: Any) -> None:
    """Refuse anything but plain values, such as a name that was never called."""
    seen, todo = set(), [value]
    while todo:
        item = todo.pop()
        kind = type(item)
        if kind in _PLAIN or issubclass(kind, np.generic) or id(item) in seen:
            continue
        seen.add(id(item))
        if kind is dict:
            inner: Collection[Any] = item.values()
        elif kind in (list, tuple, set, frozenset):
            inner = item
        elif kind is np.ndarray:
            inner = item.ravel().tolist() if item.dtype.hasobject else ()
        else:
            raise _RefusedError(getattr(item, "name", kind.__name__))
        if not _PLAIN.issuperset(map(type, inner)):
            todo.extend(inner)


def _keys(items: Collection[Any]) -> Collection[Any]:
    """Allow plain values and tuples of them as keys: hashing nested tuples that share parts can take forever."""
    kinds = set(map(type, items))
    if tuple in kinds:
        kinds.remove(tuple)
        kinds.update(type(part) for item in items if type(item) is tuple for part in item)
    if not all(kind in _PLAIN or issubclass(kind, np.generic) for kind in kinds):
        raise TypeError("a key is no plain value")
    return items


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """A dict from alternating keys and values."""
    return dict(zip(_keys(items[::2]), items[1::2], strict=True))


def _raw(content: Any) -> bytes:
    """The content of a byte string, which is text in latin1 if Python 2 wrote it."""
    if type(content) is str:
        return content.encode("latin1")
    if type(content) not in (bytes, bytearray):
        raise TypeError("the content of an array is no string")
    return bytes(content)


def _check_size(shape: Any, kind: Any, content: bytes | list[Any]) -> None:
    """Raise unless the content, bytes or objects, has exactly the size that the shape and dtype claim."""
    sizes = type(shape) is tuple and len(shape) <= 32 and all(type(side) is int and side >= 0 for side in shape)
    if not sizes or type(kind) is not _DType:
        raise TypeError("an array has no shape or no dtype")
    if math.prod(shape) * (1 if kind.dtype.hasobject else kind.dtype.itemsize) != len(content):
        raise ValueError("an array's shape does not fit its content")


def _reconstruct(kind: Any, shape: Any, code: Any) -> NDArray:
    """An array whose content follows as its state."""
    if type(kind) is not _Name or kind.name != "numpy.ndarray" or shape != (0,):
        raise _RefusedError("an array of another kind than numpy.ndarray")
    return np.empty(0, np.int8)


def _fill(array: NDArray, version: Any, shape: Any, kind: Any, fortran: Any, content: Any) -> None:
    """NumPy's ``__setstate__`` with every argument checked."""
    if type(content) is not list:
        content = _raw(content)
    _check_size(shape, kind, content)
    array.__setstate__((1, shape, kind.dtype, bool(fortran), content))  # type: ignore[arg-type]


def _frombuffer(content: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> NDArray:
    """Arrays of protocol 5; newer NumPy passes ``axes`` where the order is neither C nor F."""
    content = _raw(content)
    _check_size(shape, kind, content)
    if kind.dtype.hasobject:
        raise ValueError("objects out of bytes")
    array = np.frombuffer(bytearray(content), kind.dtype)
    return array.reshape(shape, order="F" if order == "F" else "C").transpose(axes or range(len(shape)))


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes in protocols 0 to 2."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise _RefusedError("_codecs.encode to something else than latin1")
    return text.encode("latin1")


#: the names of NumPy 2 and of Python 2
_MODULES = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "__builtin__": "builtins",
}

#: what the names give that a pickle may call; None for those that are only arguments of others
_ADMITTED: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): lambda kind, content: _frombuffer(content, kind, (1,), "C")[0],
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    **{("builtins", name): None for name in ("list", "tuple", "dict")},  # the factory of a defaultdict
    ("builtins", "complex"): lambda real, imaginary: complex(float(real), float(imaginary)),
    ("builtins", "bytes"): lambda: b"",  # the empty one, in protocols 0 to 2
    ("builtins", "bytearray"): lambda content=b"", *_: bytearray(_raw(content)),  # a number would ask for that many
    ("builtins", "set"): lambda items=(): set(_keys(items)),
    ("builtins", "frozenset"): lambda items=(): frozenset(_keys(items)),
    ("collections", "OrderedDict"): lambda items=(): _pairs([part for key, value in items for part in (key, value)]),
    ("collections", "defaultdict"): lambda factory=None: {},  # its items follow
}
