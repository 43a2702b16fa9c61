"""How the published data sets are split: at random, or by two lists of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

from t2i_zoo.data.records import Split
from t2i_zoo.errors import T2IError

_TEST_SHARE = 0.1


def check_choice(option: str, value: object, allowed: Any) -> None:
    """Raise where an option of a source is none of those of its ``Literal``."""
    if value not in get_args(allowed):
        raise T2IError(
            f"unknown {option} {value!r}: set --data.source.{option} to one of {', '.join(get_args(allowed))}"
        )


def random_splits(count: int, seed: int) -> list[Split]:
    """A tenth of ``count`` images for test and the others for training."""
    import numpy as np

    held_out = np.random.default_rng(seed).permutation(count) < round(_TEST_SHARE * count)
    return ["test" if out else "train" for out in held_out.tolist()]


class SplitLists:
    """A list of what is for training and one of what is for test.

    Args:
        train, test: the files.
        read: gives the names in a file.

    Raises:
        T2IError: where a name is in both.
    """

    def __init__(self, train: Path, test: Path, read: Callable[[Path], Iterable[str]]) -> None:
        self.files = train, test
        self._splits: dict[str, Split] = dict.fromkeys(read(train), "train")
        for name in read(test):
            if self._splits.setdefault(name, "test") != "test":
                raise T2IError(f"{test}: {name} is also in {train.name}, expected in one list: correct one of the two")

    def split_of(self, name: str, what: str) -> Split:
        """The split of a name; ``what`` is what an error calls it."""
        if name not in self._splits:
            raise T2IError(
                f"{what} is neither in {self.files[0]} nor in {self.files[1]}: add it to one, or choose another "
                "--data.source.split"
            )
        return self._splits[name]
