"""Every GAN of the zoo goes into a file of its own and comes back as the same network, rounded to half precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from t2i_zoo.models import load_model, name_of
from t2i_zoo.models.exported import ExportedGenerator, pack, write

CAPTIONS = ["a red flower with round petals", "a white flower on the sand", "a blue flower"]


def test_an_export_draws_what_the_rounded_model_draws(build: Any, name: str, tmp_path: Path) -> None:
    model = build().eval()
    with torch.no_grad():  # an average unlike the live weights, and statistics as of a trained network
        for tensor in model.generator_ema.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.9).add_(0.01)
    model.clock, noise = 7, model.noise(3)
    captions = CAPTIONS if model.conditional else [""] * 3
    plain = model.generate(captions, noise=noise)
    tensors, header = pack(model, name_of(model) or "")
    write(tensors, json.dumps(header), tmp_path / "small.safetensors")
    with safe_open(tmp_path / "small.safetensors", "pt") as file:
        assert not any(key.startswith(("discriminator.", "generator_ema.")) for key in file.keys())  # noqa: SIM118
    found: Any = load_model(tmp_path / "small.safetensors")
    assert header["model"] == name
    assert isinstance(found, ExportedGenerator)
    assert name_of(found) == name
    assert found.clock == 7
    assert not found.training
    drawn = found.generate(captions, noise=noise)
    assert torch.equal(found.generate(captions, noise=noise, ema=False), drawn)  # one set of weights, in both places
    torch.testing.assert_close(drawn, plain, rtol=0, atol=0.05)
    state = model.state_dict()
    rounded = {k: v.half().float() if v.is_floating_point() else v for k, v in state.items()}
    model.load_state_dict(rounded)
    assert torch.equal(model.eval().generate(captions, noise=noise), drawn)
    assert {v.dtype for v in found.state_dict().values() if v.is_floating_point()} == {torch.float32}
