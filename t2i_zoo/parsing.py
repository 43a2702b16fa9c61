"""The config language of every command: packaged configs by bare name, and mistakes as one sentence."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml  # type: ignore[import-untyped]

from t2i_zoo.errors import T2IError
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


CHOSEN = ("model", "data.source")  #: options whose value is a class with arguments of its own
NO_CLASS = (  #: how jsonargparse says that a value names no class of the right kind
    r"dot import path string: (\S+)|Import path (\S*?) ?does not correspond|given class_path '(\S+?)'"
    "|Not a valid subclass"
)
NOT_OURS = r"Expected|Does not validate|Parser key|Not a valid|Import path|Problem with|a class path|a dict with"


class Sentence:
    """A mixin for jsonargparse's parsers that turns a parse error into one ``T2IError``; flags are written out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the first thing that is wrong, with the flags that are near to an unknown one."""
        raise T2IError(self._sentence(message)) from ex

    def _sentence(self, message: str) -> str:
        text = " ".join(str(message).replace("<class ", "").replace("typing.", "").split())
        if inner := first_error(message):
            return inner
        if found := re.search(r"[Uu]nrecognized arguments?: *(\S+)|Option '(\S+)' is not accepted", text):
            return self._unknown((found[1] or found[2]).split("=")[0])
        if found := re.search(r"does not accept option '(\S+)'", text):
            return self._unknown(f"--{found[1]}")
        if found := re.search(r"argument \S*--(\S+): expected (.+)", text):
            return f"found too little after --{found[1]}, expected {found[2].replace('argument', 'value')}"
        if found := re.search(r"arguments are required: (.+)", text):
            missing = ", ".join("--" + re.sub(r"^(fit|validate|test|predict)\.", "", n) for n in found[1].split(", "))
            hint = "; a config brings them: --config NAME, and t2i-zoo list names them" if "data.source" in text else ""
            return f"found no {missing}: give {'them' if ',' in missing else 'it'}{hint}"
        key = re.search(r'Parser key "([\w.]+)"', text)
        if key is None:
            return text if len(text) < 600 else text[:600] + " ..."
        flag = self._full_name(key[1])
        given = re.search(r"Given value: (.*)$", text) or re.search(r"Got value: (.*)$", text)
        if found := re.search(NO_CLASS, text):
            value = next((group for group in found.groups() if group), given[1] if given else "")
            kinds = ", ".join(cls.__name__ for cls in _classes(flag))
            wanted = f"one of {kinds}" if kinds else "the name of one of Lightning's classes"
            return f"found --{flag} {value}, expected {wanted}, or the import path of a class of your own"
        types = re.search(r"Subtypes: \[(.*?)\] Errors: ", text) or re.search(r"Expected an? (.+?)\. Got value", text)
        if given and types:
            return f"found --{flag} {given[1]}, expected {_plain(types[1], given[1])}"
        return f"--{flag}: {text[key.end() :].lstrip(':; ')}"

    def _unknown(self, name: str) -> str:
        flags = self._flags() if name.startswith("-") else []
        flags += [f"{base}.{argument}" for base in CHOSEN for argument in ("class_path", *_class_arguments(base))]
        near = difflib.get_close_matches(name.lstrip("-"), flags, 1, 0.6) or [
            flag for flag in flags if difflib.get_close_matches(name, [flag.rpartition(".")[2]], 1, 0.75)
        ]
        hint = f"did you mean --{near[0]}?" if near else "--help lists what there is"
        return f"found no option {name if name.startswith('-') else repr(name)}: {hint}"

    def _full_name(self, key: str) -> str:
        """A chosen class's argument comes without its prefix in jsonargparse's words."""
        if (dashed := key.replace("_", "-")) in (flags := self._flags()) and key not in flags:
            return dashed
        chosen = [f"{base}.{argument}" for base in CHOSEN for argument in _class_arguments(base)]
        return next((flag for flag in chosen if "." not in key and flag.endswith(f".{key}")), key)

    def _flags(self) -> list[str]:
        actions: list[Any] = list(getattr(self, "_actions", []))
        for inner in [parser for a in actions for parser in (getattr(a, "_name_parser_map", None) or {}).values()]:
            actions += inner._actions
        return [option.lstrip("-") for action in actions for option in action.option_strings]


def first_error(message: object) -> str | None:
    """Our own sentence inside jsonargparse's list of what each alternative of a type had to say, or None."""
    errors = re.split(r"\n\s*Errors:\n", str(message))[1:]
    lines = [line.strip()[2:] for part in errors for line in part.splitlines() if line.strip().startswith("- ")]
    own = [line for line in lines if not re.match(NOT_OURS, line)]
    return own[0] if own else None


NAMES = {
    "'int'>": "a whole number",
    "'float'>": "a number",
    "'str'>": "text",
    "'bool'>": "true or false",
    "'NoneType'>": "null",
    "'dict'>": "a mapping",
    "list[int]": "a list of whole numbers such as [64, 128]",
    "list[str]": 'a list of texts such as ["a red flower"]',
}  #: types in the words of a reader


def _plain(types: str, given: str) -> str:
    """Types as jsonargparse lists them, in words, with the nearest of the allowed values."""
    literals = [value for group in re.findall(r"Literal\[(.*?)\]", types) for value in group.split(", ")]
    values = list(dict.fromkeys(value.strip("'") for value in literals))
    others = re.split(r", (?![^\[]*\])", re.sub(r"Literal\[.*?\]", "", types))
    kinds = [", ".join(values) if len(values) == 1 else f"one of {', '.join(values)}"] if values else []
    kinds += [NAMES.get(kind, kind) for kind in others if kind]
    near = difflib.get_close_matches(given, values, 1, 0.5)
    return " or ".join(kinds) + (f": did you mean {near[0]}?" if near else "")


def _classes(base: str) -> list[Any]:
    import t2i_zoo.data
    from t2i_zoo.models import MODELS, model_class

    if base == "model":
        return [model_class(name) for name in MODELS]
    return [getattr(t2i_zoo.data, name) for name in t2i_zoo.data.SOURCES] if base == "data.source" else []


def _class_arguments(base: str) -> list[str]:
    """Names of the arguments of all classes that ``base`` may be, their parents' included."""
    own = [c for cls in _classes(base) for c in cls.__mro__ if c.__module__.startswith("t2i_zoo")]
    names = [name for c in own for name in inspect.signature(c.__init__).parameters]
    return [name for name in dict.fromkeys(names) if name not in ("self", "options", "args", "kwargs")]


class Parser(Sentence, jsonargparse.ArgumentParser):
    """The parser of the verbs."""


def call(function: Callable[..., Any], words: Sequence[str]) -> Any:
    """Parse ``words`` for a typed function and call it; its docstring is the help."""
    name = function.__name__.rstrip("_")
    return jsonargparse.auto_cli(
        function, args=expand_configs(words), parser_class=Parser, prog=f"t2i-zoo {name}", as_positional=False
    )
