"""The option ``compile``: the same training, to rounding, with the parts of both networks compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model, model_class
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.compiling import compile_networks, compiled, parts
from t2i_zoo.nn import ConditionalDiscriminator, Logits

CASES: dict[str, dict[str, Any]] = {
    "gancls": {"r1": 1.0, "spectral_norm": True, "penalty_every": 2},
    "stackganpp": {"gradient_checkpointing": True},
    "attngan": {"branches": 2, "image_size": 16, "channels_last": True},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture and differentiate as the default compiler does, but run what was captured as it is."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(TextToImageGAN, "compile_backend", "aot_eager")


@pytest.fixture
def trained(build_data: Any, build_trainer: Any, tiny_options: Any, tiny_widths: Any, tmp_path: Path) -> Any:
    """``trained("gancls", compile="networks")``: a model after two batches, saved after the first."""

    def fit(name: str, ckpt_path: Path | None = None, **options: Any) -> TextToImageGAN:
        L.seed_everything(3, verbose=False)
        model = model_class(name)(**{**tiny_options, **tiny_widths(name), **options})

        def save(trainer: L.Trainer, *_: Any) -> None:
            if model.clock == 1:
                trainer.save_checkpoint(tmp_path / f"{options.get('compile', 'none')}.ckpt")

        data = build_data(image_size=model.hparams["image_size"], batch_size=16)
        trainer = build_trainer(limit_train_batches=2, callbacks=[LambdaCallback(on_train_batch_end=save)])
        trainer.fit(model, data, ckpt_path=ckpt_path)
        return model

    return fit


def same(one: nn.Module, two: nn.Module) -> None:
    first, second = one.state_dict(), two.state_dict()
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", CASES)
def test_compiled_training_is_the_same_training(name: str, trained: Any, tmp_path: Path) -> None:
    plain, other = trained(name, **CASES[name]), trained(name, compile="networks", **CASES[name])
    assert compiled(next(parts(other.generator)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 4  # discriminator's parts in both steps
    assert not torch._dynamo.utils.counters["graph_break"]
    assert not torch._dynamo.utils.counters["unimplemented"]  # where dynamo gives up, such as too many variants
    assert not any(map(compiled, other.generator_ema.modules()))
    same(plain, other)
    if name == "gancls":  # a run goes on with and without it
        for former, now in (("networks", "none"), ("none", "networks")):
            same(plain, trained(name, compile=now, ckpt_path=tmp_path / f"{former}.ckpt", **CASES[name]))
        assert load_model(tmp_path / "networks.ckpt").generate(["a red flower", "a rose"]).isfinite().all()


def test_the_default_compiler_with_two_passes_before_a_backward() -> None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("found no C++ compiler, which torch.compile needs on a CPU")

    class Judge(ConditionalDiscriminator):
        def __init__(self) -> None:
            super().__init__()
            self.image = nn.Sequential(nn.Conv2d(3, 2, 4), nn.BatchNorm2d(2))

        def features(self, images: Tensor) -> Tensor:
            return self.image(images)

        def judge(self, features: Tensor, condition: Tensor) -> Logits:
            return Logits(features.mean((1, 2, 3)))

    def gradients(network: nn.Module) -> list[Tensor]:
        real, fake = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        loss = network(real, real).matched.sum() - network(fake, fake).matched.square().sum()
        loss.backward()
        found = [p.grad for p in network.parameters() if p.grad is not None]
        network.zero_grad()
        network.requires_grad_(False)
        network(real.requires_grad_(), real).matched.square().sum().backward()  # as in the generator's step
        return [*found, real.grad, *network.buffers()]

    torch.manual_seed(0)
    plain, other = Judge(), Judge()
    other.load_state_dict(plain.state_dict())
    compile_networks(other, backend="inductor")
    for one, two in zip(gradients(plain), gradients(other), strict=True):
        torch.testing.assert_close(two, one)


def test_every_model_has_parts_to_compile(tiny_options: Any, tiny_widths: Any) -> None:
    for name in ("gancls", "tacgan", "stackgan", "stackganpp", "attngan", "mirrorgan", "dmgan", "dfgan"):
        model = model_class(name)(**{**tiny_options, **tiny_widths(name)})
        for network in (model.generator, model.discriminator):
            found = [*parts(network)]
            assert found, name
            owned = [p for part in found for p in part.parameters()]
            assert len(owned) == len(set(owned))  # none holds another
            weight = sum(p.numel() for p in owned) / sum(p.numel() for p in network.parameters())
            assert weight > 0.6, name


def test_only_networks_are_compiled(tiny_options: Any, tiny_widths: Any) -> None:
    with pytest.raises(T2IError, match=r"found step in --model\.compile, expected one of none, networks"):
        model_class("gancls")(**{**tiny_options, **tiny_widths("gancls"), "compile": "step"})
