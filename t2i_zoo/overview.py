"""Help, mistyped flags and shell completion of every command, from signatures alone: no torch, no Lightning."""

from __future__ import annotations

import ast
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from t2i_zoo.data import SOURCES
from t2i_zoo.errors import T2IError
from t2i_zoo.mistakes import DATA, class_arguments, class_path_of, unknown_option
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import Parser, add_options, find_config, hands_on
from t2i_zoo.signatures import Option, copied, options_of

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
#: callbacks of ``fit`` whose options are on the command line, by their prefix
CALLBACKS = {
    "samples": "t2i_zoo.callbacks.samples.SampleGrid",
    "watch": "t2i_zoo.callbacks.watch.Watch",
    "resume": "t2i_zoo.callbacks.resume.ResumePoint",
    "checkpoint": "t2i_zoo.callbacks.resume.FurtherCheckpoints",
}
GROUPS = {"data": DATA, "trainer": TRAINER, **CALLBACKS}
#: options of ``fit`` that belong to no class, as its help shows them
SINGLE = {
    "config": "NAME|a packaged config (t2i-zoo list names them) or a YAML file; a second one is laid over the first",
    "model": "NAME|the model's class, which a config names too",
    "ckpt_path": "RUN|resume a run, or judge it: a .ckpt file, the folder of a run, or last for the newest run",
    "logger": "NAME|log to wandb (offline without key or network) or tensorboard too; csv or none: metrics.csv alone",
    "seed_everything": "INT|seed of weights, noise and order; 0 by default",
    "print_config": "|print the resulting config and stop",
}
_OTHERS = (
    "c",
    "data",
    "trainer",
    *CALLBACKS,
    "weights_only",
    "verbose",
    "return_predictions",
    "h",
    "help",
    "print_shtab",
)
_INNER = {"class_path", "init_args", "dict_kwargs", "help"}  #: jsonargparse's own names below an option
#: options of the Trainer that the short help shows
_OFTEN = ("max_epochs", "max_time", "accelerator", "devices", "strategy", "precision", "limit_train_batches",
          "check_val_every_n_epoch", "log_every_n_steps", "default_root_dir")  # fmt: skip


def training_help(verb: str, about: str, words: Sequence[str], everything: bool = False) -> str:
    """The help of ``fit`` and its like: the options of the model and data that the words choose.

    Args:
        verb: the command.
        about: what it does.
        words: of the command line.
        everything: with all options of the Trainer and the callbacks, and whole descriptions.
    """
    model, source = _chosen(words, "model"), _chosen(words, "data.source")
    lines = [f"usage: t2i-zoo {verb} --config NAME [options]", "", about, ""]
    for name, text in SINGLE.items():
        value, _, said = text.partition("|")
        lines += _entry(f"--{name} {value}".rstrip(), said, everything)
    path = model or MODELS["gancls"].path.replace("gancls.GANCLS", "base.TextToImageGAN")
    owners = dict.fromkeys(option.owner for option in options_of(path))
    for owner in owners:
        own = [option for option in options_of(path) if option.owner == owner]
        every = ", the base of every GAN" if owner == "TextToImageGAN" else ""
        lines += _section(f"Options of {owner}{every}", "model", own, everything)
    if model is None:
        lines += ["", "With --config NAME or --model NAME, the options of that model are listed too."]
    data = [option for option in options_of(DATA) if option.name != "source"]
    lines += _section("Data", "data", data, everything)
    if source is None:
        lines += _entry("--data.source NAME", f"one of {', '.join(SOURCES)}, with options of its own", everything)
    for path in [source] if source else list(_sources().values()) if everything else []:
        lines += _section(f"Data source {path.rpartition('.')[2]}", "data.source", list(options_of(path)), everything)
    for prefix in CALLBACKS if verb == "fit" else ():
        if everything or prefix != "checkpoint":
            lines += _section(prefix.capitalize(), prefix, list(options_of(CALLBACKS[prefix])), everything)
    trainer = [option for option in options_of(TRAINER) if everything or option.name in _OFTEN]
    lines += _section("Trainer", "trainer", trainer, everything)
    if not everything:
        lines += ["", "--help all describes every option in full, those of Lightning's Trainer and callbacks included."]
    return "\n".join(lines)


