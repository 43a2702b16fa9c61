"""One sentence for each mistake that jsonargparse finds in options and configs."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from t2i_zoo.data import SOURCES
from t2i_zoo.errors import T2IError
from t2i_zoo.models import MODELS
from t2i_zoo.paths import experiments_folder, shipped_generators
from t2i_zoo.signatures import options_of

DATA = "t2i_zoo.data.module.CaptionDataModule"
CHOSEN = ("model", "data.source")  #: options whose value is a class with arguments of its own
NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
    dict: "a mapping",
    list[int]: "a list of integers such as [64, 128]",
    list[str]: 'a list of texts such as ["a red flower"]',
}  #: types in the words of a reader


def own_error(error: BaseException | None) -> T2IError | None:
    """The ``T2IError`` that a library wrapped into its own errors, if there is one."""
    return next((each for each in _causes(error) if isinstance(each, T2IError)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def sentence(parser: Any, message: str, error: BaseException | None) -> str:
    """What is wrong with the options, and what to change; by default jsonargparse's own text in one line.

    Args:
        parser: the one that found the mistake.
        message: jsonargparse's text.
        error: the exception that jsonargparse caught, if any.
    """
    if (own := own_error(error)) is not None:
        return str(own)
    text = " ".join(message.split())
    if isinstance(error, argparse.ArgumentError) and error.argument_name:
        names, said = error.argument_name.split("/"), error.message
        flag = next((name for name in names if name.startswith("--")), names[0])
        if said.startswith("expected"):
            return f"found too little after {flag}, {said.replace('argument', 'value')}"
        return f"found a wrong {flag}: {said}"
    if unknown := _after(text, "unrecognized arguments: "):
        if not unknown.startswith("-"):
            return _stray_word(parser, unknown)
        return _unknown_option(parser, unknown.split()[0].partition("=")[0])
    if isinstance(error, KeyError) and "accept" in text:
        quoted = text.split("'")[1::2]  # of a group and its option, of a subcommand and its option, or of an option
        if text.startswith("Option") and (early := _without_class(quoted[0])):
            return early
        return _unknown_option(parser, ".".join(quoted) if text.startswith("Group") else quoted[-1])
    if missing := _after(text, "arguments are required: "):
        keys = [
            key.partition(".")[2] if key.partition(".")[0] in _subcommands(parser) else key
            for key in missing.split(", ")
        ]
        flags = ", ".join(_flag(parser, key)[0] for key in keys)
        hint = "; a config brings them: --config NAME, and t2i-zoo list names them" if "data.source" in keys else ""
        return f"found no {flags}: give {'them' if len(keys) > 1 else 'it'}{hint}"
    if text.startswith('Parser key "'):
        return _wrong_value(parser, text.split('"')[1], message, error)
    return text if len(text) < 600 else f"{text[:600]} ..."


def class_path_of(option: str, name: str) -> str | None:
    """The import path of a class of ours that ``option`` may name, by its bare name or its path; None for others."""
    return next((path for path in _paths(option) if name in (path, path.rpartition(".")[2])), None)


def class_arguments(option: str, path: str | None = None) -> list[str]:
    """Names of the arguments of the class ``path``, or of all classes of ours that ``option`` may name."""
    paths = [path] if path else _paths(option)
    return list(dict.fromkeys(each.name for one in paths for each in options_of(one)))


def _paths(option: str) -> list[str]:
    if option == "model":
        return [entry.path for entry in MODELS.values()]
    return [f"t2i_zoo.data.{module}.{name}" for name, (module, _) in SOURCES.items()] if option == "data.source" else []


def known_flags(parser: Any) -> dict[str, Any]:
    """The flags of a parser and its subcommands, each with its action."""
    parsers = [parser, *_subcommands(parser).values()]
    return {flag: action for each in parsers for action in each._actions for flag in action.option_strings}


def _subcommands(parser: Any) -> dict[str, Any]:
    chosen = next((action for action in parser._actions if getattr(action, "_name_parser_map", None)), None)
    return dict(chosen._name_parser_map) if chosen else {}


def unknown_option(name: str, flags: Sequence[str]) -> str:
    """The sentence about an option that is none of ``flags``, which have no dashes in front."""
    plain = name.lstrip("-")
    last = plain.rpartition(".")[2]
    same = [flag for flag in flags if flag.rpartition(".")[2] == last]  # --root for --data.source.root
    near = difflib.get_close_matches(plain, same, 1, 0.0) or difflib.get_close_matches(plain, flags, 1, 0.6)
    near = near or [flag for flag in flags if difflib.get_close_matches(plain, [flag.rpartition(".")[2]], 1, 0.75)]
    hint = f"did you mean --{near[0]}?" if near else "--help lists what there is"
    return f"found no option {f'--{plain}' if '.' in name or name != plain else repr(name)}: {hint}"


def _unknown_option(parser: Any, name: str) -> str:
    flags, plain = _plain_flags(parser), name.lstrip("-")
    if plain in ("model", "ckpt", "run", "runs"):  # what is drawn with or looked at, by its name in another command
        runs = any(each.dest in ("run", "runs") for each in parser._actions)
        if runs or "ckpt" in flags:
            return f"found no option --{plain}: {f'write {parser.prog} RUN' if runs else 'did you mean --ckpt?'}"
    return unknown_option(name, flags)


def _plain_flags(parser: Any) -> list[str]:
    """Flags without dashes, those of classes that options choose and those that a command hands on included."""
    flags = [flag.lstrip("-") for flag in known_flags(parser)]
    if getattr(parser, "hands_on", False):
        flags += ["config", *(f"data.{option.name}" for option in options_of(DATA))]
    # the parser of one class does not know the option that chose the class
    bases = [base for base in CHOSEN if {base, "config"} <= {*flags} or not parser.exit_on_error]
    flags = flags if parser.exit_on_error else []
    return flags + [f"{base}.{argument}" for base in bases for argument in ("class_path", *class_arguments(base))]


def _without_class(name: str) -> str | None:
    """The sentence about an option of a class that nothing before it chose; None where that is not clear."""
    bases = [base for base in CHOSEN if name in class_arguments(base)]
    if len(bases) != 1:
        return None
    (base,) = bases
    owners = [path.rpartition(".")[2] for path in _paths(base) if name in class_arguments(base, path)]
    return (
        f"found --{base}.{name} and before it no --{base} that takes it: put --config NAME in front, or "
        f"--{base} with {', '.join(owners)}"
    )


def _stray_word(parser: Any, text: str) -> str:
    """The sentence about words that belong to no option."""
    flags = _plain_flags(parser)
    word = text if Path(text).exists() else text.split()[0]  # a path with blanks
    weights = next((flag for flag in ("model", "ckpt") if flag in flags and f"{flag}.class_path" not in flags), None)
    folder = Path(word).expanduser()
    if "config" in flags and (folder.suffix == ".yaml" or (experiments_folder() / f"{word}.yaml").is_file()):
        hint = f"write --config {word}"
    elif weights and word in shipped_generators():
        hint = f"write --{weights} {word}"
    elif "ckpt" in flags and folder.exists():
        hint = f"write --ckpt {word}"
    elif "data.source.root" in flags and folder.is_dir():
        hint = f"write --data.source.root {word}"
    elif "text" in flags or "captions" in flags:
        hint = "put quotes around a caption of several words"
    else:
        hint = "write each value after its option, and quotes around one with blanks"
    return f"found the word {word!r}, which no option takes: {hint}"


def _wrong_value(parser: Any, key: str, message: str, error: BaseException | None) -> str:
    flag, hint = _flag(parser, key)
    found = f"found {flag} {_value_in(message)}"
    kinds = ", ".join(path.rpartition(".")[2] for path in _paths(flag.lstrip("-")))
    if kinds or any(isinstance(kind, type) and kind.__module__.startswith("lightning") for kind in _leaves(hint)):
        reason = next((f" ({each})" for each in _causes(error) if isinstance(each, ImportError)), "")
        wanted = f"one of {kinds}" if kinds else "the name of one of Lightning's classes"
        return f"{found}{reason}, expected {wanted}, or the import path of a class of your own"
    if hint is None:
        return f"{flag}: {' '.join(message.split())}"
    return f"{found}, expected {_described(hint, _value_in(message))}"


def _value_in(message: str) -> str:
    """The value that jsonargparse speaks of, which its errors hold only as text."""
    if path := _after(message, "Expected a path but "):
        return path.partition(" either not accessible")[0]
    return _after(message, "Given value: ") or _after(message, "Got value: ").partition("\n")[0]


def _after(text: str, start: str) -> str:
    return text.partition(start)[2]


def _flag(parser: Any, key: str) -> tuple[str, Any]:
    """The flag of a key as users write it, and its type; an argument of a chosen class comes without its prefix."""
    for flag, action in known_flags(parser).items():
        if action.dest == key and flag.startswith("--"):
            prefix = "" if parser.exit_on_error else next((b for b in CHOSEN if key in class_arguments(b)), "")
            return f"--{prefix}.{key}" if prefix else flag, getattr(action, "_typehint", None)
    return f"--{key}", None


def _leaves(hint: Any) -> list[Any]:
    """All types that a type is made of."""
    inner = [] if get_origin(hint) is Literal else get_args(hint)
    return [leaf for part in inner for leaf in _leaves(part)] if inner else [hint]


def _described(hint: Any, given: str) -> str:
    """A type in words, with the nearest of the allowed values."""
    hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
    listed = [kind for kind in hints if get_origin(kind) is list and get_origin(get_args(kind)[0]) is Literal]
    literal = [*(kind for kind in hints if get_origin(kind) is Literal), *(get_args(kind)[0] for kind in listed)]
    values = list(dict.fromkeys(str(value) for kind in literal for value in get_args(kind)))
    kinds = [", ".join(values) if len(values) == 1 else f"one of {', '.join(values)}"] if values else []
    if listed:
        kinds, given = [f"a list of {' and '.join([', '.join(values[:-1]), values[-1]])}"], given.strip("[]'\"")
    for kind in hints:
        if get_origin(kind) is not Literal and kind not in listed:
            plain = get_origin(kind) if kind not in NAMES else kind
            kinds.append(NAMES.get(plain or kind) or str(getattr(kind, "__name__", kind)).replace("typing.", ""))
    near = difflib.get_close_matches(given, values, 1, 0.5)
    return " or ".join(kinds) + (f": did you mean {near[0]}?" if near else "")
