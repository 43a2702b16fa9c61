"""What every GAN does with its rates, its gradients and options that do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import nn

from t2i_zoo.callbacks import ResumePoint
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model, model_class
from t2i_zoo.models.optimization import ema_decay
from t2i_zoo.run_files import AtomicCheckpointIO
from t2i_zoo.runs import check_no_overrides, default_options

CAPTIONS = ["a red flower", "a blue flower"]


def test_learning_rates_move(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    """Halved at the start of each epoch whose number divides by ``lr_decay_every``: 1-based as in ``main_cls.lua``.

    StackGAN's authors count from 0 and leave that epoch out.
    """
    rates: list[list[float]] = []
    note = LambdaCallback(
        on_train_epoch_start=lambda trainer, _: rates.append([o.param_groups[0]["lr"] for o in trainer.optimizers])
    )
    model = build(learning_rate=0.008, discriminator_learning_rate=0.004, lr_decay=0.5, lr_decay_every=2)
    build_trainer(max_epochs=5, limit_train_batches=1, callbacks=[note]).fit(model, tiny_data)
    generator = [0.008, 0.004, 0.004, 0.002, 0.002]
    if isinstance(model, model_class("stackgan")):
        generator = [0.008, 0.008, 0.004, 0.004, 0.002]
    assert rates == [pytest.approx([rate / 2, rate]) for rate in generator]


def test_the_warm_up_of_the_average() -> None:
    options = {"ema_half_life": None, "ema_decay": 0.999, "ema_warmup": True}
    assert [ema_decay(options, t, 64) for t in (1, 90)] == pytest.approx([2 / 11, 0.91])
    assert ema_decay(options, 8989, 64) < ema_decay(options, 8990, 64) == ema_decay(options, 99_999, 64) == 0.999
    assert ema_decay({**options, "ema_warmup": False}, 1, 64) == 0.999


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_gradient_clip_limits_the_norm(build: Any, build_trainer: Any, tiny_data: Any, limit: float | None) -> None:
    norms: list[float] = []

    def watch(trainer: L.Trainer, _: Any) -> None:
        for optimizer in trainer.optimizers:  # after the step the gradients that it used are still there
            optimizer.register_step_post_hook(lambda opt, *_: norms.append(norm_of(opt)))

    watched = build_trainer(limit_train_batches=1, callbacks=[LambdaCallback(on_train_start=watch)])
    watched.fit(build(gradient_clip=limit), tiny_data)
    assert len(norms) == 1 + build().generator_steps
    assert all(norm == pytest.approx(limit, rel=1e-3) if limit else norm > 1e-2 for norm in norms)


def test_micro_batches_of_every_model(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    """A batch of 16 in three parts: all that a loss reads of it is cut, and both networks step once."""
    model, sizes = build(accumulate=3), list[int]()
    draw = model.draw
    model.draw = lambda network, noise, text: sizes.append(len(noise)) or draw(network, noise, text)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = build_trainer(limit_train_batches=1)
    trainer.fit(model, tiny_data)
    assert (model.clock, trainer.global_step) == (1, 1 + model.generator_steps)
    assert len(sizes) == 3 * (1 + model.generator_steps)
    assert sum(sizes) % (1 + model.generator_steps) == 0
    assert max(sizes) <= 9  # six, and half as many sentences between them with GAN-INT
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"generator", "discriminator", "generator_ema"}


def norm_of(optimizer: torch.optim.Optimizer) -> float:
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
    return float(nn.utils.get_total_norm(gradients))


def test_a_diverged_run_says_what_to_change(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    """Whatever the log interval is, and though its last batch may be the first bad one."""
    told = r"_loss is NaN or infinite from batch [1-9] on: lower --model\.learning_rate, clip"
    with pytest.raises(T2IError, match=told):
        build_trainer(max_epochs=3, log_every_n_steps=0).fit(build(learning_rate=1e30), tiny_data)


def test_a_diverged_model_is_not_saved(build: Any, build_trainer: Any, tiny_data: Any, tmp_path: Path) -> None:
    model, keeper = build(), ResumePoint()
    end = {"max_epochs": 2, "limit_train_batches": 1, "plugins": [AtomicCheckpointIO()]}
    build_trainer(callbacks=[keeper], **end).fit(model, tiny_data)
    before = keeper.path.read_bytes()
    spoil = LambdaCallback(on_train_epoch_end=lambda *_: next(model.generator_ema.parameters()).fill_(torch.nan))
    with pytest.raises(T2IError, match=r"last.ckpt is not written, .* generator_ema\..* with NaN"):
        build_trainer(callbacks=[spoil, ResumePoint()], **end).fit(model, tiny_data)
    assert keeper.path.read_bytes() == before
    torch.save({**torch.load(keeper.path), "state_dict": model.state_dict()}, keeper.path)  # as older versions did
    with pytest.raises(T2IError, match=r"last.ckpt holds generator_ema\..* with NaN or infinite values"):
        load_model(keeper.path)


def test_a_batch_of_one_trains_or_is_refused(build: Any, build_trainer: Any, build_data: Any) -> None:
    model = build()
    if model.needs.least == 1:
        build_trainer(limit_train_batches=2).fit(model, build_data(batch_size=1))
        assert all(weight.isfinite().all() for weight in model.parameters())
        return
    with pytest.raises(T2IError, match=r"found --data\.batch_size 1, expected at least 2 images: "):
        build_trainer().fit(model, build_data(batch_size=1))
    data = build_data()
    ragged = [next(data.batches("train", model)), next(build_data(batch_size=1).batches("train"))]
    loader = torch.utils.data.DataLoader(ragged, batch_size=None)
    with pytest.raises(T2IError, match=r"found a batch of 1, .*give your DataLoader drop_last=True"):
        build_trainer().fit(model, loader)


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_other_precisions_than_float32_are_refused(
    build: Any, build_trainer: Any, tiny_data: Any, precision: str
) -> None:
    with pytest.raises(T2IError, match=f"(--trainer.precision {precision}|weights in torch.*), expected .*float32"):
        build_trainer(precision=precision).fit(build(), tiny_data)


def test_a_halved_model_draws(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    model, noise = build().eval(), build().noise(2)
    whole = model.generate(CAPTIONS, noise=noise)
    torch.testing.assert_close(model.bfloat16().generate(CAPTIONS, noise=noise), whole, atol=0.1, rtol=0)
    with pytest.raises(T2IError, match=r"found weights in torch\.bfloat16, expected weights in float32"):
        build_trainer().fit(model, tiny_data)


def test_compiled_networks_are_not_trained(build: Any, build_trainer: Any, tiny_data: Any) -> None:
    for compiled in (torch.compile, lambda network: network.compile() or network):
        model = build()
        model.generator, model.discriminator = compiled(model.generator), compiled(model.discriminator)
        with pytest.raises(T2IError, match=r"found networks compiled by torch\.compile"):
            build_trainer().fit(model, tiny_data)


def test_image_sizes_are_compared(build: Any, build_trainer: Any, build_data: Any) -> None:
    with pytest.raises(T2IError, match=r"model has (16|32) px and the data module gives 64 px.*--data\.image_size"):
        build_trainer().fit(build(), build_data(image_size=64))


def test_only_some_models_draw_without_text(build: Any) -> None:
    model = build()
    if model.text_is_optional:
        assert not build(text_encoder="none").conditional
    else:
        with pytest.raises(T2IError, match=f"text_encoder none, but {type(model).__name__} reads text"):
            build(text_encoder="none")


def test_a_pyramid_of_other_sizes_is_refused(build: Any, build_trainer: Any, build_data: Any) -> None:
    model = build()
    if len(model.needs.sizes) == 1:  # takes the largest of any pyramid
        build_trainer(limit_train_batches=1).fit(model, build_data(pyramid=[8]))
    else:
        with pytest.raises(T2IError, match=r"needs .* px and --data\.pyramid gives \[4, \d+\]: leave"):
            build_trainer().fit(model, build_data(pyramid=[4]))


def test_the_options_of_a_run_are_those_of_its_checkpoint(build: Any, options: dict[str, Any]) -> None:
    """What a model resolves it keeps elsewhere: a resumed run compares its config with the checkpoint's options."""
    model = build()
    defaults = default_options(type(model))
    check_no_overrides(dict(model.hparams), {**defaults, **options}, Path("last.ckpt"), defaults=defaults)
    older = {name: value for name, value in model.hparams.items() if name not in ("r1", "adversarial_loss")}
    check_no_overrides(older, {**defaults, **options}, Path("last.ckpt"), defaults=defaults)
    with pytest.raises(T2IError, match=r"was trained with --model\.r1 0\.0 and the command says 3\.0"):
        check_no_overrides(older, {**defaults, **options, "r1": 3.0}, Path("last.ckpt"), defaults=defaults)


@pytest.mark.parametrize(
    ("aids", "sentence"),
    [
        ({"projected": {"network": "efficientnet_lite0", "width": "wide"}}, "found width: wide in --model.projected"),
        ({"projected": {"netwrk": "efficientnet_lite0"}}, "found netwrk in --model.projected"),
        ({"projected": "inception_v3_tf"}, "found --model.projected inception_v3_tf, expected efficientnet_lite0"),
        ({"augment": ["colour"]}, "found colour in --model.augment, expected one of color"),
        ({"augment": ["translation"], "augment_target": 6.0}, "found --model.augment_target 6.0"),
        ({"adversarial_loss": "hinges"}, "found hinges in --model.adversarial_loss"),
        ({"beta2": 2.0}, "found --model.beta2 2.0"),
        ({"spectral_norm": True, "gradient_checkpointing": True}, "whose gradients would be wrong"),
    ],
)
def test_aids_that_cannot_be(aids: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=re.escape(sentence)):
        model_class("stackganpp")(image_size=16, branches=1, generator_width=4, discriminator_width=4, **aids)
