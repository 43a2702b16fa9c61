"""StackGAN++ against the paper's code: parameter counts, how the losses add up, who sees what, and every option."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.stackganpp import StackGANPlusPlus, losses
from t2i_zoo.nn import FirstStage, JointDiscriminator, JointHeads
from t2i_zoo.text import TextFeatures

TINY = {"image_size": 32, "condition_dim": 4, "generator_width": 8, "discriminator_width": 4}
CAPTIONS = ["a red flower", "a white blossom", "five blue petals"]


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture
def build(tiny_options: dict[str, Any]) -> Any:
    """``build(branches=1)``: a tiny model with seeded weights."""

    def seeded(**options: Any) -> StackGANPlusPlus:
        L.seed_everything(0, verbose=False)
        return StackGANPlusPlus(**{**tiny_options, **TINY, **options})

    return seeded


def batch_for(model: StackGANPlusPlus, count: int = 4) -> Batch:
    """Random images and sentences."""
    rng = torch.Generator().manual_seed(1)
    real, wrong = ([torch.rand(count, 3, s, s, generator=rng) * 2 - 1 for s in model.needs.sizes] for _ in range(2))
    text = TextFeatures(torch.randn(count, model.text_encoder.dim, generator=rng))
    return {"images": real, "wrong_images": wrong, "text": text, "captions": ["a flower"] * count}


def fakes_for(model: StackGANPlusPlus, batch: Batch) -> Fakes:
    noise = torch.randn(len(batch["captions"]), model.total_noise_dim, generator=torch.Generator().manual_seed(2))
    return model.draw(model.generator, noise, batch["text"])


# Networks -----------------------------------------------------------------------------------------------------------


def test_parameter_counts_of_the_authors() -> None:
    with torch.device("meta"):
        model, without = StackGANPlusPlus(), StackGANPlusPlus(text_encoder="none")
        largest = [count(JointDiscriminator(128, 64, size, condition_first=True)) for size in (512, 1024)]
    assert model.needs.sizes == without.needs.sizes == (64, 128, 256)
    assert count(model.generator) == 21_239_696
    assert [count(one) for one in model.discriminator] == [5_723_906, 18_834_178, 71_269_122]
    assert count(without.generator) == 16_472_208
    assert [count(one) for one in without.discriminator] == [2_765_569, 15_875_841, 68_310_785]
    assert largest == [280_996_610, 1_119_881_986]


@pytest.mark.parametrize(
    ("image_size", "branches", "sizes"),
    [(8, 1, [8]), (128, 5, [8, 16, 32, 64, 128]), (128, 2, [64, 128]), (64, 3, [16, 32, 64])],
)
def test_branches(build: Any, image_size: int, branches: int, sizes: list[int]) -> None:
    model = build(image_size=image_size, branches=branches, generator_width=16, discriminator_width=1)
    assert model.needs.sizes == tuple(sizes)
    fakes = fakes_for(model, batch_for(model))
    assert [tuple(images.shape) for images in fakes.images] == [(4, 3, size, size) for size in sizes]
    assert all(-1 <= images.min() < images.max() <= 1 for images in fakes.images)
    for judge, images in zip(model.discriminator, fakes.images, strict=True):
        assert judge.trunk(images).shape == (4, 8, 4, 4)
        assert all(logits.shape == (4,) for logits in judge(images, fakes.extras["mu"])[:2])


def test_residual_blocks(build: Any) -> None:
    assert [len(stage.residual) for stage in build(residual_blocks=3).generator.stages] == [3, 3]


def test_the_first_map_of_a_large_first_branch_stays_narrow() -> None:
    channels = [block[1].in_channels for block in FirstStage(4, 2, 256).up]
    assert channels == [32, 32, 32, 16, 8, 4]  # 16 times the width at most, as at 64 px


def test_initial_weights(build: Any) -> None:
    model = build(generator_width=32, text_encoder={"kind": "hashing", "dim": 64}).requires_grad_(False)
    for layer in (model.generator.first.fc[0], model.generator.augment.fc, model.discriminator[2].trunk[0][2]):
        rows = layer.weight.flatten(1)
        rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
    norm = model.generator.first.fc[1]
    assert float(norm.weight.std()) == pytest.approx(0.02, rel=0.1)
    assert float(norm.weight.mean()) == pytest.approx(1, abs=0.01)
    assert not norm.bias.any()
    assert not model.generator.augment.fc.bias.any()
    assert model.discriminator[0].heads.conditional.bias.any()  # left as PyTorch makes it
    assert model.discriminator[0].heads.unconditional.bias.any()


@pytest.mark.parametrize("first", [True, False])
def test_the_condition_comes_before_the_features_or_behind_them(first: bool) -> None:
    heads, seen = JointHeads(3, 2, condition_first=first), []
    heads.joint.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features, condition = torch.rand(2, 3, 4, 4), torch.rand(2, 2)
    heads.match(features, condition)
    tiled = condition[:, :, None, None].repeat(1, 1, 4, 4)
    assert torch.equal(seen[0], torch.cat([tiled, features] if first else [features, tiled], 1))


# The sums of the model ----------------------------------------------------------------------------------------------


def test_the_discriminator_sums_over_sizes_and_terms(build: Any) -> None:
    model = build().eval()
    batch = batch_for(model)
    fakes = fakes_for(model, batch).detach()
    found = {key: float(term) for key, term in model.requires_grad_(False).discriminator_loss(batch, fakes).items()}
    assert found["loss"] == pytest.approx(found["real"] + found["wrong"] + found["fake"])
    assert found["loss"] == pytest.approx(found["at_8"] + found["at_16"] + found["at_32"])
    wanted = 0.0
    for i, judge in enumerate(model.discriminator):
        for images, text, alone in ((batch["images"], 1, 1), (batch["wrong_images"], 0, 1), (fakes.images, 0, 0)):
            logits = judge(images[i], fakes.extras["mu"])
            for value, target in ((logits.matched, text), (logits.unconditional, alone)):
                wanted -= float((value if target else -value).sigmoid().log().mean())
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)


def test_the_generator_weighs_divergence_and_colours(build: Any) -> None:
    options = {"kl_weight": 3.0, "colour_weight": 7.0, "uncond_weight": 0.5}
    model = build(**options).eval().requires_grad_(False)
    batch = batch_for(model)
    fakes = fakes_for(model, batch)
    found = model.generator_loss(batch, fakes)
    mu, logvar = fakes.extras["mu"], fakes.extras["logvar"]
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).mean()
    colour, wanted = 0.0, 3 * float(kl)
    for low, high in ((0, 1), (1, 2)):
        mean, covariance = losses.colour_consistency(fakes.images[high], fakes.images[low])
        colour += float(mean + 5 * covariance)
    for judge, images in zip(model.discriminator, fakes.images, strict=True):
        logits = judge(images, mu)
        wanted -= float(logits.matched.sigmoid().log().mean() + 0.5 * logits.unconditional.sigmoid().log().mean())
    assert float(found["kl"]) == pytest.approx(float(kl), rel=1e-5)
    assert float(found["colour"]) == pytest.approx(colour, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(wanted + 7 * colour, rel=1e-5)
    assert "colour" not in build().generator_loss(batch, fakes)


def test_the_discriminators_teach_the_augmentation_in_the_generators_step_alone(build: Any) -> None:
    model = build(kl_weight=0.0)
    batch = batch_for(model)
    fakes = fakes_for(model, batch)
    assert all(not tensor.requires_grad for tensor in fakes.detach().extras.values())
    fixed = fakes._replace(images=[images.detach() for images in fakes.images])
    model.generator_loss(batch, fixed)["loss"].backward()  # what is left leads through the discriminators' condition
    gradient = model.generator.augment.fc.weight.grad
    assert gradient is not None
    assert gradient.any()


# Who sees what ------------------------------------------------------------------------------------------------------


class Witness(L.Callback):
    """The first batch, and the images and conditions that each discriminator is given, in order."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.seen: list[list[Tensor]] = [[] for _ in pl_module.discriminator]
        self.told: list[list[Tensor]] = [[] for _ in pl_module.discriminator]
        for kept, told, judge in zip(self.seen, self.told, pl_module.discriminator, strict=True):
            judge.trunk.register_forward_pre_hook(lambda _, a, kept=kept: kept.append(a[0]))
            if hasattr(judge.heads, "joint"):
                judge.heads.joint.register_forward_pre_hook(lambda _, a, told=told: told.append(a[0][:, :-32, 0, 0]))
        pl_module.generator.register_forward_hook(lambda *a: setattr(self, "drawn", a[2]))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batch = dict(batch)


