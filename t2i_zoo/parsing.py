"""The config language of every command: packaged configs by bare name, and mistakes as one sentence."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from t2i_zoo.errors import T2IError
from t2i_zoo.paths import experiments_folder


def packaged_configs() -> dict[str, Path]:
    """Configs that come with the package, by name."""
    return {path.stem: path for path in sorted(experiments_folder().glob("*.yaml"))}


def find_config(name: str) -> str:
    """Path of a config given as a path or as the bare name of a packaged one.

    Raises:
        T2IError: where there is neither, with the nearest names.
    """
    if Path(name).is_file() or name.lstrip().startswith("{"):
        return name
    packaged = packaged_configs()
    stem = Path(name).name.removesuffix(".yaml")
    if stem in packaged:
        return str(packaged[stem])
    near = difflib.get_close_matches(stem, packaged, 3, 0.5) or list(packaged)
    raise T2IError(
        f"found no config {name!r}: give the path of a YAML file or a packaged name such as {', '.join(near)}"
    )


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


class Sentence:
    """A mixin for jsonargparse's parsers that turns a parse error into one ``T2IError``."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the first thing that is wrong, with the flags that are near to an unknown one."""
        raise T2IError(self._sentence(message)) from ex

    def _sentence(self, message: str) -> str:
        text = " ".join(str(message).replace("<class ", "").replace("typing.", "").split())
        if inner := first_error(message):
            return inner
        if found := re.search(r"[Uu]nrecognized arguments?: *(\S+)|Option '(\S+)' is not accepted", text):
            return self._unknown((found[1] or found[2]).split("=")[0])
        if found := re.search(r"arguments are required: (.+)", text):
            missing = ", ".join("--" + re.sub(r"^(fit|validate|test|predict)\.", "", n) for n in found[1].split(", "))
            hint = "; a config brings them: --config NAME, and t2i-zoo list names them" if "data.source" in text else ""
            return f"found no {missing}: give {'them' if ',' in missing else 'it'}{hint}"
        key = re.search(r'Parser key "([\w.]+)"', text)
        if key is None:
            return text if len(text) < 600 else text[:600] + " ..."
        flag = self._full_name(key[1])
        if found := re.search(r"dot import path string: (\S+)", text):
            kinds = ", ".join(cls.__name__ for cls in _classes(flag)) or "a class"
            return f"found --{flag} {found[1]}, expected one of {kinds}, or the import path of a class of your own"
        if found := re.search(r"Subtypes: \[(.*?)\] Errors: .*Given value: (.*)$", text):
            return f"found --{flag} {found[2]}, expected {_plain(found[1].replace(', ', ' or '))}"
        if found := re.search(r"Expected an? (.+?)\. Got value: (.*)$", text):
            return f"found --{flag} {found[2]}, expected {_plain(found[1])}"
        return f"--{flag}: {text[key.end() :].lstrip(':; ')}"

    def _unknown(self, name: str) -> str:
        flags = self._flags() if name.startswith("-") else []
        flags += [f"{base}.{argument}" for base in CHOSEN for argument in _class_arguments(base)]
        near = difflib.get_close_matches(name.lstrip("-"), flags, 1, 0.6) or [
            flag for flag in flags if difflib.get_close_matches(name, [flag.rpartition(".")[2]], 1, 0.75)
        ]
        hint = f"did you mean --{near[0]}?" if near else "--help lists what there is"
        return f"found no option {name if name.startswith('-') else repr(name)}: {hint}"

    def _full_name(self, key: str) -> str:
        """A chosen class's argument comes without its prefix in jsonargparse's words."""
        chosen = [f"{base}.{argument}" for base in CHOSEN for argument in _class_arguments(base)]
        return next((flag for flag in chosen if "." not in key and flag.endswith(f".{key}")), key)

    def _flags(self) -> list[str]:
        actions: list[Any] = list(getattr(self, "_actions", []))
        return [option.lstrip("-") for action in actions for option in action.option_strings]


def first_error(message: object) -> str | None:
    """Our own sentence inside jsonargparse's list of what each alternative of a type had to say, or None."""
    errors = re.split(r"\n\s*Errors:\n", str(message))[1:]
    lines = [line.strip()[2:] for part in errors for line in part.splitlines() if line.strip().startswith("- ")]
    own = [line for line in lines if not re.match(r"(Expected|Does not validate|Parser key|Not a valid)", line)]
    return own[0] if own else None


def _plain(kind: str) -> str:
    return (
        kind.replace("'int'>", "a whole number")
        .replace("'float'>", "a number")
        .replace("'str'>", "text")
        .replace("'bool'>", "true or false")
        .replace("'NoneType'>", "null")
        .replace("Literal[", "one of [")
        .replace("'dict'>", "a mapping")
    )


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
