"""Loggers beside ``metrics.csv`` by the flag ``--logger``: Weights & Biases, and TensorBoard."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import torch
import yaml  # type: ignore[import-untyped]
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from requests.utils import get_netrc_auth
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.pictures import to_pil
from t2i_zoo.version import __version__

Choice = Literal["wandb", "tensorboard", "csv", "none"]


def further_loggers(choice: Choice | None, run: Path) -> list[Logger]:
    """The logger of ``--logger``, which writes into the folder of a run.

    A resumed run goes on with its own record. Without key or network that of wandb stays offline, which is said.

    Args:
        choice: ``csv``, ``none`` and None are no further logger, since ``metrics.csv`` is always written.
        run: folder of the run, which exists.

    Raises:
        T2IError: for wandb without a writable place for its files.
    """
    if choice == "tensorboard":
        return [TensorBoardLogger(run, name="", version="tensorboard", default_hp_metric=False)]
    if choice != "wandb":
        return []
    reason = None if "WANDB_MODE" in os.environ else _why_offline()
    if reason is not None:
        sync = f"wandb sync {run / 'wandb'}/offline-run-*"
        print(f"note: found no {reason}, so wandb logs offline: {sync} uploads it later")
    records = sorted(run.glob("wandb/*run-*-*"), key=lambda path: path.stat().st_mtime)
    key = records[-1].name.rpartition("-")[2] if records else None
    mode: dict[str, Any] = {} if reason is None else {"mode": "offline"}
    project = os.environ.get("WANDB_PROJECT", "t2i-zoo")
    try:
        return [WandbLogger(f"{run.parent.name}/{run.name}", save_dir=run, id=key, project=project, **mode)]
    except ModuleNotFoundError as error:
        raise T2IError(f"found no wandb ({error}), expected it for --logger wandb: pip install wandb") from error


def _why_offline() -> str | None:
    """What is missing to log online, key or network; None if nothing is."""
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    if not os.environ.get("WANDB_API_KEY") and get_netrc_auth(server) is None:
        return "key (wandb login)"
    address = urlsplit(server)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=5).close()
    except OSError:
        return f"connection to {server}"
    return None


def tell_config(logger: Logger, config: str) -> None:
    """Give a logger the whole config of the run, as YAML, and the versions of the code."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("config", f"t2i-zoo {__version__}\n\n```yaml\n{config}```")
    elif isinstance(logger, WandbLogger):
        versions = {"t2i_zoo": __version__, "torch": torch.__version__}
        logger.log_hyperparams({"config": yaml.safe_load(config), "versions": versions})


def show(logger: Any, kind: str, page: Any, captions: Sequence[str], rows: Sequence[Tensor], step: int) -> None:
    """Give a page of samples to a logger that takes images; wandb also gets a table with a row for each caption.

    Args:
        logger: any; one that takes no images is passed over.
        kind: name of the page.
        page: a PIL image.
        captions: of the rows.
        rows: each (n, 3, S, S) in [-1, 1]; none for a page without a table.
        step: number of batches.
    """
    board: Any = getattr(logger, "experiment", None)
    if isinstance(logger, WandbLogger):
        import wandb

        logger.log_image(kind, [page], step=step, caption=["\n".join(captions)])
        if rows:
            strips = [to_pil(torch.cat(list(row), -1)[None])[0] for row in rows]
            data = [[step, text, wandb.Image(strip)] for text, strip in zip(captions, strips, strict=True)]
            logger.log_table(f"{kind}_by_caption", columns=["batches", "caption", "images"], data=data, step=step)
    elif hasattr(logger, "log_image"):
        logger.log_image(kind, [page], step=step)
    elif hasattr(board, "add_image"):
        pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8)
        board.add_image(kind, pixels.reshape(page.height, page.width, 3), step, dataformats="HWC")


def finish(loggers: Sequence[Logger]) -> None:
    """End the records of this run: another of the same process would go on in that of wandb."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger.experiment.finish()
