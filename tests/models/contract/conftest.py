"""Every GAN of the zoo, tiny, and data of the size that it draws."""

from __future__ import annotations

import functools
import runpy
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from t2i_zoo.models import list_models, model_class
from t2i_zoo.models.base import TextToImageGAN

# by its path, since other folders have modules of this name
TINY = runpy.run_path(str(Path(__file__).parents[2] / "conftest.py"))["TINY"]


def variants() -> list[str]:
    """The models and, behind a colon, further variants of them that ``TINY`` lists."""
    return [key for name in list_models("gan") for key in [name, *(k for k in TINY if k.startswith(f"{name}:"))]]


@pytest.fixture(params=variants())
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def name(variant: str) -> str:
    return variant.partition(":")[0]


@pytest.fixture
def options(variant: str, tiny_options: dict[str, Any], tiny_widths: Any) -> dict[str, Any]:
    """What makes the model under test tiny."""
    return {**tiny_options, **tiny_widths(variant)}


@pytest.fixture
def build(name: str, options: dict[str, Any]) -> Any:
    """``build(learning_rate=0.1)``: the model under test with seeded weights; the seed also rules the training."""

    def seeded(**changed: Any) -> TextToImageGAN:
        L.seed_everything(3, verbose=False)
        return model_class(name)(**{**options, **changed})

    return seeded


@pytest.fixture
def build_data(build_data: Any, options: dict[str, Any]) -> Any:
    """Three batches an epoch, of the size that the model under test draws or that tiny image networks look at."""
    return functools.partial(build_data, image_size=options.get("image_size", 32), batch_size=16)


@pytest.fixture
def tiny_data(build_data: Any) -> Any:
    return build_data()
