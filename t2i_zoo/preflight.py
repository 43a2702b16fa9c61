"""What ``fit`` looks for before it builds a model: the runs that it builds on, data, and options of checkpoints."""

from __future__ import annotations

import math
import pkgutil
from pathlib import Path
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.hub import is_address
from t2i_zoo.parsing import named_model, packaged_configs
from t2i_zoo.paths import shipped_generators


def preflight(config: Any) -> None:
    """Raise where a run could not start, or would end without what its options ask for.

    Args:
        config: the parsed options of ``fit``.

    Raises:
        T2IError: with the command that makes what is missing.
    """
    given = [Path(str(path)).stem for path in config.get("config") or []]
    name = next((stem for stem in reversed(given) if stem in packaged_configs()), "")
    _check_runs(config, name)
    _check_source(config.data.source, name)
    _check_checkpoint(config.get("checkpoint") or {}, config.trainer)


def _check_runs(config: Any, name: str) -> None:
    options = config.model.init_args.as_dict()
    for option in named_model(config.model.class_path).builds_on:
        place = options.get(option)
        unused = option != "damsm" and options.get(f"{option}_weight") == 0
        if not place or place == "untrained" or unused or Path(place).expanduser().exists():
            continue
        if place in shipped_generators() or is_address(place):
            continue
        before = Path(place).name
        alone = f"t2i-zoo fit --config {before} trains it alone" if before in packaged_configs() else ""
        first = f"t2i-zoo pipeline {name} trains it first" if name and alone else ""
        remedy = ", ".join(filter(None, [first, alone])) or "train one and give its run there"
        raise T2IError(f"--model.{option} {place} is not there: {remedy}")


def _check_source(chosen: Any, name: str) -> None:
    """Raise for a data set whose folder is missing; built-in, streamed and hub data have none of their own."""
    source = pkgutil.resolve_name(chosen.class_path)(**chosen.get("init_args", {}))
    if not hasattr(source, "download") or source.download or source.path.is_dir():
        return
    try:
        source.records()
    except T2IError as error:
        family = name.rpartition("_")[0]
        other = f"{family}_synthetic" if f"{family}_synthetic" in packaged_configs() else "gancls_synthetic"
        raise T2IError(
            f"{error}; t2i-zoo prepare --config {name or 'NAME'} --data.source.download true downloads what can be "
            f"downloaded, and t2i-zoo fit --config {other} needs no data"
        ) from error


def _check_checkpoint(options: Any, trainer: Any) -> None:
    """Raise for a monitor that nothing logs, or that is looked at in no epoch of the run."""
    monitor = options.get("monitor")
    if monitor and monitor.partition("/")[0] not in ("train", "val"):
        raise T2IError(
            f"found --checkpoint.monitor {monitor}, which nothing logs: expected a name in the head of metrics.csv, "
            "such as val/generator_loss"
        )
    epochs, every = trainer.get("max_epochs"), trainer.get("check_val_every_n_epoch") or 1
    asked = math.lcm(options.get("every_n_epochs") or 1, every)
    if monitor and monitor.startswith("val/") and epochs is not None and 0 <= epochs < asked:
        raise T2IError(
            f"found --checkpoint.monitor {monitor} and --trainer.max_epochs {epochs}, but validation and a checkpoint "
            f"come together only every {asked} epochs: lower --trainer.check_val_every_n_epoch, now {every}"
        )
