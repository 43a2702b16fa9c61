"""Torch7's .t7 files, binary and ASCII, read as plain values; no Lua code and no class of the file is run."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i_zoo.errors import T2IError
from t2i_zoo.legacy.reading import brief, broken, read_content

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN = range(6)
_FUNCTIONS = (6, 7, 8)  # plain, recursive in the older format, recursive
_CLASS = re.compile(r"torch\.(Double|Float|Long|Int|Short|Char|Byte)(Tensor|Storage)")
_CODES = {"Double": "<f8", "Float": "<f4", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1", "Byte": "u1"}
_DTYPES: dict[str, np.dtype] = {name: np.dtype(code) for name, code in _CODES.items()}
_TOKEN = re.compile(rb"\s*(\S+)")
_DEEPEST = 100


def load_t7(path: str | Path) -> Any:
    """Read what ``torch.save`` of Torch7 has written: tables, strings, numbers, booleans, tensors and storages.

    A table with the keys 1 to n becomes a list, any other table a dict with keys of str and int. Numbers are float.
    A tensor becomes an array of its type and shape, of shape (0,) if it is empty; tensors that share their storage
    share memory. Strings are decoded as UTF-8 if they are valid UTF-8, else as latin1.

    Source: ``File.lua``, ``generic/Tensor.c`` and ``lib/TH/THDiskFile.c`` of torch/torch7; little-endian, with a
    ``long`` of 8 bytes.

    Raises:
        T2IError: the file is damaged, or holds functions or classes other than tensors and storages.
    """
    data = read_content(path, "a .t7 file of Torch7")
    try:
        return _Reader(_Binary(data) if data[0] <= max(_FUNCTIONS) else _Ascii(data), path).read()
    except (T2IError, MemoryError):
        raise
    except Exception as error:  # of struct, of re or of numpy
        raise broken(path, "a .t7 file of Torch7", f"{type(error).__name__}: {error}") from error


class _Binary:
    """The default format."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError(f"{size} bytes claimed, {len(self.data) - self.at} left")
        self.at += size
        return self.data[self.at - size : self.at]

    def integer(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])

    def double(self) -> float:
        return float(struct.unpack("<d", self.take(8))[0])

    def array(self, dtype: np.dtype, size: int) -> NDArray:
        return np.frombuffer(self.take(size * dtype.itemsize), dtype).astype(dtype.newbyteorder("="))


class _Ascii(_Binary):
    """Numbers as text. Each write ends with a line feed, except for an empty one."""

    def take(self, size: int) -> bytes:
        content = super().take(size)
        self._end(size)
        return content

    def integer(self) -> int:
        return int(self._tokens(1)[0])

    def double(self) -> float:
        return float(self._tokens(1)[0])

    def array(self, dtype: np.dtype, size: int) -> NDArray:
        if dtype.itemsize == 1:  # bytes and chars are stored as they are
            return np.frombuffer(self.take(size), dtype).copy()
        parse = float if dtype.kind == "f" else int
        return np.array([parse(token) for token in self._tokens(size)], dtype.newbyteorder("="))

    def _tokens(self, count: int) -> list[bytes]:
        tokens = []
        for _ in range(count):
            match = _TOKEN.match(self.data, self.at)
            if match is None:
                raise ValueError("it ends early")
            tokens.append(match[1])
            self.at = match.end()
        self._end(count)
        return tokens

    def _end(self, count: int) -> None:
        if count and self.data[self.at : self.at + 1] == b"\n":
            self.at += 1


class _Reader:
    """Reads one object after another; tables and torch objects are numbered, so that later ones can refer to them."""

    def __init__(self, source: _Binary, path: str | Path) -> None:
        self.source, self.path = source, path
        self.known: dict[int, Any] = {}

    def read(self, depth: int = 0) -> Any:
        kind = self.source.integer()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            return self.source.double()
        if kind == _STRING:
            return self._string()
        if kind == _BOOLEAN:
            return self.source.integer() == 1
        if kind in _FUNCTIONS:
            raise self._refusal("a Lua function")
        if kind not in (_TABLE, _TORCH):
            raise ValueError(f"there is no type {kind}")
        if depth == _DEEPEST:
            raise self._refusal(f"tables more than {_DEEPEST} deep")
        index = self.source.integer()
        if index not in self.known:
            self.known[index] = _UNFINISHED
            self.known[index] = self._table(depth + 1) if kind == _TABLE else self._torch(depth + 1)
        if self.known[index] is _UNFINISHED:
            raise self._refusal("a table that holds itself")
        return self.known[index]

    def _refusal(self, found: str) -> T2IError:
        remedy = "save the tensors alone, with torch.save in Lua"
        return T2IError(f"found {brief(found)} in {self.path}, expected tables, strings, numbers and tensors: {remedy}")

    def _string(self) -> str:
        content = self.source.take(self.source.integer())
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin1")

    def _table(self, depth: int) -> Any:
        table: dict[Any, Any] = {}
        size = self.source.integer()
        if size < 0:
            raise ValueError(f"a table of {size} entries")
        for _ in range(size):
            key, value = self.read(depth), self.read(depth)
            if type(key) is float and key.is_integer():
                key = int(key)
            if type(key) not in (str, int):
                raise self._refusal(f"a key of type {type(key).__name__}")
            if value is not None:  # a key without a value does not exist in Lua
                table[key] = value
        numbers = range(1, len(table) + 1)
        return [table[i] for i in numbers] if table.keys() == set(numbers) else table

    def _torch(self, depth: int) -> NDArray:
        name = self._string()
        if name.startswith("V "):  # the version, which older files lack
            name = self._string()
        match = _CLASS.fullmatch(name)
        if match is None:
            raise self._refusal(f"an object of class {name}")
        dtype = _DTYPES[match[1]]
        if match[2] == "Storage":
            return self.source.array(dtype, self._longs(1)[0])
        return self._tensor(dtype.newbyteorder("="), depth)

    def _longs(self, count: int) -> list[int]:
        values: list[int] = self.source.array(_DTYPES["Long"], count).tolist()
        if count and min(values) < 0:
            raise ValueError("a negative size")
        return values

    def _tensor(self, dtype: np.dtype, depth: int) -> NDArray:
        dimensions = self.source.integer()
        if not 0 <= dimensions <= 32:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        sizes, strides = self._longs(dimensions), self._longs(dimensions)
        offset = self._longs(1)[0] - 1  # Lua counts from 1
        storage = self.read(depth)
        count = math.prod(sizes) if sizes else 0
        if count == 0:
            return np.empty(sizes or 0, dtype)
        if not isinstance(storage, np.ndarray) or storage.dtype != dtype or storage.ndim != 1:
            raise ValueError("a tensor without a storage of its type")
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if offset < 0 or last >= len(storage) or count > len(storage):
            raise ValueError(f"a tensor of {count} elements exceeds its storage of {len(storage)}")
        bytes_apart = [stride * dtype.itemsize for stride in strides]
        return np.ndarray(sizes, dtype, storage, offset * dtype.itemsize, bytes_apart)  # checks the bounds as well


_UNFINISHED = object()
