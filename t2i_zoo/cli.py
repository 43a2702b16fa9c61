"""``t2i-zoo fit | validate | test | predict``: LightningCLI with our callbacks, run folders and resuming in place."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from t2i_zoo import data
from t2i_zoo.callbacks import GracefulStop, PredictionWriter, further_checkpoints
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.errors import T2IError
from t2i_zoo.loggers import Choice, finish, further_loggers
from t2i_zoo.mistakes import own_error
from t2i_zoo.models import MODELS, model_class
from t2i_zoo.models.aids import AidedModule
from t2i_zoo.models.optimization import NOT_FOR_TWO_OPTIMIZERS
from t2i_zoo.models.state import check_options, read_checkpoint
from t2i_zoo.models.zoo import ZooModule, different_sizes
from t2i_zoo.overview import CALLBACKS, SINGLE, one_size
from t2i_zoo.parsing import Sentence, named_model
from t2i_zoo.preflight import preflight
from t2i_zoo.quiet import quieten
from t2i_zoo.run_files import AtomicCheckpointIO, RunLogger, check_local
from t2i_zoo.runs import (
    check_no_overrides,
    check_resumable,
    default_options,
    is_complete,
    lock,
    note_finished,
    remove_failed_start,
    resolve_checkpoint,
    run_of_checkpoint,
)
from t2i_zoo.saved_config import SaveConfig


class _Parser(Sentence, LightningArgumentParser):
    """Lightning's parser with our sentences."""


