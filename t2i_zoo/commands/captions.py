"""Captions as people type them: read from files, checked one by one, and what is to be said of their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.drawing import CaptionReader
from t2i_zoo.text import words_of
from t2i_zoo.text.vocabulary import END_WORD


def read_captions(text_file: str) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        T2IError: if it cannot be read or is not UTF-8.
    """
    path = Path(text_file).expanduser()
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise T2IError(f"found no file {path}: correct --text-file") from None
    except IsADirectoryError:
        raise T2IError(f"{path} is a folder: give a text file to --text-file") from None
    except UnicodeDecodeError:
        raise T2IError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    return [line.strip() for line in lines if line.strip()]


def check_caption(caption: str) -> None:
    """Raise for a caption that is blank, or that no encoder could read."""
    if not caption.strip():
        raise T2IError(f"found a blank caption {caption!r}: write what the image should show")
    readable = caption.encode("utf-8", "replace").decode("utf-8")  # bytes that are no text arrive as surrogates
    if readable != caption:
        raise T2IError(f"found a caption that is not UTF-8 text, {readable!r}: save or type it as UTF-8")


def usable(
    captions: Sequence[str], checks: Sequence[Callable[[str], Any]], skip: bool = True
) -> tuple[list[str], list[str]]:
    """The captions that pass some checks, and a note on each other one.

    Args:
        captions: in the order of the command.
        checks: each raises a ``T2IError`` for a caption that cannot be drawn.
        skip: whether a caption may be left out.

    Raises:
        T2IError: the first reason, if no caption passes, or if none may be left out.
    """
    kept, reasons = list[str](), dict[int, T2IError]()
    for number, caption in enumerate(captions, 1):
        try:
            for check in checks:
                check(caption)
            kept.append(caption)
        except T2IError as error:
            reasons[number] = error
    if reasons and not (kept and skip):
        raise next(iter(reasons.values()))
    return kept, [f"caption {n} of {len(captions)} is left out: {reason}" for n, reason in reasons.items()]


def note_on_quotes(captions: Sequence[str]) -> list[str]:
    """A note where the captions of an option look like the words of one, which the shell divides without quotes."""
    if len(captions) < 2 or any(len(words_of(caption)) != 1 for caption in captions):
        return []
    return [f"{len(captions)} captions of one word each: put quotes around a caption of several words"]


def notes_on_words(model: CaptionReader, captions: Sequence[str]) -> list[str]:
    """Which words the text encoder does not know, which ones no training caption holds, and what has no word."""
    encoder, notes = model.text_encoder, list[str]()
    assert encoder is not None
    for caption in dict.fromkeys(captions):
        read, unknown, unseen = encoder.tokens(caption), encoder.unknown_words(caption), model.unseen_words(caption)
        if read == [END_WORD]:
            notes.append(f"the text encoder knows no word of {caption!r} and reads it as {END_WORD}")
        elif unknown:
            notes.append(f"the text encoder does not know {', '.join(map(repr, unknown))} ({caption!r})")
        if unseen:
            notes.append(f"no training caption holds {', '.join(map(repr, unseen))} ({caption!r})")
        if read and read != [END_WORD] and not words_of(caption):
            notes.append(f"{caption!r} has no word and is read as {' '.join(read)!r}")
    return notes