def batch_norms(network: nn.Module) -> list[Any]:
    return [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]


@pytest.fixture
def watch(build: Any, build_data: Any, build_trainer: Any) -> Any:
    """``watch(branches=2)``: the model after one batch, and the witness of it."""

    def run(**options: Any) -> tuple[StackGANPlusPlus, Witness]:
        model, witness = build(**options), Witness()
        build_trainer(limit_train_batches=1, callbacks=[witness]).fit(model, build_data(image_size=32))
        return model, witness

    return run


def test_each_discriminator_sees_real_mismatched_and_drawn_images_apart(watch: Any) -> None:
    model, witness = watch()
    images, extras = witness.drawn
    for i, (seen, told) in enumerate(zip(witness.seen, witness.told, strict=True)):
        wanted = [witness.batch["images"][i], witness.batch["wrong_images"][i], images[i], images[i]]
        assert [tuple(found.shape) for found in seen] == [(8, 3, model.needs.sizes[i], model.needs.sizes[i])] * 4
        assert all(torch.equal(found, one) for found, one in zip(seen, wanted, strict=True))
        assert all(torch.equal(condition, extras["mu"]) for condition in told)
        assert len(told) == 4
    assert {int(m.num_batches_tracked) for m in batch_norms(model.discriminator)} == {4}
    assert {int(m.num_batches_tracked) for m in batch_norms(model.generator)} == {1}


