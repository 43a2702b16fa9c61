"""What a run was started with, in its folder: ``config.yaml`` and ``environment.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import SaveConfigCallback

from t2i_zoo.files import replacing
from t2i_zoo.loggers import tell_config
from t2i_zoo.runs import ENVIRONMENT, FINISHED, environment


class SaveConfig(SaveConfigCallback):
    """Save the resolved config as ``config.yaml`` in the run's folder, from which ``fit --config`` repeats the run.

    Commands other than ``fit`` take other options, so each of them writes its own file beside it. A resumed run keeps
    its files until its training goes on: a resume that fails must not change what they say.
    """

    _resumes = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Save on rank zero, under the name of the command."""
        self.config_filename = "config.yaml" if stage == "fit" else f"config_{getattr(stage, 'value', stage)}.yaml"
        self.config = self.config.clone()
        if "ckpt_path" in self.config:
            self._resumes = stage == "fit" and self.config["ckpt_path"] is not None
            self.config["ckpt_path"] = None
        if not self._resumes:
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Save that of a resumed run, which is no longer finished."""
        if self._resumes:
            super().setup(trainer, pl_module, "fit")
            (Path(str(trainer.log_dir)) / FINISHED).unlink(missing_ok=True)

    def save_config(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give it to the other loggers too, and note in the run's folder what it is started with."""
        if stage == "fit":
            about = json.dumps(environment(trainer.strategy.root_device, trainer.world_size), indent=1)
            with replacing(Path(trainer.loggers[0].log_dir) / ENVIRONMENT) as partial:
                partial.write_text(about + "\n", "utf-8")
        for logger in trainer.loggers[1:]:
            tell_config(logger, self.parser.dump(self.config, skip_none=False))
