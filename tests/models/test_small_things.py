"""What whole steps do not show: numbers that only some option, an odd size or a rare input brings out."""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from t2i_zoo import GANCLS, TACGAN, Classifier, StackGAN
from t2i_zoo.data.plan import Planner
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics import msssim
from t2i_zoo.metrics.base import mean_and_error, share_score
from t2i_zoo.metrics.neighbours import nearest
from t2i_zoo.models.classifier import networks as classifier_networks
from t2i_zoo.models.optimization import move_average
from t2i_zoo.models.stream.networks import END, Writer
from t2i_zoo.nn import ADVERSARIAL, AdversarialLoss, Logits
from t2i_zoo.nn.damsm import pair_losses
from t2i_zoo.nn.losses import discriminator_terms
from t2i_zoo.nn.projected import down_block
from t2i_zoo.nn.spectral import SpectralNorm


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Constant(AdversarialLoss):
    """Every term is a number, and every term is told the logits that it is compared with."""

    relative = True

    def __init__(self, value: float) -> None:
        self.value = value

    def _term(self, own: Tensor, other: Tensor | None) -> Tensor:
        assert other is not None
        assert other.shape == own.shape
        return own.detach().float() * 0 + self.value

    def real(self, real: Tensor, fake: Tensor | None = None, target: float = 1.0) -> Tensor:
        return self._term(real, fake if fake is not None and fake.shape == real.shape else real)

    def fake(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return self._term(fake, real)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        return self._term(fake, real)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (GANCLS, {"interpolation_weight": 1.0}),
        (StackGAN, {"image_size": 16, "exclude_same_class": True}),
        (TACGAN, {"image_size": 16, "num_classes": 3}),
    ],
)
def test_every_term_is_of_the_chosen_loss(kind: Any, options: dict[str, Any], tiny_options: Any) -> None:
    widths = {"generator_width": 8, "discriminator_width": 4}
    model = kind(**{**tiny_options, **widths, **options})
    images = [torch.rand(4, 3, 16, 16, generator=rng()) * 2 - 1]
    captions = ["a red flower", "a blue flower", "a white flower", "a pink one"]
    batch: Any = {"images": images, "captions": captions, "labels": torch.tensor([0, 1, 2, 1])}
    batch |= {"wrong_captions": captions[::-1], "wrong_images": [x.flip(0) for x in images]}
    batch |= {"wrong_labels": batch["labels"].flip(0)}
    batch["text"] = model.encode(batch)
    model.rng = rng()
    fakes = model.fake(batch)
    found = []
    for value in (0.0, 1.0):
        model.adversarial = Constant(value)
        judged = model.discriminator_loss(batch, fakes.detach()), model.generator_loss(batch, fakes)
        others = [sum(float(x) for k, x in terms.items() if "class" in k or "kl" in k) for terms in judged]
        found.append((judged, others))
    ((nothing, others), (ones, _)) = found
    if kind is GANCLS:  # real, half mismatched and half fake pairs; a mean over all sentences
        assert [float(terms["loss"]) for terms in nothing] == [0, 0]
        assert [float(terms["loss"]) for terms in ones] == [2, 1]
    if kind is TACGAN:  # the class terms are not adversarial
        assert float(nothing[0]["loss"]) == pytest.approx(others[0])
    if kind is StackGAN:
        assert float(nothing[0]["loss"]) == 0
        assert float(ones[0]["loss"]) == 2


def test_unconditional_terms_of_a_relative_loss() -> None:
    real, fake = (torch.randn(2, 5, generator=rng(seed)) for seed in (1, 2))
    terms = discriminator_terms(Logits(*real), None, Logits(*fake), loss=ADVERSARIAL["relativistic"])
    for name, at in (("fake", 0), ("fake_alone", 1)):
        assert float(terms[name]) == pytest.approx(float((fake[at] - real[at]).exp().log1p().mean()), rel=1e-5)


def test_logits() -> None:
    matched, classes = torch.randn(4, 2, 3, generator=rng()), torch.randn(4, 5, generator=rng(1))
    some = Logits(matched=matched, classes=classes).rows(slice(1, 3))
    assert torch.equal(some.matched, matched[1:3])  # type: ignore[arg-type]
    assert torch.equal(some.classes, classes[1:3])  # type: ignore[arg-type]
    assert some.unconditional is None
    alone = torch.randn(4, generator=rng(2))
    both = Logits(matched=matched, unconditional=alone, classes=classes).all()
    assert torch.equal(both, torch.cat([matched.reshape(4, 6), alone[:, None]], 1))


def test_captions_of_class_0_are_no_mismatches() -> None:
    scores = torch.randn(3, 3, generator=rng())
    first, second = (pair_losses(scores, torch.tensor(ids)) for ids in ([0, 0, 1], [5, 5, 1]))
    other = pair_losses(scores, torch.tensor([-1, -1, 1]))
    assert [float(x) for x in first] == [float(x) for x in second] != [float(x) for x in other]


