"""Numbers out of range and misspelt arguments are one sentence, from Python as on the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest
import torch

from t2i_zoo.callbacks import SampleGrid
from t2i_zoo.data import CaptionDataModule, SyntheticFlowers
from t2i_zoo.data.base import BaseDataModule
from t2i_zoo.errors import T2IError
from t2i_zoo.models import MODELS, load_model, model_class
from t2i_zoo.models.gancls import GANCLS
from t2i_zoo.ranges import Count, Fraction, Positive, Range, Share, Sign, Weight, Whole, ranges_of

EXEMPT = {"load_size"}  #: numbers that are compared with others where they are used


@pytest.mark.parametrize("name", [*MODELS, "data", "samples"])
def test_every_number_has_a_range(name: str) -> None:
    cls = {"data": BaseDataModule, "samples": SampleGrid}.get(name) or model_class(name)
    ranges = ranges_of(cls)
    for each in cls.__mro__:
        if "__init__" in vars(each) and each.__module__.startswith("t2i_zoo"):
            for option, hint in get_type_hints(vars(each)["__init__"]).items():
                number = {int, float} & {hint, *get_args(hint)}
                assert not number or option in ranges or option in EXEMPT, option


@pytest.mark.parametrize("name", MODELS)
def test_a_number_out_of_range_is_refused_by_every_model(name: str) -> None:
    cls = model_class(name)
    for option, (allowed, optional) in ranges_of(cls).items():
        wrong: list[Any] = [math.nan, math.inf, -2, "3", True, *([] if optional else [None])]
        for value in wrong:
            with pytest.raises(T2IError, match=f"found --model.{option} {value}, expected {allowed.words}"):
                cls(**{option: value})


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (Count, [1, 9], [0, -1]),
        (Whole, [0, 9], [-1]),
        (Weight, [0, 0.5], [-0.1]),
        (Positive, [1e-9, 3], [0]),
        (Fraction, [0, 0.99], [1, -0.1]),
        (Share, [0.1, 1], [0, 1.1]),
        (Sign, [-1, 0, 1], [1.1]),
    ],
)
def test_the_ends_of_ranges(kind: Any, inside: list[float], outside: list[float]) -> None:
    (allowed,) = kind.__metadata__
    assert isinstance(allowed, Range)
    assert all(map(allowed.holds, inside))
    assert not any(map(allowed.holds, outside))


def test_a_range_of_a_subclass_precedes() -> None:
    class Free(GANCLS):
        def __init__(self, *, noise_dim: int = -3, **options: Any) -> None:
            super().__init__(**options)

    assert "noise_dim" not in ranges_of(Free)
    assert "noise_dim" in ranges_of(GANCLS)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("learning_rat", "did you mean learning_rate?"), ("zebra", r"help\(GANCLS\) lists what there is")],
)
def test_an_unknown_argument(name: str, sentence: str) -> None:
    with pytest.raises(T2IError, match=f"found no option '{name}' of GANCLS: {sentence}"):
        GANCLS(**{name: 1})


def test_a_class_of_your_own_takes_what_it_likes(tiny_options: dict[str, Any]) -> None:
    class Mine(GANCLS):
        def __init__(self, **options: Any) -> None:
            self_made = options.pop("zebra")
            super().__init__(**options)
            self.zebra = self_made

    assert Mine(zebra=3, generator_width=8, discriminator_width=4, **tiny_options).zebra == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "found --data.seed -1, expected 0 or more"),
        ({"batch_size": 0}, "found --data.batch_size 0, expected at least 1"),
    ],
)
def test_numbers_of_the_data(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        CaptionDataModule(SyntheticFlowers(), **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rows": -1}, "found --samples.rows -1, expected at least 1"),
        ({"captions": []}, r"found --samples.captions \[\], expected"),
        ({"captions": ["a", " "]}, "found --samples.captions"),
    ],
)
def test_numbers_of_the_grid(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        SampleGrid(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"penalty_every": 4}, "found --model.penalty_every 4, which does nothing without --model.r1"),
        ({"penalty_step": "joint"}, "found --model.penalty_step joint, which does nothing without"),
        ({"matching_power": 4.0}, "matching_power 4.0, which does nothing without --model.matching_penalty"),
        ({"matching_power": 4.0, "r1": 1.0}, "matching_power 4.0, which does nothing"),
    ],
)
def test_options_of_penalties_without_a_penalty(
    options: Any, sentence: str, tiny_options: dict[str, Any], build_data: Callable[..., Any],
    build_trainer: Callable[..., Any],
) -> None:  # fmt: skip
    widths = {"generator_width": 8, "discriminator_width": 4, **tiny_options}
    model = GANCLS(**widths, **options)  # an old run may have them
    with pytest.raises(T2IError, match=sentence):
        build_trainer().fit(model, build_data())
    for effective in (
        {"penalty_every": 4, "penalty_step": "separate", "r1": 1.0},
        {"penalty_every": 4, "mode_seeking": 1.0},
        {"matching_power": 4.0, "matching_penalty": 1.0},
    ):
        GANCLS(**widths, **effective).check_training_options()


def test_noise_of_another_shape(tiny_options: dict[str, Any]) -> None:
    model = GANCLS(generator_width=8, discriminator_width=4, **tiny_options)
    for shape in ((1, model.total_noise_dim), (2, 3), (model.total_noise_dim,)):
        with pytest.raises(T2IError, match=r"found noise of shape .*, expected \(2, .*model\.noise\(2\)"):
            model.generate(["a", "b"], noise=torch.zeros(shape))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "nonsense"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(T2IError, match=f"found no device '{device}', expected cpu or one of this machine"):
        load_model("gancls_flowers64", device)


def test_options_that_gancls_does_not_use(tiny_options: dict[str, Any]) -> None:
    def check(**options: Any) -> None:
        GANCLS(generator_width=8, discriminator_width=4, **tiny_options, **options).check_training_options()

    with pytest.raises(T2IError, match=r"mismatch_weight 1.0, which leaves generated images no weight: .*fake_weight"):
        check(mismatch_weight=1.0)
    check(mismatch_weight=1.0, fake_weight=1.0)
    check(large=True, text_norm=True, third_activation=False, interpolation="random", interpolation_weight=1.0)
    for idle in (
        {"architecture": "dcgan", "large": True},
        {"architecture": "dcgan", "third_activation": False},
        {"light_discriminator": True, "text_norm": True},
        {"interpolation": "random"},
    ):
        with pytest.warns(UserWarning, match=f"{list(idle)[-1]} .* does nothing with this model's other options"):
            check(**idle)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gradient_clip_val": 1.0}, r"found Trainer\(gradient_clip_val=1\.0\), .*: use --model.gradient_clip"),
        ({"accumulate_grad_batches": 2}, r"found Trainer\(accumulate_grad_batches=2\), .* --model.accumulate"),
    ],
)
def test_options_of_the_trainer_for_one_optimizer(
    options: Any, sentence: str, tiny_options: dict[str, Any], build_data: Callable[..., Any],
    build_trainer: Callable[..., Any],
) -> None:  # fmt: skip
    model = GANCLS(generator_width=8, discriminator_width=4, **tiny_options)
    with pytest.raises(T2IError, match=sentence):
        build_trainer(**options).fit(model, build_data())


def test_weights_by_the_name_of_a_generator_of_the_package() -> None:
    """Of other widths, which shows that the file was found; what fits is a matter of every fine-tuning run."""
    with pytest.raises(T2IError, match=r"--model\.weights .*gancls_flowers64\.safetensors: generator\..* has shape"):
        GANCLS(generator_width=8, discriminator_width=4, weights="gancls_flowers64")