class ZooCLI(LightningCLI):
    """Lightning's CLI for every model of the zoo and every source of captioned images.

    Args:
        verb: the command that is run, for which alone a parser is built; None without one.
        options: of ``LightningCLI``.
    """

    def __init__(self, *given: Any, verb: str | None = None, **options: Any) -> None:
        self.verb = verb
        super().__init__(*given, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that is run: a parser of each of the four would take a third of a small run's time."""
        return {name: skip for name, skip in LightningCLI.subcommands().items() if name == self.verb}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add ``--logger``, and ``--samples.*``, ``--watch.*``, ``--resume.*`` and ``--checkpoint.*``."""
        parser.add_argument("--logger", type=Choice | None, default=None, help=SINGLE["logger"].partition("|")[2])
        for name, path in CALLBACKS.items():
            parser.add_lightning_class_args(pkgutil.resolve_name(path), name)
        parser.set_defaults(
            {
                "checkpoint.save_top_k": 0,
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.save_on_train_epoch_end": True,
                "checkpoint.enable_version_counter": False,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Complete ``--checkpoint.*``, and look for what a run needs before a large model is built for nothing."""
        if self.complete:
            return
        config = self.config[self.subcommand] if self.subcommand else self.config
        if self.subcommand is not None:
            preflight(config)
        further_checkpoints(config.checkpoint)

    def instantiate_classes(self) -> None:
        """Build all parts of a run that has something left to train."""
        if not self.complete:
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        if not self.complete:
            super()._run_subcommand(subcommand)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.run_folder if self.complete and self.run_folder else Path(str(self.trainer.loggers[0].log_dir))

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint and compare it with the config, where Lightning would silently prefer the checkpoint."""
        self.complete = False  #: whether the run that is to be resumed has nothing left to train
        self.run_folder: Path | None = None
        self.resumed: dict[str, int] | None = None  #: epoch and batches of the checkpoint in that folder
        if "subcommand" not in self.config:
            return
        command = self.config["subcommand"]
        config = self.config[command]
        if config.trainer.default_root_dir is None:
            named = config.config[0] if config.get("config") else None
            name = Path(str(named)).stem if named else config.model.class_path.rpartition(".")[2].lower()
            config.trainer.default_root_dir = str(Path("runs") / name)
        if command == "predict" and config.return_predictions is None:
            config.return_predictions = False  # the images go to files; a large set would not fit into memory
        wish, root = config.get("ckpt_path"), Path(config.trainer.default_root_dir)
        try:
            path = resolve_checkpoint(wish, root) if wish else None
        except T2IError as error:
            if command == "fit" or wish != "last":
                raise
            raise T2IError(
                f"found no checkpoint in {root} for {command} to use: train one with t2i-zoo fit, or give a .ckpt file"
            ) from error
        if path is not None:
            kind, asked = named_model(config.model.class_path), config.model.init_args.as_dict()
            starts = kind.starting_points
            check_resumable(wish, path, command)
            checkpoint, may_change = read_checkpoint(path), (*starts, *kind.builds_on, "compile")
            check_options(path, checkpoint, kind)
            saved = checkpoint["hyper_parameters"]
            check_no_overrides(saved, asked, path, may_change, default_options(kind), resumes=command == "fit")
            for name in starts:  # they no longer matter, and may be deleted
                if name in config.model.init_args:
                    config.model.init_args[name] = None
            if (folder := run_of_checkpoint(path)) is not None:
                self.run_folder = folder
                self.resumed = {"epoch": checkpoint["epoch"], "batches": checkpoint["t2i_zoo"]["clock"]}
            if command == "fit":
                limits = config.trainer.max_epochs, config.trainer.max_steps
                self.complete = is_complete(checkpoint, path, folder, *limits)
        elif command != "fit" and not config.model.init_args.get("weights"):
            raise T2IError(
                f"found no --ckpt_path, so {command} would use an untrained model: give a .ckpt file, the folder of a "
                "run, or last for the newest run of this config"
            )
        config.ckpt_path = str(path) if path is not None else None

    def fit(self, **options: Any) -> None:
        """Train in a folder that no other process trains in; a start that fails leaves none behind."""
        self._in_folder(self.trainer.fit, options)

    def validate(self, **options: Any) -> None:
        """Validate, and write that down as of the epoch that the checkpoint is of; ``test`` does too."""
        self._in_folder(self.trainer.validate, options)

    def test(self, **options: Any) -> None:
        """Test."""
        self._in_folder(self.trainer.test, options)

    def predict(self, **options: Any) -> None:
        """Draw the test split."""
        self._in_folder(self.trainer.predict, options)

    def _in_folder(self, call: Any, options: dict[str, Any]) -> None:
        trains, held = self.subcommand == "fit", None
        if self.resumed is not None and not trains:  # Lightning would say epoch 0, step 0
            loop = self.trainer.fit_loop
            loop.epoch_progress.current.completed = self.resumed["epoch"]
            loop.epoch_loop._batches_that_stepped = max(self.resumed["batches"] - 1, 0)
        if not self.trainer.is_global_zero or getattr(self.trainer, "fast_dev_run", False):
            call(**options)
            return
        folder = self.trainer.loggers[0].claim()  # type: ignore[attr-defined]
        further = further_loggers(self.config[self.subcommand].get("logger"), folder)
        self.trainer.loggers = [*self.trainer.loggers, *further]
        try:
            held = lock(folder) if trains else None
            call(**options)
        except BaseException as error:
            if self.run_folder is None:
                remove_failed_start(folder)
            if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None  # which Lightning turns into an exit with 1
            raise
        finally:
            finish(further)
            if held is not None:
                held.release()

    def after_fit(self) -> None:
        """Note in the run's folder that it is finished; a stopped run does not reach this."""
        if self.trainer.is_global_zero and not getattr(self.trainer, "fast_dev_run", False):
            note_finished(self.folder, self.trainer.current_epoch, self.model.clock)

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A Trainer with CSV metrics in the run's folder, whole checkpoints, and defaults for the devices."""
        config = self._get(self.config_init, "trainer")
        check_local(str(config["default_root_dir"]))
        for option, (default, remedy) in NOT_FOR_TWO_OPTIMIZERS.items():
            if isinstance(self.model, AidedModule) and config.get(option, default) != default:
                raise T2IError(f"found --trainer.{option}, which does not work with two optimizers: {remedy}")
        folder = self.run_folder
        batches = self.resumed["batches"] if self.resumed and self.subcommand == "fit" else None
        own = RunLogger(folder.parent, folder.name, batches) if folder else RunLogger(config["default_root_dir"])
        asked = config.get("logger")
        loggers = [own, *([] if asked in (None, True, False) else _listed(asked))]
        callbacks = [GracefulStop(), *_listed(config.get("callbacks") or [])]
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter())
        if config.get("enable_progress_bar") is not False:
            callbacks.append(RichProgressBar(refresh_rate=10))  # times a second: nobody sees more
        plugins = [*(config.get("plugins") or []), AtomicCheckpointIO()]
        options = {"logger": loggers, "callbacks": callbacks, "plugins": plugins, **_for_devices(config), **kwargs}
        try:
            return super().instantiate_trainer(**options)
        except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
            if (own_mistake := own_error(error)) is not None:
                raise own_mistake from error
            if any(phrase in str(error) for phrase in ("backend found", "can not run on your system")):
                device = config["accelerator"]
                raise T2IError(f"found no device for --trainer.accelerator {device}: use cpu, or auto") from error
            raise T2IError(f"wrong --trainer options: {' '.join(str(error).split())}") from error