def test_spectral_norm_in_half_precision() -> None:
    weight = torch.randn(6, 4, generator=rng())
    torch.manual_seed(0)
    norm = SpectralNorm(weight).eval()
    wanted = norm(weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(weight), wanted)


@pytest.mark.parametrize("values", [[1.0, 4.0], [2.0, 2.0, 5.0, 7.0]])
def test_errors(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    mean, error = mean_and_error(torch.tensor(len(x)), x.sum(), x.square().sum())
    assert mean == pytest.approx(float(x.mean()))
    assert error == pytest.approx(float(x.std() / len(x) ** 0.5))
    assert mean_and_error(torch.tensor(1), x[0], x[0] ** 2) == (values[0], None)
    score = share_score("a", "b", torch.tensor(0.25), 0.1, len(values))
    assert score.error == pytest.approx((0.25 * 0.75 / (len(values) - 1)) ** 0.5)
    assert share_score("a", "b", torch.tensor(0.25), 0.1, 1).error is None


def test_no_neighbours_of_nothing() -> None:
    assert nearest(torch.zeros(0, 3), torch.zeros(2, 3)).shape == (0,)
    assert nearest(torch.zeros(1, 3), torch.ones(2, 3)).tolist() == pytest.approx([3**0.5])


@pytest.mark.parametrize("side", [16, 6])
def test_similarity_by_loops(side: int) -> None:
    x, y = (torch.rand(1, 1, side, side, generator=rng(seed), dtype=torch.float64) for seed in (0, 1))
    size = min(11, side)
    weights = [math.exp(-((i - (size - 1) / 2) ** 2) / (2 * (1.5 * size / 11) ** 2)) for i in range(size)]
    weights = [w / sum(weights) for w in weights]
    found = []
    for top, left in itertools.product(range(side - size + 1), repeat=2):
        moments = dict.fromkeys(("x", "y", "xx", "yy", "xy"), 0.0)
        for i, j in itertools.product(range(size), repeat=2):
            a, b, w = float(x[0, 0, top + i, left + j]), float(y[0, 0, top + i, left + j]), weights[i] * weights[j]
            for name, value in {"x": a, "y": b, "xx": a * a, "yy": b * b, "xy": a * b}.items():
                moments[name] += w * value
        m = moments
        c1, c2 = (0.01 * 2.0) ** 2, (0.03 * 2.0) ** 2
        contrast = (2 * (m["xy"] - m["x"] * m["y"]) + c2) / (m["xx"] - m["x"] ** 2 + m["yy"] - m["y"] ** 2 + c2)
        found.append(((2 * m["x"] * m["y"] + c1) / (m["x"] ** 2 + m["y"] ** 2 + c1) * contrast, contrast))
    similarity, contrast = msssim._one_scale(x, y, 2.0)
    assert float(similarity) == pytest.approx(sum(a for a, _ in found) / len(found), rel=1e-9)
    assert float(contrast) == pytest.approx(sum(b for _, b in found) / len(found), rel=1e-9)


def test_batches_of_an_evaluation_wrap() -> None:
    planner = object.__new__(Planner)
    vars(planner).update(rows=torch.arange(11), world=2, train=False, batch_size=4)
    assert len(planner) == 2  # six images for each process
    vars(planner).update(train=True)
    assert len(planner) == 1


def test_the_classifiers_augmentation() -> None:
    count = 4000
    grey = classifier_networks.augment(torch.zeros(count, 3, 1, 1), 0.5, 1.0, rng())
    value = (grey[:, 0, 0, 0] + 1) / 2  # 1/2 times a brightness from 1/2 to 3/2
    assert [float(value.min()), float(value.mean()), float(value.max())] == pytest.approx([0.25, 0.5, 0.75], abs=0.01)
    colour = torch.tensor([0.02, 0.0, -0.02]).view(1, 3, 1, 1).expand(count, -1, 2, 2)
    drawn = classifier_networks.augment(colour, 0.5, 1.0, rng())
    spread = (drawn[:, 0] - drawn[:, 2]).mean((1, 2)) / (drawn.mean((1, 2, 3)) + 1) / 0.04  # saturation x contrast
    assert float(spread.min()) == pytest.approx(0.25, abs=0.03)
    assert float(spread.max()) == pytest.approx(2.25, abs=0.15)
    ramp = torch.linspace(-1, 1, 64).view(1, 1, 1, 64).expand(count, 3, 4, -1)
    centre = classifier_networks.augment(ramp, 0.0, 0.5, rng())[:, 0, 0, 31:33].mean(1)
    assert [float(centre.min()), float(centre.mean()), float(centre.max())] == pytest.approx([-0.5, 0, 0.5], abs=0.06)


def test_the_classifiers_loss_smooths_and_its_rate_may_stay(tiny_widths: Any) -> None:
    torch.manual_seed(0)
    options = {
        k: v
        for k, v in tiny_widths("classifier").items()
        if k not in ("label_smoothing", "cosine_decay", "colour", "scale")
    }
    model = Classifier(**options, label_smoothing=0.5, colour=0.0, scale=1.0, cosine_decay=False)
    assert isinstance(model.configure_optimizers(), torch.optim.AdamW)
    logged: dict[str, Tensor] = {}
    model.log_training = lambda found, count: logged.update(found) or found["loss"]  # type: ignore[method-assign]
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.5, 1.0, 0.0]])
    model.forward = lambda images: logits  # type: ignore[method-assign]
    model.row_of = torch.tensor([0, 1, 2])
    batch: Any = {"images": [torch.zeros(2, 3, 8, 8)], "labels": torch.tensor([0, 2])}
    model.training_step(batch, 0)
    target = torch.full((2, 3), 0.5 / 3)
    target[0, 0] += 0.5
    target[1, 2] += 0.5
    assert float(logged["loss"]) == pytest.approx(float(-(target * logits.log_softmax(1)).sum(1).mean()), rel=1e-5)
    assert float(logged["accuracy"]) == 0.5


