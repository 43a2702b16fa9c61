"""STREAM: what it learns from, what it writes, and what its checkpoints hold."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from t2i_zoo import load_model
from t2i_zoo.errors import T2IError
from t2i_zoo.models.stream import STREAM
from t2i_zoo.models.stream.losses import class_loss
from t2i_zoo.models.stream.networks import Writer
from t2i_zoo.text.vocabulary import END, Words


@pytest.fixture
def build(tiny_widths: Any) -> Any:
    def seeded(**changed: Any) -> STREAM:
        L.seed_everything(3, verbose=False)
        return STREAM(**{**tiny_widths("stream"), **changed})

    return seeded


@pytest.fixture
def writer() -> Writer:
    torch.manual_seed(0)
    found = Writer(5, 3, 4)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_()
    return found


def score(writer: Writer, code: torch.Tensor, row: list[int], end: bool) -> float:
    """Sum of log-probabilities of one caption, word by word with the cell itself."""
    state, total, read = None, 0.0, code[None, None]
    for word in [*row, END] if end else row:
        output, state = writer.lstm(read, state)
        total += float(F.log_softmax(writer.linear(output[0, 0]), 0)[word])
        read = writer.embed(torch.tensor([[word]]))
    return total


def test_each_word_is_guessed_from_the_words_before(writer: Writer) -> None:
    rows, codes = [[1, 4, 2], [3]], torch.randn(2, 3)
    numbers = torch.tensor([[1, 4, 2], [3, 0, 0]])
    with torch.no_grad():
        scores, words = writer(codes, numbers, torch.tensor([3, 1]))
        assert sorted(words.tolist()) == [1, 2, 3, 4]
        expected = -sum(score(writer, code, row, end=False) for code, row in zip(codes, rows, strict=True)) / 4
        assert float(F.cross_entropy(scores, words)) == pytest.approx(expected, rel=1e-5)


def test_greedy_takes_the_likeliest_word_each_time(writer: Writer) -> None:
    with torch.no_grad():
        for code in torch.randn(6, 3):
            row = writer.write(code[None], 4)[0]
            for i, word in enumerate(row):
                best = max(range(5), key=lambda w: score(writer, code, [*row[:i], w], end=False))
                assert word == best
            assert END not in row


def test_a_wide_beam_finds_the_best_caption_of_all(writer: Writer) -> None:
    every = [list(row) for n in range(4) for row in itertools.product(range(1, 5), repeat=n)]
    with torch.no_grad():
        for code in torch.randn(3, 3):

            def mean(row: list[int]) -> float:
                ended = len(row) < 3  # at the limit a caption has no end
                return score(writer, code, row, ended) / (len(row) + ended)  # noqa: B023

            found = writer.write(code[None], 3, beam=1 + 4 + 16 + 64)[0]  # forgets none
            assert mean(found) == pytest.approx(max(map(mean, every)), abs=1e-5)


def test_it_learns_the_captions_of_pictures(build: Any) -> None:
    model = build(batch_norm="train")
    captions = ["a red flower", "two blue flowers on the grass", "white"]
    model.know(Words.of_captions(captions).words)
    pictures = torch.tensor([[1.0, -1, -1], [-1, -1, 1], [1, 1, 1]])[:, :, None, None].expand(-1, -1, 32, 32)
    adam = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        loss, count, _ = model(pictures, captions)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert count == 3 + 6 + 1 + 3  # with their ends
    model.reader.norm.momentum = None  # few steps: take the mean of all batches
    model.reader.norm.reset_running_stats()
    with torch.no_grad():
        model(pictures, captions)
        codes = model.reader(pictures)
        rows = model.writer.write(codes, 20)
    assert [" ".join(model.known.words[n - 1] for n in row) for row in rows] == captions
    assert model.describe(pictures[:1].clone(), limit=2)[0].count(" ") <= 1
    assert float(model.caption_loss(pictures, captions)) == pytest.approx(
        float(model(pictures, captions, end=False)[0]), rel=1e-3
    )


def test_a_caption_that_is_cut_has_no_end(build: Any) -> None:
    model = build(max_words=3)
    model.know(["a", "red", "flower", "here"])
    pictures = torch.zeros(2, 3, 32, 32)
    assert model(pictures, ["a red flower here", "a red flower"])[1] == 3 + 3 + 1
    assert model(pictures, ["a red flower here", "a red flower"], end=False)[1] == 3 + 3


def test_validation_reports_perplexity_and_bleu(build: Any, build_trainer: Any, build_data: Any) -> None:
    trainer, model = build_trainer(max_epochs=1, limit_val_batches=1.0), build()
    trainer.fit(model, build_data(image_size=32, batch_size=5))  # batches of different numbers of words
    found = trainer.callback_metrics
    assert float(found["val/perplexity"]) == pytest.approx(math.exp(float(found["val/loss"])), rel=1e-5)
    assert 0 <= float(found["val/bleu4"]) <= 1
    assert not any("bleu" in key for key in model.state_dict())


def test_a_checkpoint_brings_its_words_and_starts_another_run(
    build: Any, build_trainer: Any, build_data: Any, tmp_path: Path
) -> None:
    trainer, model = build_trainer(max_steps=1), build()
    trainer.fit(model, build_data(image_size=32))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = load_model(tmp_path / "last.ckpt")
    assert isinstance(again, STREAM)
    assert again.known.words == model.known.words
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    assert again.describe(pictures) == model.describe(pictures)
    started = build(weights=str(tmp_path / "last.ckpt"))
    assert started.known.words == model.known.words
    assert torch.equal(started.writer.embed.weight, model.writer.embed.weight)


def test_a_frozen_backbone_keeps_its_weights_and_on_request_its_statistics(
    build: Any, build_trainer: Any, build_data: Any, tmp_path: Path
) -> None:
    torch.save(
        build().reader.backbone.net.state_dict() | {"fc.weight": torch.zeros(1000, 1024), "fc.bias": torch.zeros(1000)},
        tmp_path / "net.pth",
    )
    for batch_norm in ("train", "eval"):
        model = build(backbone_weights=str(tmp_path / "net.pth"), train_backbone=False, batch_norm=batch_norm)
        before = {key: value.clone() for key, value in model.reader.backbone.state_dict().items()}
        build_trainer(max_steps=2).fit(model, build_data(image_size=32))
        moved = {
            key for key, value in model.reader.backbone.state_dict().items() if not torch.equal(value, before[key])
        }
        assert all("running" in key or "tracked" in key for key in moved)
        assert bool(moved) == (batch_norm == "train")


def test_refusals(build: Any, build_trainer: Any, build_data: Any) -> None:
    with pytest.raises(T2IError, match=r"backbone_weights random with a frozen backbone"):
        build(train_backbone=False)
    with pytest.raises(T2IError, match=r"found --model\.max_words 0, expected at least 1"):
        build(max_words=0)
    with pytest.raises(T2IError, match=r"vocabulary_size 1, expected at least 2"):
        build(vocabulary_size=1)
    with pytest.raises(T2IError, match=r"class_weight without --model\.num_classes"):
        build(class_weight=1.0)
    with pytest.raises(T2IError, match="STREAM generates no images"):
        build_trainer().predict(build(), build_data(image_size=32))


def test_classes_teach_the_backbone_too(build: Any, build_trainer: Any, build_data: Any) -> None:
    model = build(class_weight=2.0, num_classes=24)
    trainer = build_trainer(max_steps=2)
    trainer.fit(model, build_data(image_size=32))
    assert float(trainer.callback_metrics["train/class"]) > 0
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [5.0, 0.0]])
    expected = (F.cross_entropy(scores[:1], torch.tensor([1])) + F.cross_entropy(scores[1:2], torch.tensor([1]))) / 2
    assert torch.allclose(class_loss(scores, torch.tensor([1, 1, -1])), expected)
    assert float(class_loss(scores, torch.tensor([-1, -1, -1]))) == 0.0