def test_without_text(watch: Any) -> None:
    model, witness = watch(text_encoder="none", colour_weight=50.0)
    assert not model.needs.wrong_images
    assert model.total_noise_dim == 4
    assert model.generator.augment is None
    assert model.generator.stages[0].joint[0].in_channels == 4 + 8  # the noise in place of a condition
    assert all(len(seen) == 3 for seen in witness.seen)  # real, drawn, drawn
    assert not any(witness.told)
    names = {name.split(".")[2] for name, _ in model.discriminator.named_parameters() if ".heads." in name}
    assert names == {"unconditional"}
    noise = model.noise(3)
    drawn = [model.generate(captions, noise=noise) for captions in (CAPTIONS, CAPTIONS[::-1])]
    assert torch.equal(*drawn)


# Options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_noise_of_the_augmentation_in_sampling(build: Any, keep: bool) -> None:
    model = build(sampling_noise=keep)
    noise = model.noise(2)
    other = torch.cat([noise[:, :4], model.noise(2)[:, 4:]], dim=1)
    assert torch.equal(*(model.generate(CAPTIONS[:2], noise=n) for n in (noise, other))) is not keep
    text = model.encode(CAPTIONS[:2])
    pictures = [model.draw(model.generator.train(), n, text).images[-1] for n in (noise, other)]
    assert not torch.equal(*pictures)  # in training there is always noise


@pytest.mark.parametrize("overwrite", [True, False])
def test_snapshots(build: Any, build_data: Any, build_trainer: Any, overwrite: bool) -> None:
    model = build(ema_overwrite_on_snapshot=overwrite, snapshot_every=2)
    equal: list[bool] = []

    def compare(*_: Any) -> None:
        pairs = zip(model.generator.parameters(), model.generator_ema.parameters(), strict=True)
        equal.append(all(torch.equal(live, average) for live, average in pairs))

    note = L.pytorch.callbacks.LambdaCallback(on_train_batch_end=compare)
    trainer = build_trainer(limit_train_batches=4, callbacks=[note])
    trainer.fit(model, build_data(image_size=32))
    assert equal == ([False, True, False, True] if overwrite else [False] * 4)
    assert all(float(state["step"]) == 4 for state in trainer.optimizers[1].state.values())  # Adam goes on


