"""Training and evaluation from Python, with the configs and options of the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2i_zoo.metrics.records import Line

Options = Mapping[str, Any]  #: such as ``{"trainer.max_epochs": 3}``, for ``--trainer.max_epochs 3``


def fit(config: str | Path, options: Options | None = None) -> Path:
    """Train a config, as ``t2i-zoo fit --config CONFIG`` does; the progress bar is for terminals, or if options ask.

    Args:
        config: name of a packaged config, or the path of a YAML file.
        options: of ``fit`` by name, without the dashes: ``{"data.source.root": "data/my_pictures"}``.

    Returns:
        Folder of the run, for ``load_model`` and ``evaluate``.

    Raises:
        T2IError: for whatever ``fit`` refuses.
    """
    from t2i_zoo.cli import build
    from t2i_zoo.overview import check_flags

    quiet = {"trainer.enable_progress_bar": sys.stderr.isatty(), "trainer.enable_model_summary": False}
    words = _words(quiet | dict(options or {}))
    check_flags(words)
    return build(["fit", "--config", str(config), *words]).folder


def evaluate(run: str | Path, protocol: str, data: Options | None = None, **options: Any) -> list[Line]:
    """Score a run by a named protocol, as ``t2i-zoo evaluate`` does, and print the table.

    Args:
        run: what ``--ckpt`` takes: a file, the folder of a run, or the name of a generator that comes with the package.
        protocol: name of a packaged protocol, or the path of a YAML file.
        data: options of the data by name; by default those of the run's own config.
        options: of ``evaluate`` by name, such as ``images=200``.

    Returns:
        One dict for each score, with everything that it depends on.

    Raises:
        T2IError: for whatever ``evaluate`` refuses.
    """
    from t2i_zoo.commands.evaluate import evaluate as score

    return score(_words(data), str(run), protocol, **options)


def leaderboard(*runs: str | Path, protocol: str, data: Options | None = None, **options: Any) -> Path:
    """Compare runs by a named protocol, as ``t2i-zoo leaderboard`` does.

    Args:
        runs: as ``evaluate`` takes them.
        protocol: as ``evaluate`` takes it.
        data: options of the data by name; by default those of each run's own config.
        options: of ``leaderboard`` by name, such as ``out="board"``.

    Returns:
        Path of the page; ``leaderboard.md`` and ``leaderboard.csv`` are beside it.

    Raises:
        T2IError: for whatever ``leaderboard`` refuses.
    """
    from t2i_zoo.commands.leaderboard import leaderboard as compare

    return compare(*map(str, runs), words=_words(data), protocol=[protocol], **options)


def _words(options: Options | None) -> list[str]:
    """Options as words of the command line; all but text as JSON, which is YAML too."""
    pairs = (
        (name, value if isinstance(value, str | Path) else json.dumps(value)) for name, value in (options or {}).items()
    )
    return [word for name, value in pairs for word in (f"--{name}", str(value))]
