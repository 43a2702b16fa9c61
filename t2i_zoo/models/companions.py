"""Frozen networks of other runs or files that a model's losses use and that its checkpoint does not hold.

A DAMSM, a STREAM, the vision network under a projected discriminator: they would be most of the file, and sampling does
not need them. A resumed run reads them again and compares a hash of their weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model, state
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.paths import experiments_folder


class CompanionModule(ZooModule):
    """A model with companions, named as the options that give them."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: dict[str, nn.Module] = {}  # a dict, so that they are no submodules
        self._digests: dict[str, str] = {}

    def take(self, name: str, method: str, otherwise: str) -> None:
        """Load the run that the option ``name`` gives, once.

        Args:
            name: of the option, which is also the name of the model it expects.
            method: that the run's model must have.
            otherwise: what a user can do instead of giving a run.

        Raises:
            T2IError: if there is no such run, or it holds another kind of model.
        """
        if name in self._frozen:
            return
        if not (path := self.hparams[name]):
            raise T2IError(f"found no --model.{name}: {_how_to_make(name)} and give its run there, {otherwise}")
        require_run(path, name)
        model = load_model(path)
        if not hasattr(model, method):
            raise T2IError(f"--model.{name} {path} holds a {type(model).__name__}: {_how_to_make(name)}")
        self.adopt(name, lambda: model)

    def adopt(self, name: str, build: Callable[[], nn.Module]) -> None:
        """Build a network and keep it as a frozen companion, unless there is one of this name already."""
        if name not in self._frozen:
            network = build()
            self._digests[name] = state.digest(network)
            self._frozen[name] = network.requires_grad_(False).eval()

    def frozen(self, name: str) -> Any:
        """The companion of this name, on this model's device."""
        network = self._frozen[name]
        return network if next(network.parameters()).device == self.device else network.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the hashes of the companions."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["t2i_zoo"]["companions"] = self._digests

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the hashes with those of the companions loaded so far."""
        super().on_load_checkpoint(checkpoint)
        own, saved = self._digests, checkpoint["t2i_zoo"].get("companions", {})
        self._digests = {**own, **saved}
        if differing := [name for name in own if self._digests[name] != own[name]]:
            raise T2IError(
                f"--model.{differing[0]} {self.hparams[differing[0]]} holds other weights than this run began with: "
                "give those, or start a new run with --model.weights"
            )


def _how_to_make(name: str, path: str = "") -> str:
    """The command that trains a run, by the config that its path is named after, if there is one."""
    own = Path(path).name
    config = own if path and (experiments_folder() / f"{own}.yaml").is_file() else f"{name}_flowers"
    return f"train one, as `t2i-zoo fit --config {config}` does"


def require_run(path: str, name: str) -> None:
    """Raise if the run that an option names is missing."""
    if not Path(path).expanduser().exists():
        raise T2IError(
            f"--model.{name} {path} is not there: {_how_to_make(name, path)}, or let `t2i-zoo pipeline CONFIG` train "
            "all that a config builds on"
        )


def reader(text_encoder: str | dict[str, Any] | None, damsm: str | None) -> str | dict[str, Any]:
    """The text encoder that the options ``text_encoder`` and ``damsm`` choose together."""
    if not damsm:
        return text_encoder or "hashing"
    kind = text_encoder.get("kind") if isinstance(text_encoder, dict) else text_encoder
    if kind not in (None, "rnn"):
        raise T2IError(
            f"found --model.text_encoder {kind} beside --model.damsm, whose own text encoder reads the captions: leave "
            "--model.text_encoder out, or set --model.damsm null"
        )
    options = text_encoder if isinstance(text_encoder, dict) else {}
    if (path := options.get("path") or damsm) != damsm:
        raise T2IError(
            f"found --model.text_encoder of {path} beside --model.damsm {damsm}, whose text encoder reads the "
            "captions: leave the path out, or give both the same"
        )
    require_run(damsm, "damsm")
    return {"kind": "rnn", **options, "path": damsm}
