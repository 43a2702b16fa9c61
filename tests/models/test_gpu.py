"""What only a CUDA device shows: float16's scaler, the resident store, steps that never wait, compiled or captured."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch

from t2i_zoo.models import model_class
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.graphed import GraphedStep

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def build(tiny_options: Any, tiny_widths: Any) -> Any:
    """``build("gancls", channels_last=True)``: a tiny model with seeded weights."""

    def seeded(name: str, **options: Any) -> TextToImageGAN:
        L.seed_everything(3, verbose=False)
        return model_class(name)(**{**tiny_options, **tiny_widths(name), **options})

    return seeded


def moved(model: TextToImageGAN, before: dict[str, torch.Tensor]) -> bool:
    pairs = [(before[name], p) for name, p in model.named_parameters() if name.startswith("discriminator.")]
    assert all(p.isfinite().all() for p in model.parameters())
    return any(not torch.equal(old, p.detach().cpu()) for old, p in pairs)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_scaler_of_float16(clip: float | None, build: Any, build_data: Any, build_trainer: Any) -> None:
    model = build("gancls", gradient_clip=clip)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = build_trainer(accelerator=DEVICE, precision="16-mixed", limit_train_batches=5, max_epochs=3)
    trainer.fit(model, build_data())
    assert trainer.precision_plugin.scaler.get_scale() > 0
    assert moved(model, before)


def test_a_resident_store_gives_the_same_batches(build: Any, build_data: Any) -> None:
    model = build("stackganpp", image_size=32).to(DEVICE)
    both = [build_data(image_size=32, device_resident=where).batches("train", model) for where in ("yes", "no")]
    for _ in range(2):
        resident, sent = (next(batches) for batches in both)
        assert resident["captions"] == sent["captions"]
        for name in ("images", "wrong_images"):
            for one, two in zip(resident[name], sent[name], strict=True):
                assert one.device.type == DEVICE
                torch.testing.assert_close(one, two, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gancls", "stackganpp", "attngan", "dfgan", "tacgan", "stackgan", "dmgan"])
def test_a_step_never_waits_for_the_device(name: str, build: Any, build_data: Any) -> None:
    model = build(name).to(DEVICE).train()
    model.prepare_aids()
    model.rng = torch.Generator(DEVICE).manual_seed(0)
    data = build_data(image_size=model.hparams["image_size"], batch_size=8)
    batches = [batch for _, batch in zip(range(4), data.batches("train", model), strict=False)]
    optimizers = model.configure_optimizers()[0]
    for number, batch in enumerate(batches):
        torch.cuda.set_sync_debug_mode("error" if number > 1 else "default")
        try:
            terms = model.step(batch, *optimizers)
            model.note_losses({key: found["loss"] for key, found in terms.items()})
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("channels_last", [False, True])
def test_compiled_training_is_the_same_training(
    channels_last: bool, build: Any, build_data: Any, build_trainer: Any
) -> None:
    found = []
    for compiled in ("none", "networks"):
        model = build("stackganpp", compile=compiled, channels_last=channels_last)
        build_trainer(accelerator=DEVICE, limit_train_batches=1).fit(model, build_data(image_size=32))
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-2, atol=3e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["gancls", "stackganpp", "dfgan", "tacgan", "stackgan"])
def test_a_captured_step_is_the_same_training(name: str, build: Any, build_data: Any) -> None:
    found, images = [], []
    for captured in (False, True):
        model = build(name).to(DEVICE).train()
        model.prepare_aids()
        model.rng = torch.Generator(DEVICE).manual_seed(0)
        data = build_data(image_size=model.hparams["image_size"], batch_size=4, device_resident="yes")
        next(data.batches("train", model))
        serving, optimizers = data._plain, model.configure_optimizers()[0]
        step: Any = None
        for _, host in zip(range(8), serving.loader("train", True, lambda: 0), strict=False):
            part = serving.transfer_batch_to_device(host, torch.device(DEVICE), 0)
            finish = serving.on_after_batch_transfer
            if captured:
                step = step or GraphedStep(model, optimizers, part, finish)
                step(part)
            else:
                model.step(finish(part), *optimizers)
        assert (step is not None and step.graph is not None) == captured
        assert model.clock == 8
        found.append(model)
        images.append(model.generate(["a red flower"] * 4, rng=torch.Generator(DEVICE).manual_seed(1)))
    assert moved(found[1], {k: v.cpu() for k, v in build(name).named_parameters()})
    torch.testing.assert_close(*images, rtol=0, atol=2e-2)
