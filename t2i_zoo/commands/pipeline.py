"""``t2i-zoo pipeline``: a config and all runs that it builds on, in order; what is finished is left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml  # type: ignore[import-untyped]

from t2i_zoo.errors import T2IError
from t2i_zoo.models import MODELS, model_class
from t2i_zoo.parsing import find_config, packaged_configs
from t2i_zoo.runs import FINISHED

#: options that belong to the data and the machine, and so to every step, with all that is below them
SHARED = ("--data.source", "--data.on_bad_image", "--data.draft", "--data.cache_dir", "--trainer.accelerator",
          "--trainer.devices", "--trainer.strategy", "--trainer.precision", "--trainer.num_nodes",
          "--seed_everything")  # fmt: skip

USAGE = """usage: t2i-zoo pipeline CONFIG [options of fit]

Trains what CONFIG builds on (the DAMSM of an AttnGAN, Stage I of a Stage II, ...) and then CONFIG itself. A finished
run is left alone, one that was stopped is resumed, so the same command goes on wherever it was.

  --data.source --data.source.* --data.on_bad_image --trainer.accelerator and the like hold for every step
  --damsm.data.batch_size 32      an option of the step whose path --model.damsm names
  all other options of fit        hold for CONFIG alone
  --dry-run                       only say what there is to do
"""


class Step(NamedTuple):
    """One run: its config, its folder, its options of ``fit``, and the option of the model that needs it."""

    config: str
    folder: Path
    words: list[str]
    role: str


def state_of(folder: Path) -> Literal["finished", "stopped", "missing"]:
    """How far the newest run in a folder came; a file is a finished one."""
    if folder.is_file():
        return "finished"
    runs = [path for path in (folder, *folder.glob("version_*")) if (path / "checkpoints" / "last.ckpt").is_file()]
    if not runs:
        return "missing"
    newest = max(runs, key=lambda path: (path / "checkpoints" / "last.ckpt").stat().st_mtime)
    return "finished" if (newest / FINISHED).is_file() else "stopped"


def steps_of(config: str, words: Sequence[str], folder: Path | None = None, role: str = "") -> list[Step]:
    """All runs that a config builds on, in order, with the config's own last.

    Args:
        config: a path, or the bare name of a packaged config.
        words: options of ``fit``, those of single steps among them.
        folder: of the config's own run; None takes ``--trainer.default_root_dir``, or ``runs/NAME``.
        role: the option of another model that needs the run.

    Raises:
        T2IError: for a run that is not there, and that no config of its name makes.
    """
    path = Path(find_config(config))
    found = yaml.safe_load(path.read_text("utf-8-sig"))
    chosen = found.get("model") or {}
    chosen = {"class_path": chosen} if isinstance(chosen, str) else chosen
    options = dict(chosen.get("init_args") or {})
    kind = _class_named(_value(words, "--model") or str(chosen.get("class_path")), path)
    shared = [(flag, value) for flag, value in _pairs(words) if f"{flag}.".startswith(tuple(f"{s}." for s in SHARED))]
    own, result = _pairs(words), list[Step]()
    for name in kind.builds_on:
        prefix = f"--{name}."
        inner = [(f"--{flag.removeprefix(prefix)}", value) for flag, value in own if flag.startswith(prefix)]
        own = [pair for pair in own if not pair[0].startswith(prefix)]
        place = _value(words, f"--model.{name}") or options.get(name)
        if not place or place == "untrained":
            continue
        run = Path(place).expanduser()
        if state_of(run) != "finished" and not _config_named(run.name, path):
            raise T2IError(
                f"--model.{name} {place} is not there, and no config is named {run.name}: give a run that exists, or "
                f"a path that ends in the name of a config, such as runs/{name}_flowers"
            )
        if state_of(run) == "finished":
            result.append(Step(run.name, run, [], name))
        else:
            result += steps_of(_config_named(run.name, path), _flat([*shared, *inner]), run, name)
    folder = folder or Path(_value(words, "--trainer.default_root_dir") or Path("runs") / path.stem)
    return [*result, Step(str(path), folder, _flat(own), role)]


def run_step(step: Step) -> bool:
    """Train or resume one run in a process of its own; whether it is finished then.

    Raises:
        T2IError: where the process fails; it has said why.
    """
    command = [sys.executable, "-m", "t2i_zoo", "fit", "--config", step.config, *step.words]
    if not _value(step.words, "--trainer.default_root_dir"):
        command += ["--trainer.default_root_dir", str(step.folder)]
    if state_of(step.folder) == "stopped":
        command += ["--ckpt_path", "last"]
    process = subprocess.Popen(command)
    former = signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # Ctrl-C reaches it without us
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, former)
    if code not in (0, 130):
        raise T2IError(
            f"the run of {Path(step.config).stem} failed, as it says above: mend that, and repeat the command"
        )
    return state_of(step.folder) == "finished"


def _class_named(name: str, path: Path) -> Any:
    for key, entry in MODELS.items():
        short = entry.path.rpartition(".")[2]  # a class of one's own may have the same
        if name == short or (name.startswith("t2i_zoo.") and name.endswith(f".{short}")):
            return model_class(key)
    raise T2IError(f"{path} names the model {name!r}, which is not of the zoo: run its steps one by one with fit")


def _config_named(name: str, beside: Path) -> str:
    """The config of a run's name, from the same folder or the package, or nothing."""
    near = beside.with_name(f"{name}.yaml")
    return str(near) if near.is_file() else str(packaged_configs().get(name, ""))


def _pairs(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Flags with their values, whether one word or two."""
    result: list[tuple[str, str | None]] = []
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            result.append((flag, value if equals else None))
        elif result and result[-1][1] is None:
            result[-1] = (result[-1][0], word)
        else:
            raise T2IError(f"found {word!r} where a flag should be: write --NAME VALUE")
    return result


def _flat(pairs: Sequence[tuple[str, str | None]]) -> list[str]:
    return [word for flag, value in pairs for word in ((flag,) if value is None else (flag, value))]


def _value(words: Sequence[str], flag: str) -> str | None:
    return next((value for name, value in reversed(_pairs(words)) if name == flag), None)


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    rest = [word for word in words if word != "--dry-run"]
    if not rest or {"-h", "--help"} & set(rest):
        print(USAGE)
        raise SystemExit(0)
    if rest[0] == "--config" or rest[0].startswith("-"):
        raise T2IError(f"found {rest[0]} first, expected the config: t2i-zoo pipeline mirrorgan_flowers")
    steps = steps_of(rest[0], rest[1:])
    for number, step in enumerate(steps, 1):
        state = state_of(step.folder)
        todo = {"finished": "finished", "stopped": "to be resumed", "missing": "to be trained"}[state]
        print(f"step {number} of {len(steps)}: {Path(step.config).stem}, {todo}: {step.folder}", flush=True)
        if state != "finished" and "--dry-run" not in words and not run_step(step):
            print("stopped; the same command goes on from here", flush=True)
            return