def test_beams_find_the_best_caption_of_all() -> None:
    torch.manual_seed(3)
    words, limit = 3, 3
    writer = Writer(words, 4, 5)
    with torch.no_grad():
        for parameter in writer.parameters():
            parameter.normal_(0, 1.5)
    codes = torch.randn(2, 4, generator=rng())
    everything = (words + 1) ** limit  # so many beams that none is lost
    found = writer.write(codes, limit, min(everything, words + 1))
    for code, caption in zip(codes, writer.write(codes, limit, 1), strict=True):
        assert len(caption) <= limit  # greedy
        state, inputs, expected = None, code[None], []
        for _ in range(limit):
            output, state = writer.lstm(inputs[:, None], state)
            word = int(writer.linear(output[:, 0]).argmax())
            if word == END:
                break
            expected.append(word)
            inputs = writer.embed(torch.tensor([word]))
        assert caption == expected
    assert len({tuple(row) for row in found}) <= 2
    assert all(word != END for row in found for word in row)


def test_words_are_numbered_from_one() -> None:
    from t2i_zoo import STREAM

    known = type("Known", (), {"words": ["red", "blue", "green"], "__len__": lambda self: 3})()
    model = SimpleNamespace(known=known)
    model.device = torch.device("cpu")
    model.reader, model.writer = (lambda x: x), SimpleNamespace(write=lambda *_: [[1, 3], [2]])
    model.evaluating = torch.no_grad
    assert STREAM.describe(model, torch.zeros(2, 3, 4, 4)) == ["red green", "blue"]  # type: ignore[arg-type]


def test_separable_blocks_have_one_filter_per_channel() -> None:
    depthwise, pointwise = down_block(6, 8, separable=True)[:2]
    assert (depthwise.weight.shape, pointwise.weight.shape) == ((6, 1, 3, 3), (8, 6, 1, 1))


@pytest.mark.parametrize("options", [{"architecture": "dcgan"}, {"text_norm": True}, {"interpolation_weight": 1.0}])
def test_images_that_a_batch_must_have(options: dict[str, Any], tiny_options: Any) -> None:
    widths = {"generator_width": 8, "discriminator_width": 4}
    assert GANCLS(**tiny_options, **widths).needs.least == 1
    assert GANCLS(**tiny_options, **widths, **options).needs.least == 2


def test_held_out_images_of_other_classes_are_refused_after_the_sanity_check(
    tiny_widths: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier(**tiny_widths("classifier"))
    monkeypatch.setattr(model, "all_gather", lambda parts: parts)
    unknown = torch.full((2,), -1)
    for checking in (True, False):
        model._pool = [(torch.arange(2), unknown, unknown, torch.zeros(2))]
        model._trainer = SimpleNamespace(sanity_checking=checking)  # type: ignore[assignment]
        refused = contextlib.nullcontext() if checking else pytest.raises(T2IError, match="no held-out image of the")
        with refused:
            model.summarise("val")
        assert model._pool == []
        assert model.held_out == {}


def test_the_average_copies_the_buffers_of_a_kind_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    live = nn.Sequential(*(nn.BatchNorm1d(3) for _ in range(2)))
    average, kinds, copy_all = copy.deepcopy(live), [], torch._foreach_copy_
    live(torch.randn(4, 3))

    def watched(to: list[Tensor], buffers: list[Tensor]) -> None:
        kinds.append({tensor.dtype for tensor in (*to, *buffers)})
        copy_all(to, buffers)

    monkeypatch.setattr(torch, "_foreach_copy_", watched)
    move_average(average, live, 0.9)
    assert kinds == [{torch.float32}, {torch.int64}]
    assert all(torch.equal(a, b) for a, b in zip(average.buffers(), live.buffers(), strict=True))
