"""The config language of every command: packaged configs by bare name, and mistakes as one sentence."""

from __future__ import annotations

import argparse
import difflib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import docstring_parser
import jsonargparse
import yaml  # type: ignore[import-untyped]

from t2i_zoo.errors import T2IError
from t2i_zoo.mistakes import known_flags, sentence
from t2i_zoo.models import MODELS
from t2i_zoo.paths import experiments_folder


def packaged_configs() -> dict[str, Path]:
    """Configs that come with the package, by name."""
    return {path.stem: path for path in sorted(experiments_folder().glob("*.yaml"))}


def find_config(name: str) -> str:
    """Path of a config given as a path or as the bare name of a packaged one.

    Raises:
        T2IError: where there is neither, with the nearest names, or where the file is no YAML, with the line.
    """
    if name.lstrip().startswith("{"):
        return name
    if Path(name).is_file():
        _check_yaml(Path(name))
        return name
    packaged = packaged_configs()
    stem = Path(name).name.removesuffix(".yaml")
    if stem in packaged:
        return str(packaged[stem])
    near = difflib.get_close_matches(stem, packaged, 3, 0.5) or list(packaged)
    raise T2IError(
        f"found no config {name!r}: give the path of a YAML file or a packaged name such as {', '.join(near)}"
    )


def _check_yaml(path: Path) -> None:
    """Raise where a config cannot be read, with the line; jsonargparse names neither file nor line."""
    try:
        root = yaml.compose(path.read_text("utf-8-sig"))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise T2IError(f"{path}{line}: {error.problem or error.context}: correct the YAML there") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise T2IError(f"{path} is no text in UTF-8: give a YAML file or the name of a packaged config") from None
    if not isinstance(root, yaml.MappingNode):
        raise T2IError(f"{path} holds no options: write lines such as trainer: {{max_epochs: 10}} or give another file")


def expand_configs(words: Sequence[str]) -> list[str]:
    """Replace what follows each ``--config`` by the path that it means."""
    result = list(words)
    for i, word in enumerate(result):
        if word in ("--config", "-c") and i + 1 < len(result):
            result[i + 1] = find_config(result[i + 1])
        elif word.startswith("--config="):
            result[i] = f"--config={find_config(word.removeprefix('--config='))}"
    return result


def named_model(class_path: str) -> Any:
    """The model class that a config names, by its import path or by the bare name of one of the zoo.

    Raises:
        T2IError: where there is none.
    """
    zoo = {entry.path.rpartition(".")[2]: entry.path for entry in MODELS.values()}
    try:
        found = pkgutil.resolve_name(zoo.get(class_path, class_path))
    except (ImportError, AttributeError, ValueError) as error:
        raise T2IError(f"found no model class {class_path!r}: correct class_path in the config") from error
    if not isinstance(found, type):
        raise T2IError(f"found {class_path!r}, which is no model class: correct class_path in the config")
    return found


class Sentence:
    """A mixin for jsonargparse's parsers: a mistake is a ``T2IError``, and ``--batch-size`` is ``--batch_size``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_args(
        self, args: Any = None, namespace: Any = None, env: bool | None = None, defaults: bool = True, **options: Any
    ) -> Any:
        """Parse with configs by their names, and with dashes or underscores in flags."""
        words = [self.spelled(word) for word in (sys.argv[1:] if args is None else args)]
        words = expand_configs(words) if "--config" in known_flags(self) else words
        return super().parse_args(words, namespace, env, defaults, **options)  # type: ignore[misc]

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the first thing that is wrong, as one sentence."""
        raise T2IError(sentence(self, str(message), ex)) from ex

    def spelled(self, word: str) -> str:
        """A flag with the dashes or underscores that it is declared with; any other word as it is."""
        flag, equals, value = word.partition("=")
        if not flag.startswith("--") or flag in (flags := known_flags(self)):
            return word
        name = flag[2:]
        spellings = [f"--{name.replace('-', '_')}", f"--{name.replace('_', '-')}"]
        # an argument of a class that an option chose is no flag of the parser, and has no dash
        known = [each for each in spellings if each in flags] or (spellings[:1] if "." in name else [flag])
        return f"{known[0]}{equals}{value}"


