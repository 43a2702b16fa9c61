"""``t2i-zoo pipeline``: train a config and all runs that it builds on, in order; finished runs are left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import yaml  # type: ignore[import-untyped]

from t2i_zoo.errors import T2IError
from t2i_zoo.parsing import find_config, named_model, packaged_configs
from t2i_zoo.runs import FINISHED, LAST, newest_run

#: options of the data and the machine, which with all options below them hold for every step
SHARED = ("--data.source", "--data.on_bad_image", "--data.draft", "--data.cache_dir", "--trainer.accelerator",
          "--trainer.devices", "--trainer.strategy", "--trainer.precision", "--trainer.num_nodes",
          "--seed_everything")  # fmt: skip

Pairs = list[tuple[str, str | None]]  #: flags with their values


def pipeline(*config: str, words: Sequence[str] = (), dry_run: bool = False) -> None:
    """Train the runs that CONFIG builds on, such as the DAMSM of an AttnGAN, and then CONFIG itself.

    t2i-zoo pipeline CONFIG [--dry-run] [options of fit]

    Finished runs are left alone and stopped ones are resumed, so the same command continues after an interruption.
    --data.source, --data.source.*, --data.on_bad_image, --trainer.accelerator and other options of data and machine
    hold for every step, --damsm.data.batch_size 32 for the run that --model.damsm names, and all other options of fit
    for CONFIG alone. The options of every step are checked before the first one starts.

    Args:
        config: A packaged config, or the path of a YAML file.
        words: options of ``fit``, those of single steps among them.
        dry_run: Only check the options and print what there is to do.

    Raises:
        T2IError: for a mistake in the options of any step, before anything is trained.
    """
    if len(config) != 1:
        found = " and ".join(map(repr, config)) or "no config"
        raise T2IError(f"found {found}, expected one config first: t2i-zoo pipeline mirrorgan_flowers")
    steps = steps_of(config[0], words)
    check_steps(steps)
    for number, step in enumerate(steps, 1):
        state = state_of(step.folder)
        todo = {"finished": "finished", "stopped": "to be resumed", "missing": "to be trained"}[state]
        print(f"step {number} of {len(steps)}: {Path(step.config).stem}, {todo}: {step.folder}", flush=True)
        if state != "finished" and not dry_run and not run_step(step):
            print("stopped; the same command goes on from here", flush=True)
            return


def check_steps(steps: Sequence[Step]) -> None:
    """Check the options of every step that is not finished.

    Raises:
        T2IError: for the first mistake, with the step that has it.
    """
    from t2i_zoo.cli import check

    for step in steps:
        if state_of(step.folder) == "finished":
            continue
        try:
            check(["fit", "--config", step.config, *step.words])
        except T2IError as error:
            where = f"in step {Path(step.config).stem}: " if len(steps) > 1 else ""
            raise T2IError(f"{where}{error}") from error


class Step(NamedTuple):
    """One run: its config, its folder and its options of ``fit``."""

    config: str
    folder: Path
    words: list[str]


def state_of(folder: Path) -> Literal["finished", "stopped", "missing"]:
    """State of the newest run in a folder; a file counts as a finished run."""
    if folder.is_file():
        return "finished"
    newest = newest_run(folder)
    if newest is None or not (newest / LAST).is_file():
        return "missing"
    return "finished" if (newest / FINISHED).is_file() else "stopped"


def steps_of(config: str, words: Sequence[str], folder: Path | None = None) -> list[Step]:
    """All runs that a config builds on, in order, with the config's own last.

    Args:
        config: a path, or the bare name of a packaged config.
        words: options of ``fit``, those of single steps among them.
        folder: of the config's own run; by default ``--trainer.default_root_dir``, the config's, or ``runs/NAME``.

    Raises:
        T2IError: for a run that does not exist, and that no config of its name makes.
    """
    path = Path(find_config(config))
    content = yaml.safe_load(path.read_text("utf-8-sig"))
    chosen = content.get("model") or {}
    chosen = {"class_path": chosen} if isinstance(chosen, str) else chosen
    options = chosen.get("init_args") or {}
    own, result = _pairs(words), list[Step]()
    given = dict(own)
    shared = [pair for pair in own if f"{pair[0]}.".startswith(tuple(f"{flag}." for flag in SHARED))]
    for name in named_model(given.get("--model") or str(chosen.get("class_path"))).builds_on:
        prefix = f"--{name}."
        inner = [(f"--{flag.removeprefix(prefix)}", value) for flag, value in own if flag.startswith(prefix)]
        own = [pair for pair in own if not pair[0].startswith(prefix)]
        place = given.get(f"--model.{name}") or options.get(name)
        if place and place not in ("untrained", "null"):
            result += _steps_before(name, place, [*shared, *inner], path)
    root = given.get("--trainer.default_root_dir") or (content.get("trainer") or {}).get("default_root_dir")
    folder = folder or Path(root or Path("runs") / path.stem)
    return [*result, Step(str(path), folder, _flat(own))]


def _steps_before(name: str, place: str, pairs: Pairs, beside: Path) -> list[Step]:
    """The steps that lead to the run that ``--model.NAME`` of the config ``beside`` is looked for at."""
    run = Path(place).expanduser()
    if state_of(run) == "finished":
        return [Step(run.name, run, [])]
    near = beside.with_name(f"{run.name}.yaml")
    config = near if near.is_file() else packaged_configs().get(run.name)
    if config is None:
        raise T2IError(
            f"--model.{name} {place} is not there, and no config is named {run.name}: give a run that exists, or "
            f"a path that ends in the name of a config, such as runs/{name}_flowers"
        )
    return steps_of(str(config), _flat(pairs), run)


def run_step(step: Step) -> bool:
    """Train or resume one run in its own process; whether it is finished then.

    Raises:
        T2IError: where the process fails; it has said why.
    """
    command = [sys.executable, "-m", "t2i_zoo", "fit", "--config", step.config, *step.words]
    if "--trainer.default_root_dir" not in step.words:
        command += ["--trainer.default_root_dir", str(step.folder)]
    if state_of(step.folder) == "stopped":
        command += ["--ckpt_path", "last"]
    if run_to_end(command) not in (0, 130):
        raise T2IError(
            f"the run of {Path(step.config).stem} failed, as it says above: mend that, and repeat the command"
        )
    return state_of(step.folder) == "finished"


def run_to_end(command: Sequence[str], env: Mapping[str, str] | None = None) -> int:
    """Run a command, let it save what it has at SIGTERM and Ctrl-C, and return its exit status.

    That is 0 or 130 after a stop, also where the command had only begun and died of the signal.
    """
    process, stopped = subprocess.Popen(command, env=env), False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        process.terminate()

    former = signal.signal(signal.SIGTERM, stop)
    try:
        status = process.wait()
    except KeyboardInterrupt:  # which reaches the command without us
        stopped, status = True, process.wait()
    finally:
        signal.signal(signal.SIGTERM, former)
    return 130 if stopped and status else status


def _pairs(words: Sequence[str]) -> Pairs:
    """Flags with their values, whether they came as one word or as two."""
    result: Pairs = []
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            result.append((f"--{flag[2:].replace('-', '_')}", value if equals else None))
        elif result and result[-1][1] is None:
            result[-1] = (result[-1][0], word)
        else:
            raise T2IError(f"found {word!r} where a flag should be: write --NAME VALUE")
    return result


def _flat(pairs: Pairs) -> list[str]:
    return [word for flag, value in pairs for word in ((flag,) if value is None else (flag, value))]
