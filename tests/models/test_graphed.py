"""A step on fixed inputs is the training of the plain step, asks the host for nothing, and can so be captured."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from t2i_zoo.errors import T2IError
from t2i_zoo.models import model_class
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.graphed import GraphedStep
from t2i_zoo.models.optimization import ema_decay

MODELS = ["gancls", "stackganpp", "attngan", "dfgan", "tacgan", "stackgan", "dmgan", "mirrorgan"]
BATCHES = 5
#: operations whose result is a number of the host, or has a shape that depends on values
ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}


@pytest.fixture
def build(tiny_options: Any, tiny_widths: Any) -> Any:
    """``build("gancls", lecam=1)``: a tiny model with seeded weights, ready for its step."""

    def ready(name: str, **options: Any) -> TextToImageGAN:
        L.seed_everything(3, verbose=False)
        model = model_class(name)(**{**tiny_options, **tiny_widths(name), **options}).train()
        model.prepare_aids()
        model.rng = torch.Generator().manual_seed(0)
        return model

    return ready


def parts_of(model: TextToImageGAN, build_data: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The data module that serves the model, and batches as they cross to a device."""
    data = build_data(image_size=model.hparams["image_size"], batch_size=4)
    next(data.batches("train", model))
    serving = data._plain
    return serving, [part for _, part in zip(range(BATCHES), serving.loader("train", True, lambda: 0), strict=False)]


def trained(model: TextToImageGAN, build_data: Any, graphed: bool) -> tuple[TextToImageGAN, list[Any]]:
    data, parts = parts_of(model, build_data)
    optimizers, schedules = model.configure_optimizers()
    step: Any = None
    if graphed:
        step = GraphedStep(model, optimizers, parts[0], data.on_after_batch_transfer)
    found = []
    for number, part in enumerate(parts):
        terms = step(part) if graphed else model.step(data.on_after_batch_transfer({**part}), *optimizers)
        found.append({f"{a} {b}": float(x.detach()) for a, each in terms.items() for b, x in each.items()})
        if graphed:
            assert float(model.decay_on_device) == pytest.approx(ema_decay(model.hparams, model.clock, 4))  # type: ignore[arg-type]
        if number == 2:
            for schedule in schedules:
                schedule.step()
    assert model.clock == BATCHES
    return model, found


@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_fixed_inputs_is_the_same_training(name: str, build: Any, build_data: Any) -> None:
    options = {"lr_decay": 0.1, "lr_decay_every": 1, "gradient_clip": 1.0}
    if name == "gancls":
        options |= {"lecam": 0.1, "augment": ["translation"], "augment_target": 0.6}
    (plain, losses), (graphed, others) = (trained(build(name, **options), build_data, how) for how in (False, True))
    assert len(losses) == BATCHES
    for one, two in zip(losses, others, strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-6)
    # not weights: Adam makes steps of the rounding of gradients that are zero, such as a bias's before batch norm
    noise = plain.noise(4, torch.Generator().manual_seed(1))
    for ema in (True, False):
        images = [model.generate(["a red flower"] * 4, noise=noise, ema=ema) for model in (plain, graphed)]
        torch.testing.assert_close(*images, rtol=0, atol=1e-4)


class Silent(TorchDispatchMode):
    """Raises where the host asks for a value."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        mask = name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if name in ASKING or mask:
            raise AssertionError(f"{name} asks the host")
        return func(*args, **(kwargs or {}))


# not tacgan: on a CPU alone, one_hot looks at the labels
@pytest.mark.parametrize("name", [name for name in MODELS if name != "tacgan"])
def test_a_step_asks_the_host_for_nothing_and_keeps_its_inputs(name: str, build: Any, build_data: Any) -> None:
    model = build(name, **({"augment": ["color", "translation", "cutout"], "r1": 1.0} if name == "gancls" else {}))
    data, parts = parts_of(model, build_data)
    batches = [data.on_after_batch_transfer(part) for part in parts]  # on a CPU, images are cut out one by one
    step = GraphedStep(model, model.configure_optimizers()[0], batches[0])
    places = [x.data_ptr() for x in step.inputs["images"]]
    for number, batch in enumerate(batches):
        if number < 2:
            step(batch)  # Adam makes its state
            continue
        with Silent():
            step(batch)
        assert [x.data_ptr() for x in step.inputs["images"]] == places
        for fixed, new in zip(step.inputs["images"], batch["images"], strict=True):
            assert torch.equal(fixed, new)


def test_shorter_captions_leave_nothing_of_longer_ones(build: Any, build_data: Any) -> None:
    model = build("attngan")
    data, parts = parts_of(model, build_data)
    batches = [data.on_after_batch_transfer(part) for part in parts[:2]]
    long = batches[0]["text"]
    short = long._replace(words=long.words[:, :2], mask=long.mask[:, :2])
    step = GraphedStep(model, model.configure_optimizers()[0], batches[0])
    step(batches[0])
    step({**batches[1], "text": short})
    kept = step.inputs["text"]
    assert kept.words.shape[1] == kept.mask.shape[1] == model.text_encoder.max_words
    assert torch.equal(kept.words[:, :2], short.words)
    assert not kept.words[:, 2:].any()
    assert not kept.mask[:, 2:].any()


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("dfgan", "penalty_every", 4),
        ("stackganpp", "ema_overwrite_on_snapshot", True),
        ("attngan", "damsm_weight", 5.0),
        ("mirrorgan", "stream_weight", 10.0),
    ],
)
def test_what_differs_from_batch_to_batch_is_refused(
    name: str, option: str, value: Any, build: Any, build_data: Any
) -> None:
    model = build(name)
    data, parts = parts_of(model, build_data)
    model.hparams[option] = value
    with pytest.raises(T2IError, match=f"found {option} {value}"):
        GraphedStep(model, model.configure_optimizers()[0], parts[0], data.on_after_batch_transfer)


@pytest.mark.parametrize("missing", ["text", "wrong_text"])
def test_captions_that_the_step_would_encode_are_refused(missing: str, build: Any, build_data: Any) -> None:
    model = build("gancls")
    data, parts = parts_of(model, build_data)
    del parts[0][missing]
    with pytest.raises(T2IError, match=f"found batches without {missing}, expected cached features"):
        GraphedStep(model, model.configure_optimizers()[0], parts[0], data.on_after_batch_transfer)
