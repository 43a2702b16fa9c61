"""The config language of every command: packaged configs by bare name, and mistakes as one sentence."""

from __future__ import annotations

import difflib
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


class Sentence:
    """A mixin for jsonargparse's parsers that turns a parse error into one ``T2IError``."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the first thing that is wrong, with the flags that are near to an unknown one."""
        raise T2IError(self._sentence(message)) from ex

    def _sentence(self, message: str) -> str:
        lines = [line.strip(" -\t") for line in str(message).splitlines() if line.strip(" -\t")]
        unknown = (
            re.search(r"[Uu]nrecognized arguments?: *(\S+)", message)
            or re.search(
                r"[Kk]ey ['\"]([\w.]+)['\"] is not expected|Unexpected key (?:in config: )?[`'\"]?([\w.]+)",
                message,
            )
            or re.search(
                r"(?:does not accept|No action for (?:destination )?key|not accepted)[^`'\"]*[`'\"]([\w.]+)[`'\"]",
                message,
            )
        )
        if unknown:
            name = next(group for group in unknown.groups() if group)
            flag = name.split("=")[0].lstrip("-")
            near = difflib.get_close_matches(flag, self._flags(), 1, 0.6)
            hint = f"did you mean --{near[0]}?" if near else "--help lists what there is"
            return f"found no option {name.split('=')[0] if name.startswith('-') else '--' + flag}: {hint}"
        text = "; ".join(lines[:4])
        return text if len(text) < 600 else text[:600] + " ..."

    def _flags(self) -> list[str]:
        actions: list[Any] = list(getattr(self, "_actions", []))
        flags = [option.lstrip("-") for action in actions for option in action.option_strings]
        for action in actions:  # arguments of a class that is chosen by name are known only once it is
            base = getattr(action, "dest", "")
            if base in ("model", "data.source"):
                flags += [f"{base}.{name}" for name in _class_arguments(base)]
        return flags


def _class_arguments(base: str) -> list[str]:
    import inspect

    from t2i_zoo.data import SOURCES
    from t2i_zoo.models import MODELS, model_class

    if base == "model":
        classes: list[Any] = [
            c for name in MODELS for c in model_class(name).__mro__ if c.__module__.startswith("t2i_zoo")
        ]
    else:
        import t2i_zoo.data

        classes = [getattr(t2i_zoo.data, name) for name in SOURCES]
    return [
        name for c in classes for name in inspect.signature(c.__init__).parameters if name not in ("self", "options")
    ]


class Parser(Sentence, jsonargparse.ArgumentParser):
    """The parser of the verbs."""


def call(function: Callable[..., Any], words: Sequence[str]) -> Any:
    """Parse ``words`` for a typed function and call it; its docstring is the help."""
    name = function.__name__.rstrip("_")
    return jsonargparse.auto_cli(
        function, args=expand_configs(words), parser_class=Parser, prog=f"t2i-zoo {name}", as_positional=False
    )