def trained(build: Any, build_data: Any, build_trainer: Any, **options: Any) -> StackGANPlusPlus:
    model = build(learning_rate=1e-4, **options)
    build_trainer(limit_train_batches=2).fit(model, build_data(image_size=32))
    return model


@pytest.mark.parametrize("text", [{"kind": "hashing", "dim": 32}, "none"], ids=["text", "none"])
def test_checkpointing_changes_nothing(build: Any, build_data: Any, build_trainer: Any, text: Any) -> None:
    plain, saving = (
        trained(build, build_data, build_trainer, gradient_checkpointing=flag, text_encoder=text)
        for flag in (False, True)
    )
    for (name, wanted), found in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(wanted, found), name  # batch statistics and their counters too
    assert {norm.momentum for norm in batch_norms(saving)} == {0.1}


def test_checkpointing_keeps_less(build: Any) -> None:
    def kept(flag: bool) -> int:
        model, sizes = build(gradient_checkpointing=flag), dict[int, int]()

        def note(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        batch = batch_for(model)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model.generator_loss(batch, fakes_for(model, batch))["loss"]
        assert loss.requires_grad
        return sum(sizes.values()) - sum(p.numel() for p in model.parameters())

    assert kept(True) < 0.5 * kept(False)


def test_channels_last_changes_nothing_but_the_layout(build: Any, build_data: Any, build_trainer: Any) -> None:
    plain, other = (trained(build, build_data, build_trainer, channels_last=flag) for flag in (False, True))
    torch.testing.assert_close(dict(other.state_dict()), dict(plain.state_dict()), atol=1e-4, rtol=1e-3)
    noise = plain.noise(3)
    torch.testing.assert_close(
        other.generate(CAPTIONS, noise=noise), plain.generate(CAPTIONS, noise=noise), atol=1e-3, rtol=0
    )

    def layouts(model: StackGANPlusPlus) -> set[bool]:
        weights = [p for p in model.parameters() if p.ndim == 4 and min(p.shape) > 1 and p.shape[2] > 1]
        return {p.is_contiguous(memory_format=torch.channels_last) for p in weights}

    assert layouts(other) == {True}
    assert layouts(plain) == {False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branches": 0}, r"found --model\.branches 0, expected 1 to 5"),
        ({"branches": 6, "image_size": 256}, r"found --model\.branches 6, expected 1 to 5"),
        ({"image_size": 48}, r"image_size 48 with 3 branches, expected a power of two of at least 32"),
        ({"image_size": 16}, r"image_size 16 with 3 branches, expected a power of two of at least 32"),
        ({"generator_width": 6}, r"found --model\.generator_width 6, expected a multiple of 4"),
        ({"snapshot_every": 0}, r"found --model\.snapshot_every 0, expected at least 1"),
    ],
)
def test_options_that_do_not_fit(build: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(T2IError, match=message):
        build(**options)


@pytest.mark.parametrize("aid", [{"r1": 1.0}, {"lecam": 0.1}])
def test_no_penalty_looks_at_untrained_heads(build: Any, aid: dict[str, float]) -> None:
    found = []
    for change in (0, 5):
        torch.manual_seed(0)
        model = build(uncond_weight=0.0, **aid)
        with torch.no_grad():
            for one in model.discriminator:
                for weight in one.heads.unconditional.parameters():
                    weight.add_(change)
        batch = batch_for(model)
        fakes = fakes_for(model, batch).detach()
        model._judged = {}
        losses = model.discriminator_loss(batch, fakes)
        losses = model.regularised(losses, model._judged) | model.discriminator_penalty(batch, fakes)
        found.append({name: float(value) for name, value in losses.items()})
    assert found[0] == found[1]
    assert found[0].keys() & {"r1", "lecam"}