def data_help(words: Sequence[str]) -> str:
    """The options of the data, to follow those of a command that takes them."""
    source = _chosen(words, "data.source")
    lines = _entry("--config NAME", "the config whose data are used; the options below change them")
    lines += _section("Data", "data", [option for option in options_of(DATA) if option.name != "source"])
    if source is None:
        return "\n".join(
            [*lines, *_entry("--data.source NAME", f"one of {', '.join(SOURCES)}, with options of its own")]
        )
    return "\n".join([*lines, *_section("Data source", "data.source", list(options_of(source)))])


def _section(title: str, prefix: str, options: Sequence[Option], everything: bool = False) -> list[str]:
    lines = ["", f"{title}:"] if options else []
    for option in options:
        default = _plain(option.default)
        lines += _entry(f"--{prefix}.{option.name} {default}".rstrip(), option.about, everything, option.kind)
    return lines


def _entry(flag: str, about: str, everything: bool = False, kind: str = "") -> list[str]:
    """One option: on one line, or in full below its flag."""
    width = max(min(shutil.get_terminal_size((120, 40)).columns, 160), 60)
    if everything:
        text = textwrap.wrap(about, width - 6, initial_indent=" " * 6, subsequent_indent=" " * 6)
        return [f"  {flag}" + (f"  ({kind})" if kind else ""), *text]
    start = f"  {flag:<36}  "
    return [start + textwrap.shorten(about, max(width - len(start), 20), placeholder=" ...")]


def _plain(default: str) -> str:
    """A default as one would type it; none is shown for None and for what only the code knows."""
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):
        return ""
    return "" if value is None else str(value)


def _sources() -> dict[str, str]:
    return {name: f"t2i_zoo.data.{module}.{name}" for name, (module, _) in SOURCES.items()}


def _chosen(words: Sequence[str], option: str) -> str | None:
    """The import path of the class of ours that the words choose last for ``model`` or ``data.source``, or None."""
    named = _named(words, option)
    return class_path_of(option, named[-1]) if named else None


def _named(words: Sequence[str], option: str) -> list[str]:
    """All classes that configs and flags name for an option, in order."""
    found: list[Any] = []
    for flag, value in _flags(words):
        if flag in ("--config", "-c") and value:
            chosen = _within(_read(value), option)
            found.append(chosen.get("class_path") if isinstance(chosen, dict) else chosen)
        elif flag in (f"--{option}", f"--{option}.class_path"):
            found.append(value)
    return [str(name) for name in found if name]


