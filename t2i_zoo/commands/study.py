"""``t2i-zoo study``: train the arms of a study with equal budgets, and score each by the same protocols."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from filelock import FileLock, Timeout

from t2i_zoo.commands.evaluate import evaluate
from t2i_zoo.commands.pipeline import run_to_end
from t2i_zoo.commands.sample import sample
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.records import append_lines, read_lines

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Study:
    """The content of a study's file.

    Args:
        arms: options of ``fit`` that set each arm apart, by its name: a mapping of flags without dashes to values.
        options: options of ``fit`` that all arms share; those of an arm take precedence.
        minutes: processor time on one core after which each arm is scored; the last one ends it.
        seeds: each arm is trained once with each.
        scores: arguments of ``t2i-zoo evaluate`` for each measurement: ``protocol``, ``network``, ``images``.
        captions: rows of the grid that is drawn at each measurement, always with the same noise.
        anchors: whatever the arms refer to by YAML's anchors; it is not read otherwise.
    """

    arms: dict[str, dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    minutes: list[float] = field(default_factory=lambda: [15, 30, 60])
    seeds: list[int] = field(default_factory=lambda: [0])
    scores: list[dict[str, Any]] = field(default_factory=list)
    captions: list[str] = field(default_factory=lambda: ["a flower with red petals"])
    anchors: Any = None

    @classmethod
    def read(cls, path: Path) -> Study:
        """Read a file.

        Raises:
            T2IError: where it is missing, no YAML mapping, has unknown keys or no arms.
        """
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise T2IError(f"cannot read the study {path}: give the path of a YAML file") from error
        known = [each.name for each in fields(cls)]
        if not isinstance(content, dict) or set(content) - set(known) or not content.get("arms"):
            raise T2IError(f"found a study {path} that needs arms, and may have {', '.join(known[1:])}: correct it")
        return cls(**{**content, "arms": {name: arm or {} for name, arm in content["arms"].items()}})

    def words(self, arm: str, seed: int) -> list[str]:
        """The options of ``fit`` for an arm."""
        merged = {"seed_everything": seed, **self.options, **self.arms[arm]}
        flags = sorted(merged, key=lambda name: name.count("."))  # jsonargparse reads --model before its options
        return [word for name in flags for word in (f"--{name}", _word(merged[name]))]


def study(
    *file: str, arms: list[str] | None = None, minutes: list[float] | None = None, out: str | None = None
) -> None:
    """Train the arms of a study with equal budgets, and score each by the same protocols.

    Every arm trains on one core for the same processor time. Its scores are appended to results.jsonl, and a
    grid is drawn. What is finished is left alone and what was interrupted resumes, so the same
    command continues a study; several at once share its arms. An arm that cannot be trained does not keep the others
    from it.

    Args:
        file: YAML file of the study, such as experiments/studies/aids.yaml.
        arms: Names of the arms to train, instead of all.
        minutes: Minutes of processor time after which to score, instead of those of the file.
        out: Folder of the runs and results; by default runs/studies/NAME.

    Raises:
        T2IError: for an unknown arm, a file that is no study, and an arm whose options ``fit`` refuses.
    """
    if len(file) != 1:
        raise T2IError("found no study: give one file, such as t2i-zoo study experiments/studies/aids.yaml")
    chosen = Study.read(Path(file[0]))
    for name in arms or ():
        if name not in chosen.arms:
            raise T2IError(f"found no arm {name} in {file[0]}: name one of {', '.join(chosen.arms)}")
    folder = Path(out) if out else Path("runs") / "studies" / Path(file[0]).stem
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for seed in chosen.seeds:
        for arm in arms or chosen.arms:
            try:
                with FileLock(folder / f"{arm}-{seed}.lock", timeout=0):
                    if not run_arm(chosen, arm, seed, minutes or chosen.minutes, folder):
                        print("stopped; the same command goes on from here", flush=True)
                        return
            except Timeout:
                print(f"{arm}, seed {seed}: another process has it", flush=True)
            except _FailedError:
                failed.append(f"{arm}-{seed}")
    if failed:
        raise T2IError(
            f"found {', '.join(failed)} that could not be trained, as they say above: correct the study's file, or "
            "give them what they need, and repeat"
        )


class _FailedError(Exception):
    """Training failed, and has said why."""


def run_arm(chosen: Study, arm: str, seed: int, minutes: Sequence[float], folder: Path) -> bool:
    """Train and score one arm as far as it is not done, and append a line for each of its times.

    Returns:
        False where it was stopped on the way.
    """
    results = folder / RESULTS
    done = {line["minutes"] for line in read_lines(results) if (line["arm"], line["seed"]) == (arm, seed)}
    root = folder / f"{arm}-{seed}"
    for limit in (limit for limit in sorted(minutes) if limit not in done):
        used, budget = _used(root)
        if used >= limit and budget != limit:
            print(f"{arm}, seed {seed}: trained for {used:.1f} minutes already, too long for {limit:g}", flush=True)
            continue
        _train(chosen.words(arm, seed), root, limit)
        if _used(root)[0] < limit:
            return False
        run = str(_checkpoints(root)[-1])
        sample(run, chosen.captions, out=str(folder / "grids" / f"{root.name}-{limit:g}.jpg"), overwrite=True)
        line: dict[str, Any] = {"arm": arm, "seed": seed, "minutes": limit, "scores": {}}
        for options in chosen.scores:
            for found in evaluate([], run, out=str(root / "scores.jsonl"), **options):
                line["scores"][_score_name(found)] = found["value"]
                line |= {"batches": found["batches"], "versions": found["versions"]}
        append_lines(results, [line])
        print(json.dumps(line), flush=True)
    return True


def _train(words: Sequence[str], root: Path, minutes: float) -> None:
    budget = {"class_path": "t2i_zoo.callbacks.budget.ProcessorBudget", "init_args": {"minutes": minutes}}
    command = [sys.executable, "-m", "t2i_zoo", "fit", *words, "--trainer.default_root_dir", str(root)]
    command += ["--trainer.callbacks+", json.dumps(budget), "--trainer.max_epochs", "-1"]
    if _checkpoints(root):
        command += ["--ckpt_path", "last"]
    if run_to_end(command, {**os.environ, "OMP_NUM_THREADS": "1"}) not in (0, 130):
        raise _FailedError


def _used(root: Path) -> tuple[float, float | None]:
    """Minutes of processor time that a run's checkpoint was trained for, and its budget; 0 and None without one."""
    if not (found := _checkpoints(root)):
        return 0.0, None
    saved = torch.load(found[-1], map_location="cpu", mmap=True, weights_only=True)["callbacks"]["ProcessorBudget"]
    return saved["seconds"] / 60, saved.get("minutes")


def _checkpoints(root: Path) -> list[Path]:
    return sorted(root.glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)


def _score_name(line: Mapping[str, Any]) -> str:
    network = str(line["network"] or "").partition(":")[0]
    return f"{line['protocol']}.{line['metric']}" + (f" ({network})" if network else "")


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
