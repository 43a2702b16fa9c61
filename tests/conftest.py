"""One cache folder for the whole run, the network off, and tiny data, models and trainers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, before any fixture could set it
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too

import lightning as L
import pytest
import torch
from processes import two_ranks

from t2i_zoo.data import CaptionDataModule, SyntheticFlowers

torch.set_num_threads(1)

WORDS = {"image_size": 32, "condition_dim": 4, "generator_width": 4, "discriminator_width": 4, "residual_blocks": 1}
TINY_BACKBONE = {  # an image network that needs no weights from elsewhere
    **{"backbone": "torchvision:shufflenet_v2_x0_5", "backbone_weights": "random", "train_backbone": True},
    "input_size": 32,
}

#: of every model of the zoo, what makes it tiny where its options are not those of ``tiny_options``
TINY: dict[str, dict[str, Any]] = {
    "skipthought": {"word_dim": 6, "uni_dim": 5, "bi_dim": 4, "vocabulary_size": 60},
    "charcnnrnn": {
        **{"cnn_dim": 4, "dim": 12, "first_channels": 6, "second_channels": 5, "image_projection": True},
        **TINY_BACKBONE,
    },
    "damsm": {
        **{"backbone": "torchvision:shufflenet_v2_x0_5", "backbone_weights": "random", "train_backbone": True},
        **{"layer": "stage3", "input_size": 32, "dim": 12, "word_dim": 8},
    },
    "damsm:short": {
        **{"backbone": "torchvision:shufflenet_v2_x0_5", "backbone_weights": "random", "train_backbone": True},
        **{"layer": "stage3", "input_size": 32, "dim": 12, "word_dim": 8, "max_words": 4},  # some words by chance
    },
    "gancls": {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4},
    "gancls:light": {
        **{"projection_dim": 8, "generator_width": 4, "discriminator_width": 4},
        **{"architecture": "light", "light_discriminator": True},
    },
    "stackgan": {"condition_dim": 4, "generator_width": 4, "discriminator_width": 4},
    "stackgan:stage2": {
        **{"stage": 2, "stage1": "untrained", "image_size": 32, "residual_blocks": 1},
        **{"condition_dim": 4, "generator_width": 4, "discriminator_width": 4},
    },
    "tacgan": {"projection_dim": 8, "generator_width": 4, "discriminator_width": 4, "num_classes": 24},
    "tacgan:tracked": {
        **{"projection_dim": 8, "generator_width": 4, "discriminator_width": 4, "num_classes": 24},
        **{"batch_stats": "tracked"},
    },
    "attngan": {**WORDS, "damsm": None, "damsm_weight": 0.0},
    "attngan:dcgan": {**WORDS, "damsm_weight": 0.0, "last_only": True, "residual_blocks": 0, "mismatch": "class"},
    "mirrorgan": {**WORDS, "damsm": None, "stream": None, "stream_weight": 0.0},
    "dmgan": {**WORDS, "damsm": None, "damsm_weight": 0.0},
    "dfgan": {"damsm": None, "generator_width": 8, "discriminator_width": 8, "discriminator_learning_rate": 1e-3},
    "dfgan:preprint": {  # its penalty in a joint step, since the contract counts steps; the aids take a separate one
        **{"variant": "preprint", "generator_width": 4, "discriminator_width": 4, "image_size": 32},
        **{"discriminator_learning_rate": 1e-3, "penalty_step": "joint", "exclude_same_class": True},
    },
    "stream": {**TINY_BACKBONE, "embed_dim": 6, "hidden_dim": 8},
    "classifier": {**TINY_BACKBONE, "colour": 0.3, "scale": 0.6},  # which draw
    "stackganpp": {"image_size": 32, "condition_dim": 4, "generator_width": 8, "discriminator_width": 4},
    "stackganpp:unconditional": {
        **{"image_size": 32, "generator_width": 8, "discriminator_width": 4},
        **{"text_encoder": "none", "colour_weight": 50.0},
    },
}
#: training aids that go together, by group
AIDS: dict[str, dict[str, Any]] = {
    "bounded": {
        **{"adversarial_loss": "hinge", "spectral_norm": True, "augment": ["color", "translation", "cutout"]},
        **{"r1": 2.0, "beta2": 0.9},
    },
    "paired": {
        **{"adversarial_loss": "relativistic", "r1": 0.5, "r2": 0.5, "matching_penalty": 2.0, "penalty_every": 2},
        **{"penalty_step": "separate", "augment": ["translation"], "augment_target": 0.6, "ema_half_life": 100.0},
    },
    "projected": {
        "projected": {
            **{"network": "efficientnet_lite0", "weights": "random", "width": 8, "channels": 4, "batch_std": True},
        },
        **{"adversarial_loss": "relativistic_average", "lecam": 0.1, "mode_seeking": 0.1, "channels_last": True},
    },
}
FLOWERS = {"images": 64, "size": 24}  # 64 drawn flowers: 48 or so to train on, half a second to draw


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores, encoded captions and drawn flowers of this run; nothing touches the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["T2I_ZOO_CACHE"] = str(folder)
    return folder


@pytest.fixture
def tiny_options() -> dict[str, Any]:
    """What every model takes, small."""
    return {"image_size": 16, "noise_dim": 4, "text_encoder": {"kind": "hashing", "dim": 32}, "learning_rate": 1e-3}


@pytest.fixture(scope="session")
def tiny_widths() -> Any:
    """``tiny_widths("gancls")``: the options that make one model tiny."""

    def widths(name: str) -> dict[str, Any]:
        if name not in TINY:
            pytest.fail(f"the model {name!r} is listed but has no line in TINY of {__file__}: add its widths")
        return TINY[name]

    return widths


def build_data(split: Literal["class_disjoint", "random"] = "class_disjoint", **options: Any) -> CaptionDataModule:
    source = SyntheticFlowers(**FLOWERS, split=split)
    return CaptionDataModule(source, **{"image_size": 16, "batch_size": 8, **options})


@pytest.fixture(name="build_data", scope="session")
def build_data_fixture() -> Any:
    """``build_data(batch_size=4)``: a new data module over the same 64 flowers."""
    return build_data


@pytest.fixture
def tiny_data() -> CaptionDataModule:
    return build_data()


def build_trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    plain = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "log_every_n_steps": 1, "limit_val_batches": 0}
    callbacks = options.pop("callbacks", [])
    checkpoints = {"enable_checkpointing": any(isinstance(c, L.pytorch.callbacks.Checkpoint) for c in callbacks)}
    return L.Trainer(default_root_dir=folder, callbacks=callbacks, **{**quiet, **plain, **checkpoints, **options})


@pytest.fixture(name="build_trainer")
def build_trainer_fixture(tmp_path: Path) -> Any:
    """``build_trainer(max_epochs=2)``: a quiet Trainer on one CPU in this test's folder."""
    return lambda **options: build_trainer(options.pop("folder", tmp_path), **options)


@pytest.fixture(name="two_ranks", scope="session")
def two_ranks_fixture() -> Any:
    """``two_ranks(script, folder)``: what both processes of a script wrote down."""
    return two_ranks
