"""Micro-batches: the step of a whole batch, to rounding, for networks that do not look at the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from steps import Watched, batch_of, close, drawn, exact, filled  # noqa: F401  a fixture
from torch import Tensor

from t2i_zoo.batch import Batch, Fakes
from t2i_zoo.errors import T2IError
from t2i_zoo.models.dfgan import DFGAN
from t2i_zoo.models.optimization import micro_batches
from t2i_zoo.text import TextFeatures

SMALL = {"image_size": 16, "noise_dim": 4, "generator_width": 4, "discriminator_width": 4}
OPTIONS = {
    "joint": {"matching_penalty": 2.0, "ema_half_life": 20.0},
    "separate": {"penalty_step": "separate", "penalty_every": 2, "r1": 0.5, "gradient_clip": 0.1},
}


class Apart(DFGAN):
    """DF-GAN without mismatched pairs, which are those of a micro-batch."""

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        text = batch["text"].sentence
        pairs = [(batch["images"], True, -1.0), (fakes.images, False, 1.0)]
        judged = [sign * self.observe(images, real=real).judge(text)[0].matched for images, real, sign in pairs]
        return {"loss": torch.nn.functional.softplus(torch.cat(judged)).mean()}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("count", [2, 4])
def test_micro_batches_train_as_the_whole_batch(exact: None, options: dict[str, Any], count: int) -> None:  # noqa: F811
    def trained(accumulate: int) -> tuple[dict[str, Tensor], list[Any], list[int]]:
        text = {"kind": "hashing", "dim": 8}
        model = Apart(**SMALL, text_encoder=text, learning_rate=0.01, accumulate=accumulate, **options).train()
        filled(model)
        noise, sizes = iter(drawn(1, 18, 4)), list[int]()
        model.noise = lambda count, rng: torch.stack([next(noise) for _ in range(count)])
        model.generator.register_forward_hook(lambda *_: sizes.append(len(_[2])))
        optimizers, history = [Watched(model, one) for one in model.configure_optimizers()[0]], []
        for seed in (10, 20, 30):
            history.append(model.step(batch_of(seed, (16,), 8), *optimizers))
        assert model.clock == 3
        return dict(model.state_dict()), [history, [one.norms for one in optimizers]], sizes

    (state, (history, norms), _), (cut, (history_cut, norms_cut), sizes) = trained(1), trained(count)
    close(cut, state, "weights")
    for step, step_cut in zip(history, history_cut, strict=True):
        for network, terms in step.items():
            close(step_cut[network], terms, network)
    for one, one_cut in zip(norms, norms_cut, strict=True):
        for found, found_cut in zip(one, one_cut, strict=True):  # as many updates
            close(found_cut, found, "gradients")
    assert max(sizes) == -(-6 // count)


def test_a_batch_is_cut_with_all_that_belongs_to_it() -> None:
    words = TextFeatures(drawn(1, 7, 3), drawn(2, 7, 4, 2), torch.ones(7, 4, dtype=torch.bool))
    pyramid, labels = [drawn(3, 7, 3, 4, 4), drawn(4, 7, 3, 8, 8)], torch.arange(7)
    batch: Any = {"captions": list("abcdefg"), "text": words, "images": pyramid, "labels": labels}
    parts = micro_batches(batch, 3)
    assert ["".join(part.batch["captions"]) for part in parts] == ["ab", "cd", "efg"]
    assert [part.share * 7 for part in parts] == pytest.approx([2, 2, 3])
    assert [part.last for part in parts] == [False, False, True]
    assert torch.equal(torch.cat([part.batch["labels"] for part in parts]), labels)
    for place, whole in enumerate(words):
        assert torch.equal(torch.cat([part.batch["text"][place] for part in parts]), whole)
    for place, images in enumerate(pyramid):
        assert torch.equal(torch.cat([part.batch["images"][place] for part in parts]), images)
    assert [len(micro_batches(batch, 3, least)) for least in (2, 3, 4)] == [3, 2, 1]
    assert micro_batches(batch, 1)[0].batch is batch


def test_runs_count_whole_batches_and_resume_between_them(build_trainer: Any, build_data: Any, tmp_path: Path) -> None:
    def fit(epochs: int, resumed: Path | None = None) -> tuple[DFGAN, Any]:
        L.seed_everything(7 + epochs if resumed else 7, verbose=False)
        model = DFGAN(**SMALL, text_encoder={"kind": "hashing", "dim": 8}, accumulate=3)
        trainer = build_trainer(max_epochs=epochs, limit_train_batches=2)
        trainer.fit(model, build_data(), ckpt_path=resumed)
        return model, trainer

    whole, trainer = fit(2)
    assert (whole.clock, trainer.global_step) == (4, 8)
    fit(1)[1].save_checkpoint(tmp_path / "first.ckpt")
    resumed, _ = fit(2, tmp_path / "first.ckpt")
    assert resumed.clock == 4
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_too_many_micro_batches(build_trainer: Any, build_data: Any) -> None:
    model = DFGAN(**SMALL, text_encoder={"kind": "hashing", "dim": 8}, accumulate=9)
    with pytest.raises(T2IError, match=r"found --model\.accumulate 9 for --data\.batch_size 8, expected micro"):
        build_trainer().fit(model, build_data())
