"""DM-GAN: its memory by hand, spectral norm in the discriminators, and what it does with a DAMSM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from t2i_zoo.__main__ import main
from t2i_zoo.models.attngan import AttnGAN
from t2i_zoo.models.dmgan import DMGAN, losses
from t2i_zoo.models.dmgan.networks import DynamicMemory
from t2i_zoo.nn.spectral import SpectralNorm, spectral_norm

SMALL: dict[str, Any] = {
    **{"image_size": 32, "noise_dim": 4, "condition_dim": 4, "generator_width": 4, "discriminator_width": 4},
    **{"residual_blocks": 1, "text_encoder": {"kind": "hashing", "dim": 32}, "damsm_weight": 0.0},
}


@pytest.fixture
def model() -> DMGAN:
    torch.manual_seed(0)
    return DMGAN(**SMALL)


# Memory ---------------------------------------------------------------------------------------------------------------


def test_memory_by_hand() -> None:
    """One place, two words and one of padding, every equation written out (Zhu et al. 2019, equations 2 to 8)."""
    torch.manual_seed(0)
    memory = DynamicMemory(3, 2)
    features, words = torch.randn(1, 2, 1, 1), torch.randn(1, 3, 3)
    found, attention = memory(features, words, torch.tensor([[True, True, False]]))
    r, w = features.flatten(), words[0]  # of one place: the mean over the map is the place itself
    gate = torch.sigmoid(w @ memory.gate_word.weight[0] + memory.gate_image.weight[0] @ r)

    def layer(conv: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, conv.weight.flatten(1), conv.bias)

    written = F.relu(layer(memory.write_word, w)) * gate[:, None]
    written = written + F.relu(layer(memory.write_image, r)) * (1 - gate)[:, None]
    keys, values = F.relu(layer(memory.key, written)), F.relu(layer(memory.value, written))
    weights = (keys[:2] @ r).softmax(0)
    read = weights @ values[:2]
    respond = torch.sigmoid(layer(memory.respond, torch.cat([r, read])))
    torch.testing.assert_close(found.flatten(), (1 - respond) * r + respond * read)
    torch.testing.assert_close(attention.flatten(), torch.cat([weights, torch.zeros(1)]))


def test_the_memory_is_written_without_a_gradient_to_the_map() -> None:
    torch.manual_seed(0)
    memory, words = DynamicMemory(3, 2), torch.randn(1, 2, 3)
    features = torch.randn(1, 2, 4, 4)
    seen: list[Tensor] = []
    memory.gate_image.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    memory.write_image.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].mT))
    memory(features.requires_grad_(), words, torch.ones(1, 2, dtype=torch.bool))
    for pooled in seen:
        torch.testing.assert_close(pooled.flatten(), features.detach().mean((2, 3)).flatten())
        assert not pooled.requires_grad


def test_residual_blocks_see_the_map_twice(model: DMGAN) -> None:
    seen: list[Tensor] = []
    model.generator.stages[0].residual.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.draw(model.generator, model.noise(2), model.encode(["a red flower", "blue"]))
    first, second = seen[0].chunk(2, 1)
    assert torch.equal(first, second)


def test_images_do_not_depend_on_the_other_captions_of_a_batch(model: DMGAN) -> None:
    captions, noise = ["a red flower", "a much longer caption about a blue flower"], model.eval().noise(2)
    together = model.generate(captions, noise=noise)
    alone = torch.cat([model.generate([c], noise=noise[i : i + 1]) for i, c in enumerate(captions)])
    assert torch.allclose(together, alone, atol=1e-5)
    legacy = DMGAN(**SMALL, legacy_mask=True)
    legacy.load_state_dict(model.state_dict())
    assert not torch.allclose(legacy.eval().generate(captions, noise=noise), alone, atol=1e-4)  # the authors' mix-up


def test_attention_is_shown(model: DMGAN, tmp_path: Path, build_trainer: Any) -> None:
    trainer = build_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "dmgan.ckpt")
    out = tmp_path / "attention.png"
    words = ["--text", "a red flower", "--out", str(out), "--device", "cpu"]
    assert main(["attention", "--ckpt", str(tmp_path / "dmgan.ckpt"), *words]) == 0
    assert out.is_file()


# Spectral norm --------------------------------------------------------------------------------------------------------


def test_one_step_of_the_power_iteration_by_hand() -> None:
    torch.manual_seed(0)
    conv = spectral_norm(nn.Conv2d(3, 4, 2))
    (norm,) = conv.parametrizations.weight
    assert isinstance(norm, SpectralNorm)
    u, weight = norm.u.clone(), conv.parametrizations.weight.original.detach()
    matrix = weight.flatten(1)
    v = F.normalize(matrix.T @ u, dim=0)
    u = F.normalize(matrix @ v, dim=0)
    torch.testing.assert_close(conv.weight, weight / (u @ matrix @ v))
    torch.testing.assert_close(norm.u, u)
    torch.testing.assert_close(norm.v, v)
    before = conv.eval().weight
    assert torch.equal(conv.weight, before)  # evaluation takes no step
    for _ in range(200):
        norm.train()(weight)
    assert torch.linalg.svdvals(conv.weight.flatten(1))[0].item() == pytest.approx(1, abs=1e-4)


def test_its_gradient_takes_the_vectors_as_constants() -> None:
    torch.manual_seed(0)
    conv = spectral_norm(nn.Conv2d(3, 4, 2)).eval()
    (norm,) = conv.parametrizations.weight
    weight = conv.parametrizations.weight.original
    conv.weight.square().sum().backward()
    again = weight.detach().clone().requires_grad_()
    (again / (norm.u @ again.flatten(1) @ norm.v)).square().sum().backward()
    torch.testing.assert_close(weight.grad, again.grad)


def test_all_convolutions_but_those_of_the_logits_have_it(model: DMGAN) -> None:
    for judge in model.discriminator:
        convolutions = {name: m for name, m in judge.named_modules() if isinstance(m, nn.Conv2d)}
        plain = {name for name, m in convolutions.items() if not parametrize.is_parametrized(m)}
        assert plain == {"heads.unconditional", "heads.conditional"}
        assert all(m.bias is not None for m in convolutions.values())
        assert not any(isinstance(m, nn.BatchNorm2d) for m in judge.modules())
        for name in convolutions.keys() - plain:
            matrix = convolutions[name].parametrizations.weight.original.flatten(1)
            if matrix.shape[0] <= matrix.shape[1]:  # orthogonal rows, from the initialisation before
                torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)), rtol=0, atol=1e-5)


def test_checkpointing_changes_no_result() -> None:
    """It leaves the discriminators alone, whose second forward would take another step of the power iteration."""
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = DMGAN(**SMALL, gradient_checkpointing=checkpointing)
        assert model.generator.checkpointing == checkpointing
        captions = ["a red flower", "blue", "two words"]
        noise = model.noise(3, torch.Generator().manual_seed(1))
        batch: Any = {"images": [torch.zeros(3, 3, s, s) for s in (8, 16, 32)], "captions": captions}
        fakes = model.draw(model.generator, noise, model.encode(captions))
        (model.discriminator_loss(batch, fakes)["loss"] + model.generator_loss(batch, fakes)["loss"]).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


# Loss and defaults ----------------------------------------------------------------------------------------------------


def test_objective() -> None:
    terms = {"words": torch.tensor(2.0), "sentence": torch.tensor(3.0)}
    assert float(losses.generator_objective(torch.tensor(1.0), terms, 4.0)) == 21
    assert float(losses.generator_objective(torch.tensor(1.0), {}, 4.0)) == 1


def test_what_differs_from_attngan_by_default() -> None:
    with torch.device("meta"):
        found, base = (dict(cls(damsm_weight=0.0).hparams) for cls in (DMGAN, AttnGAN))
    changed = {name: value for name, value in found.items() if base[name] != value}
    assert changed == {"generator_width": 64, "discriminator_width": 32}
