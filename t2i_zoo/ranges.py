"""Ranges of numbers, declared as annotations of arguments and checked in one place.

``width: Count = 64`` is an ``int`` for every reader of types, and ``check_ranges`` refuses a 0.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from t2i_zoo.errors import T2IError


class Range(NamedTuple):
    """A range of finite numbers.

    Attributes:
        words: the range as the end of "expected ...".
        least: smallest number.
        above: a bound that is not in the range itself.
        below: likewise.
        most: largest number.
    """

    words: str
    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    most: float = math.inf

    def holds(self, value: Any) -> bool:
        """Whether a value is a finite number in the range."""
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return number and self.least <= value <= self.most and self.above < value < self.below


Count = Annotated[int, Range("at least 1", least=1)]
Several = Annotated[int, Range("at least 2", least=2)]
Whole = Annotated[int, Range("0 or more", least=0)]
Weight = Annotated[float, Range("0 or more", least=0)]
Positive = Annotated[float, Range("more than 0", above=0)]
Fraction = Annotated[float, Range("0 or more, and less than 1", least=0, below=1)]
Share = Annotated[float, Range("more than 0, and 1 or less", above=0, most=1)]
Power = Annotated[float, Range("at least 1", least=1)]
Sign = Annotated[float, Range("a number from -1 to 1", least=-1, most=1)]


@functools.cache
def ranges_of(cls: type) -> dict[str, tuple[Range, bool]]:
    """The range of each argument of a class and its bases that has one, and whether None is allowed too."""
    found: dict[str, tuple[Range, bool]] = {}
    for each in reversed(cls.__mro__):
        hints = get_type_hints(vars(each)["__init__"], include_extras=True) if _own(each) else {}
        for name, hint in hints.items():
            kinds = [hint] if get_origin(hint) is Annotated else list(get_args(hint))
            ranges = [extra for kind in kinds if get_origin(kind) is Annotated for extra in kind.__metadata__]
            found.pop(name, None)  # a subclass may have another range, or none
            if ranges and isinstance(ranges[0], Range):
                found[name] = ranges[0], NoneType in kinds
    return found


def check_ranges(cls: type, options: Mapping[str, Any], prefix: str) -> None:
    """Raise for a value out of the range that its annotation gives.

    Args:
        cls: whose ``__init__`` and those of whose bases have the annotations.
        options: of it by name, as given; others are passed over.
        prefix: of its flags, such as ``model``.

    Raises:
        T2IError: for the first one, with its range.
    """
    for name, (allowed, optional) in ranges_of(cls).items():
        if name not in options or (optional and options[name] is None) or allowed.holds(options[name]):
            continue
        raise T2IError(f"found --{prefix}.{name} {options[name]}, expected {allowed.words}")


def check_names(cls: type, options: Mapping[str, Any]) -> None:
    """Raise for an argument that no ``__init__`` of a class and its bases has; only for classes of ours.

    Raises:
        T2IError: for the first one, with the nearest name.
    """
    if not cls.__module__.startswith("t2i_zoo."):
        return
    names = [n for each in cls.__mro__ if _own(each) for n in inspect.signature(vars(each)["__init__"]).parameters]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"help({cls.__name__}) lists what there is"
            raise T2IError(f"found no option {name!r} of {cls.__name__}: {hint}")


def _own(cls: type) -> bool:
    return "__init__" in vars(cls) and not cls.__module__.startswith(("lightning.", "torch.", "builtins"))