class Paragraphs(jsonargparse.DefaultHelpFormatter):
    """Help whose description keeps its lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


class Parser(Sentence, jsonargparse.ArgumentParser):
    """The parser of the commands that are no part of Lightning's.

    Attributes:
        hands_on: whether the command takes options of ``fit`` too, which another parser reads.
    """

    hands_on = False


def add_options(parser: Parser, function: Callable[..., Any], skip: Sequence[str] = ()) -> None:
    """Declare an option for each parameter of a typed function, with the help from its docstring.

    Options are spelled with dashes, and a parameter such as ``from_`` becomes ``--from``. A ``bool`` is a flag
    (``--live``, ``--no-live``). A list or sequence takes one or several values, after one flag or after several, a
    tuple as many as it has items, and ``*names`` are the words without a flag. A default of None is left out of the
    help.

    Args:
        parser: to which they are added.
        function: whose parameters have types that can be resolved at run time.
        skip: parameters that are no options.
    """
    hints = get_type_hints(function)
    helps = {each.arg_name: each.description for each in docstring_parser.parse(function.__doc__ or "").params}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in skip:
            continue
        kinds = [kind for kind in get_args(hints[name]) if kind is not NoneType]
        kind = kinds[0] if get_origin(hints[name]) in (Union, UnionType) and len(kinds) == 1 else hints[name]
        options: dict[str, Any] = {"type": kind}
        if get_origin(kind) in (list, tuple, Sequence):
            items = get_args(kind)
            options = {"type": items[0], "nargs": len(items) if get_origin(kind) is tuple else "+"}
        elif kind is bool:
            options = {"action": jsonargparse.ActionYesNo(no_prefix="no-")}
        options["help"] = " ".join((helps.get(name) or "").replace("``", "").split())
        if parameter.kind is parameter.VAR_POSITIONAL:
            parser.add_argument(name, nargs="*", **options)
            continue
        if parameter.default is parameter.empty:
            options["required"] = True
        else:
            options["default"] = argparse.SUPPRESS if parameter.default in (None, ()) else parameter.default
            if options.get("nargs") == "+" and parameter.default in (None, ()):
                options["action"] = "extend"  # --text a --text b, too
        parser.add_argument(f"--{name.rstrip('_').replace('_', '-')}", **options)


#: options of ``fit`` without a dot that a command may hand on
_HANDED = (
    *("-c", "--config", "--model", "--data", "--trainer", "--seed_everything", "--ckpt_path", "--print_config"),
    "--logger",
)


def hands_on(function: Callable[..., Any]) -> bool:
    """Whether a function takes the options of ``fit`` as they are, in its argument ``words``."""
    return get_type_hints(function).get("words") == Sequence[str]


def command_parser(function: Callable[..., Any]) -> Parser:
    """The parser of a command that is a typed function: its docstring is the help, its module gives it its name."""
    about = docstring_parser.parse(function.__doc__ or "").description
    parser = Parser(
        prog=f"t2i-zoo {function.__module__.rpartition('.')[2]}",
        description=about,
        formatter_class=Paragraphs,
    )
    parser.hands_on = hands_on(function)
    add_options(parser, function, ("words",) if parser.hands_on else ())
    return parser


def arguments(function: Callable[..., Any], words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The positional and the named arguments of a function that the words of a command give.

    Args:
        function: see ``add_options``. If it has an argument ``words: Sequence[str]``, all options with a dot in their
            names and those of ``_HANDED`` go there, with what follows them.
        words: of the command line, without the command.

    Raises:
        T2IError: for an option that is unknown, missing or of the wrong type.
    """
    parser, own, named = command_parser(function), list(words), {}
    if hands_on(function):
        own, named["words"] = _divided(words, parser)
    values = parser.parse_args(_switched(own, parser)).as_dict()
    given: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            given = values[name]
        elif name.rstrip("_") in values:
            named[name] = values[name.rstrip("_")]
    return given, named


def _divided(words: Sequence[str], parser: Parser) -> tuple[list[str], list[str]]:
    """The words of the command's own options and those that are handed on; a flag takes along what follows it."""
    own: list[str] = []
    handed: list[str] = []
    flags, current = known_flags(parser), own
    for word in words:
        flag = parser.spelled(word).partition("=")[0]
        if flag in flags:
            current = own
        elif flag.startswith("--") or flag == "-c":
            spelled = f"--{flag[2:].replace('-', '_')}" if flag.startswith("--") else flag
            current = handed if spelled in _HANDED or "." in flag else own
        current.append(word)
    return own, handed


def _switched(words: Sequence[str], parser: Parser) -> list[str]:
    """``--live true`` and ``--live=true`` as ``--live``, and with ``false`` as ``--no-live``."""
    switches = {flag for flag, action in known_flags(parser).items() if isinstance(action, jsonargparse.ActionYesNo)}
    result: list[str] = []
    for word in map(parser.spelled, words):
        flag, equals, value = word.partition("=")
        if not equals and result:
            flag, value = result[-1], word
        if flag in switches and value.lower() in ("true", "false"):
            word = flag if value.lower() == "true" else f"--no-{flag[2:]}"
            result = result if equals else result[:-1]
        result.append(word)
    return result
