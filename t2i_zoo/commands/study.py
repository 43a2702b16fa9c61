"""``t2i-zoo study``: train the arms of a study with equal budgets, and score each by the same protocols."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from t2i_zoo.commands.evaluate import evaluate
from t2i_zoo.commands.pipeline import run_to_end
from t2i_zoo.commands.sample import sample
from t2i_zoo.commands.study_file import Study, check_minutes, find_study, plain
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.metrics.records import append_lines, read_lines

RESULTS = "results.jsonl"
OPTIONS = "options.json"  #: in the folder of an arm: what it was trained with


def study(
    *file: str, arms: list[str] | None = None, minutes: list[float] | None = None, out: str | None = None
) -> None:
    """Train the arms of a study with equal budgets, and score each by the same protocols.

    Every arm trains on one core for the same processor time. Its scores are appended to results.jsonl, and a
    grid is drawn. What is finished is left alone and what was interrupted resumes, so the same
    command continues a study; several at once share its arms. An arm that cannot be trained or scored does not keep
    the others from it.

    Args:
        file: Name of a packaged study, such as aids, or the path of a YAML file of your own.
        arms: Names of the arms to train, instead of all.
        minutes: Minutes of processor time after which to score, instead of those of the file.
        out: Folder of the runs and results; by default runs/studies/NAME.

    Raises:
        T2IError: for an unknown arm, a mistake in the file or in its scores, before anything is trained; and at the
            end for an arm that could not be trained or scored.
    """
    if len(file) != 1:
        raise T2IError("found no study: give one name or file, such as t2i-zoo study aids")
    path = find_study(file[0])
    chosen = Study.read(path)
    if minutes:
        chosen = replace(chosen, minutes=check_minutes(minutes, "--minutes"))
    for name in arms or ():
        if name not in chosen.arms:
            raise T2IError(f"found no arm {name} in {path}: name one of {', '.join(chosen.arms)}")
    folder = Path(out) if out else Path("runs") / "studies" / path.stem
    wanted = [(arm, seed) for seed in chosen.seeds for arm in arms or chosen.arms]
    if any(_left(chosen, _lines(folder, *each)) for each in wanted):
        chosen.check_scores()
    folder.mkdir(parents=True, exist_ok=True)
    failed, busy = [], False
    for arm, seed in wanted:
        try:
            with FileLock(folder / f"{arm}-{seed}.lock", timeout=0):
                if not run_arm(chosen, arm, seed, folder):
                    print("stopped; the same command goes on from here", flush=True)
                    return
        except Timeout:
            print(f"{arm}, seed {seed}: another process has it", flush=True)
            busy = True
        except _FailedError as error:
            print(f"{arm}, seed {seed}: {error}", flush=True)
            failed.append(f"{arm}-{seed}")
    if failed:
        raise T2IError(
            f"found {', '.join(failed)} that could not be trained or scored, as they say above: correct the study's "
            "file, or give them what they need, and repeat"
        )
    if not busy:
        print(f"everything is done: {folder / RESULTS}", flush=True)


class _FailedError(Exception):
    """An arm cannot go on, for the reason that this gives."""


def run_arm(chosen: Study, arm: str, seed: int, folder: Path) -> bool:
    """Train and score one arm as far as it is not done, and append a line for each of its times.

    Returns:
        False where it was stopped on the way.
    """
    root, lines, hashes = folder / f"{arm}-{seed}", _lines(folder, arm, seed), chosen.hashes(arm, seed)
    _keep_options(chosen, arm, seed, root, lines, hashes["options"])
    # lines of older versions have no hashes, and count as those of this file
    others = {name for line in lines for name, value in line.get("hashes", hashes).items() if value != hashes[name]}
    if others:
        named = " and ".join(sorted(others))
        note = (
            f"{RESULTS} has lines by other {named} than the file has now: rename the arm or change --out for new ones"
        )
        print(f"{arm}, seed {seed}: {note}", flush=True)
    for limit in _left(chosen, lines):
        used, budget = _used(root)
        if used >= limit and budget != limit:
            print(f"{arm}, seed {seed}: trained for {used:.1f} minutes already, too long for {limit:g}", flush=True)
            continue
        if used < limit:  # or it was trained, and then could not be scored
            _train(chosen.words(arm, seed), root, limit)
            if _used(root)[0] < limit:
                return False
        line = {"arm": arm, "seed": seed, "minutes": limit, **_scored(chosen, root, limit), "hashes": hashes}
        append_lines(folder / RESULTS, [line])
        print(json.dumps(line), flush=True)
    return True


def _scored(chosen: Study, root: Path, limit: float) -> dict[str, Any]:
    """Draw the grid of an arm at one of its times, and measure its scores."""
    run, scores, about = str(_checkpoints(root)[-1]), dict[str, float](), dict[str, Any]()
    try:
        sample(run, chosen.captions, out=str(root.parent / "grids" / f"{root.name}-{limit:g}.jpg"), overwrite=True)
        for options in chosen.scores:
            for found in evaluate([], run, out=str(root / "scores.jsonl"), **options):
                scores[_score_name(found)] = found["value"]
                about = {"batches": found["batches"], "versions": found["versions"]}
    except T2IError as error:
        raise _FailedError(str(error)) from error
    return {"scores": scores, **about}


def _lines(folder: Path, arm: str, seed: int) -> list[dict[str, Any]]:
    """The results that an arm has already."""
    return [line for line in read_lines(folder / RESULTS) if (str(line["arm"]), line["seed"]) == (arm, seed)]


def _left(chosen: Study, lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """The times at which an arm with these results is still to be scored."""
    return [limit for limit in sorted(chosen.minutes) if limit not in {line["minutes"] for line in lines}]


def _keep_options(chosen: Study, arm: str, seed: int, root: Path, lines: Sequence[Mapping[str, Any]], own: str) -> None:
    """Raise where an arm was trained with other options than it has now; else keep them beside its run."""
    now, path = json.loads(plain(chosen.options_of(arm, seed))), root / OPTIONS
    before = json.loads(path.read_text("utf-8")) if path.is_file() and _checkpoints(root) else now
    if before != now or any(line.get("hashes", {}).get("options", own) != own for line in lines):
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        named = ", ".join(f"{name} {plain(before[name])}" if name in before else f"no {name}" for name in changed)
        raise _FailedError(
            f"it was trained with other options{f' ({named})' if named else ''} than the file has now: rename the arm, "
            "change --out, or put them back"
        )
    if _left(chosen, lines):
        with replacing(path) as partial:
            partial.write_text(plain(now) + "\n", "utf-8")


def _train(words: Sequence[str], root: Path, minutes: float) -> None:
    budget = {"class_path": "t2i_zoo.callbacks.budget.ProcessorBudget", "init_args": {"minutes": minutes}}
    command = [sys.executable, "-m", "t2i_zoo", "fit", *words, "--trainer.default_root_dir", str(root)]
    command += ["--trainer.callbacks+", json.dumps(budget), "--trainer.max_epochs", "-1"]
    if _checkpoints(root):
        command += ["--ckpt_path", "last"]
    if run_to_end(command, {**os.environ, "OMP_NUM_THREADS": "1"}) not in (0, 130):
        raise _FailedError("it could not be trained")


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