def _for_devices(config: Any) -> dict[str, Any]:
    """Precision, cuDNN's search and strategy that suit the devices, where the config leaves them open."""
    gpus = config["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    options: dict[str, Any] = {"precision": "bf16-mixed"} if gpus and not config.get("precision") else {}
    if gpus and config.get("benchmark") is None and not config.get("deterministic"):
        options["benchmark"] = True  # a process may find other algorithms: resuming is then not equal bit for bit
    asked, there = config["devices"], torch.cuda.device_count() if gpus else 1
    count = there if asked in ("auto", -1, "-1") else len(asked) if isinstance(asked, list) else asked
    if config.get("strategy") == "auto" and (str(count) != "1" or config["num_nodes"] != 1):
        options["strategy"] = "gan_ddp"
    return options


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def build(args: Sequence[str], run: bool = True, cli: type[ZooCLI] = ZooCLI) -> ZooCLI:
    """Parse a command line that begins with ``fit`` or another subcommand, and run it.

    Args:
        args: words of the command line.
        run: False parses a command line without a subcommand, and only builds model, data and trainer.
        cli: what parses and runs.
    """
    for name in MODELS:  # imported, so that a config may use the bare names of classes
        model_class(name)
    for name in data.SOURCES:
        getattr(data, name)
    torch.set_float32_matmul_precision("high")
    quieten()
    verb, words = (args[0], args[1:]) if run else (None, args)
    return cli(
        ZooModule,
        CaptionDataModule,
        save_config_callback=SaveConfig,
        save_config_kwargs={"overwrite": True},
        seed_everything_default=0,
        subclass_mode_model=True,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        parser_class=_Parser,
        args=[*([verb] if verb else []), *one_size(words)],
        run=run,
        verb=verb,
        parser_kwargs={"prog": "t2i-zoo"},
    )


class Check(ZooCLI):
    """Parses and checks a command line, and runs nothing.

    The model is built without its weights, and without the runs and files that it starts from or looks at, which the
    steps before it may yet have to train.
    """

    def _parse_ckpt_path(self) -> None:
        """Look for no checkpoint."""
        self.complete = False

    def before_instantiate_classes(self) -> None:
        """Look for no runs and no data."""

    def _set_seed(self) -> None:
        """Leave the random numbers alone."""

    def instantiate_classes(self) -> None:
        """Build what checks its options when it is built: the model, the source and the data module."""
        config = self.config[self.subcommand]
        kind, options = named_model(config.model.class_path), config.model.init_args.as_dict()
        later: dict[str, Any] = {name: None for name in (*kind.starting_points, *kind.builds_on) if name in options}
        encoder = options.get("text_encoder")
        if (encoder.get("kind") if isinstance(encoder, dict) else encoder) not in (None, "none", "hashing"):
            later["text_encoder"] = "hashing"
        if options.get("stage1"):
            later["stage1"] = "untrained"
        with torch.device("meta"):
            model = kind(**{**options, **later})
        if isinstance(model, AidedModule):
            model.check_training_options()
        given = config.data.as_dict()
        source = given.pop("source")
        built = pkgutil.resolve_name(source["class_path"])(**source.get("init_args", {}))
        module = CaptionDataModule(built, **given)
        if (size := model.hparams.get("image_size", module.image_size)) != module.image_size:
            raise T2IError(different_sizes(size, module.image_size))

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""


def check(args: Sequence[str]) -> None:
    """Parse and check a command line that begins with ``fit``, as far as it goes without reading data or training.

    Raises:
        T2IError: for the first mistake.
    """
    build(args, cli=Check)


def main(args: Sequence[str]) -> None:
    """Parse and run; ``args`` begins with the subcommand."""
    build(args)
