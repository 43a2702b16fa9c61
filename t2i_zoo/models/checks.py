"""Checks of options that several models have."""

from __future__ import annotations

from t2i_zoo.errors import T2IError


def check_image_size(size: int, least: int, where: str = "", such_as: int = 64) -> None:
    """Raise a ``T2IError`` for a side that is no power of two of at least ``least``; ``where`` says which model."""
    if size < least or size & (size - 1):
        raise T2IError(
            f"found --model.image_size {size}{where}, expected a power of two of at least {least}, such as {such_as}"
        )


def check_mismatch(mismatch: str, exclude_same_class: bool) -> None:
    """Raise a ``T2IError`` where pairs of one class are to be left out although there are none."""
    if exclude_same_class and mismatch == "class":
        raise T2IError(
            "found --model.exclude_same_class with --model.mismatch class, which has no such pairs: leave it out"
        )
