"""Processes that tests start: forks of one server, which has imported what takes seconds to import."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HANGS = 900  #: seconds until a process counts as hanging; no test waits for them otherwise
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["torch", "torchvision", "lightning", "lightning.pytorch", "t2i_zoo.cli", "t2i_zoo.data"])


def _child(words: Sequence[str], environment: Mapping[str, str], folder: str, log: str | None) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    importlib.import_module("torch").set_num_threads(1)
    # Lightning reads the rank when it is imported, and that was in the server
    rank_zero = importlib.import_module("lightning.fabric.utilities.rank_zero")
    rank_zero.rank_zero_only.rank = int(environment.get("LOCAL_RANK", "0"))
    sys.path[:0] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    if words[0] == "-m":
        main = importlib.import_module(f"{words[1]}.__main__").main
        raise SystemExit(main(words[2:]))
    sys.argv = list(words)
    runpy.run_path(words[0], run_name="__main__")


class Process:
    """``python WORDS``, where these are a script or ``-m t2i_zoo``, each followed by its arguments.

    Args:
        words: without the name of the interpreter.
        log: file that its output goes to; None leaves it where this process's goes.
        more: further variables of its environment.
    """

    def __init__(self, words: Sequence[str], log: Path | None = None, **more: str) -> None:
        place = None if log is None else str(log)
        arguments = (list(words), {**os.environ, **more}, str(Path.cwd()), place)
        self._process = _FORKS.Process(target=_child, args=arguments)
        self._process.start()

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        self._process.join(HANGS)
        code = self._process.exitcode
        self.kill()
        assert code is not None, f"it did not end within {HANGS} seconds"
        return code

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


def two_ranks(script: str, folder: Path) -> list[dict[str, Any]]:
    """What two processes of ``script FOLDER``, which are the ranks of one run, wrote to ``FOLDER/rank_N.pt``."""
    import torch

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
    logs = [folder / f"rank_{rank}.log" for rank in range(2)]
    words = [script, str(folder)]
    processes = [Process(words, log, LOCAL_RANK=str(rank), **place) for rank, log in enumerate(logs)]
    try:
        for process, log in zip(processes, logs, strict=True):
            assert process.wait() == 0, log.read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