def _read(config: str) -> Any:
    """The content of a config; None where it cannot be read, of which parsing says why."""
    text = find_config(config)
    try:
        return yaml.safe_load(text if text.lstrip().startswith("{") else Path(text).read_text("utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _within(config: Any, option: str) -> Any:
    """What a config says of an option such as ``data.image_size``, or None."""
    for part in option.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def one_size(words: Sequence[str]) -> list[str]:
    """The words with the image size of the model as that of the data too, or the other way round, if one is given.

    What the command line says precedes the configs. Where it says both, or nothing at all but the configs say both,
    the sizes stay as they are. The load size follows, see ``load_follows``.
    """
    return load_follows(_same_size(words))


def _same_size(words: Sequence[str]) -> list[str]:
    path = _chosen(words, "model")
    if path is None or "image_size" not in class_arguments("model", path):
        return list(words)
    given: dict[str, Any] = {flag[2:]: value for flag, value in _flags(words) if flag.endswith(".image_size")}
    if not given:
        configs = _configs(words)
        for name, inner in (("model.image_size", "model.init_args.image_size"), ("data.image_size",) * 2):
            sizes = [size for config in configs if (size := _within(config, inner)) is not None]
            given |= {name: sizes[-1]} if sizes else {}
    if len(given) != 1 or given.keys() - {"model.image_size", "data.image_size"}:
        return list(words)
    ((name, size),) = given.items()
    return [*words, "--data.image_size" if name == "model.image_size" else "--model.image_size", str(size)]


def load_follows(words: Sequence[str]) -> list[str]:
    """The words with the load size of the configs in proportion to the image size, if they give only the latter.

    A smaller image would otherwise be a small part of a picture, and a larger one larger than the picture.
    """
    given, configs = dict(_flags(words)), _configs(words)
    size = given.get("--data.image_size", "")
    sides = [_within(config, "data.image_size") or _within(config, "model.init_args.image_size") for config in configs]
    side = next((side for side in reversed(sides) if side), None)
    loads = [data["load_size"] for config in configs if "load_size" in (data := _within(config, "data") or {})]
    load = loads[-1] if loads else None
    if "--data.load_size" in given or not (size.isdecimal() and isinstance(side, int) and isinstance(load, int)):
        return list(words)
    following = round(load * int(size) / side)
    return [*words, "--data.load_size", str(following)] if following != load else list(words)


def _configs(words: Sequence[str]) -> list[Any]:
    """The contents of the configs that the words name, in order."""
    return [_read(value) for flag, value in _flags(words) if flag in ("--config", "-c") and value]


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Flags with their values, or with what follows them."""
    for i, word in enumerate(words):
        if word.startswith("-"):
            flag, equals, value = word.partition("=")
            following = words[i + 1] if i + 1 < len(words) else ""
            dashes = flag[: len(flag) - len(flag.lstrip("-"))]
            yield dashes + flag.lstrip("-").replace("-", "_"), value if equals else following


def check_flags(words: Sequence[str], steps: bool = False) -> None:
    """Raise for a flag that ``fit`` cannot know; what is below a class of your own is left to the parser.

    Args:
        words: options of ``fit``.
        steps: whether options may begin with the name of a run that the model builds on, as in ``pipeline``.

    Raises:
        T2IError: for the first unknown flag, with the nearest known one.
    """
    known = [*SINGLE, *_OTHERS, "data.source"]
    for prefix, path in GROUPS.items():
        known += [f"{prefix}.{option.name}" for option in options_of(path)]
    foreign = set[str]()
    for option in ("model", "data.source"):
        paths = {class_path_of(option, name) for name in _named(words, option)}
        foreign |= {option} if None in paths else set()
        # where the class changes, options of the former one are dropped, which only the parser does
        known += [f"{option}.{name}" for name in class_arguments(option, paths.pop() if len(paths) == 1 else None)]
    asked = {flag for flag, _ in _flags(words) if flag.startswith("--")}
    for flag in sorted(asked, key=[flag for flag, _ in _flags(words)].index):
        parts = flag[2:].rstrip("+").split(".")
        if steps and parts[0] not in known and f"model.{parts[0]}" in known:
            continue  # of another config, whose parser judges it
        depth = 3 if parts[:2] == ["data", "source"] else 2
        if _INNER & set(parts) or any(".".join(parts[: depth - 1]) == option for option in foreign):
            continue
        if ".".join(parts[:depth]) not in known:
            raise T2IError(unknown_option(flag, [name for name in known if name not in _OTHERS]))


def command_help(parser: Parser, verb: str, words: Sequence[str]) -> str:
    """The help of a command, followed by that of the options which it hands on."""
    own: str = parser.format_help()
    if verb in ("evaluate", "leaderboard", "prepare"):
        return f"{own}\n{data_help(words)}"
    return own


def completion(words: Sequence[str], training: dict[str, str], verbs: Sequence[str]) -> None:
    """Print a completion script, as ``--print_completion shtab-bash`` asks for.

    Raises:
        T2IError: without the package shtab.
    """
    from jsonargparse import set_parsing_settings

    if find_spec("shtab") is None:
        raise T2IError("found no package shtab, which writes completion scripts: pip install shtab")
    set_parsing_settings(add_print_completion_argument=True)
    parser = Parser(prog="t2i-zoo")
    commands = parser.add_subcommands()
    for verb, about in training.items():
        own = Parser()
        for name, text in SINGLE.items():
            own.add_argument(f"--{name}", help=text.partition("|")[2])
        for prefix, path in GROUPS.items():
            for option in options_of(path):
                own.add_argument(f"--{prefix}.{option.name}", help=option.about)
        for base in ("model", "data.source"):
            for name in class_arguments(base):
                own.add_argument(f"--{base}.{name}")
        commands.add_subcommand(verb, own, help=about)
    for verb in verbs:
        own = Parser()
        sketch = sketch_of(verb)
        add_options(own, sketch, ("words",) if hands_on(sketch) else ())
        commands.add_subcommand(verb, own)
    parser.parse_args(list(words))


def sketch_of(verb: str) -> Any:
    """The typed function of a command, without what it does and imports."""
    return copied(f"t2i_zoo.commands.{verb}.{function_name(verb)}")


def function_name(verb: str) -> str:
    """The name of the function that a command calls: its own, unless Python has one of that name."""
    return "list_" if verb == "list" else verb
