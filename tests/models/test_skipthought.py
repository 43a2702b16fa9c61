"""Skip-thought training: the decoders against their equations, the loss by hand, words, and a GAN that reads a run."""

from __future__ import annotations

import inspect
from math import exp, log
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from torch import Tensor, nn

from t2i_zoo.__main__ import main
from t2i_zoo.data import SyntheticFlowers
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.skipthought import SkipThought, losses
from t2i_zoo.text import build_text_encoder
from t2i_zoo.text.skip_thought_words import END, UNKNOWN, Vocabulary

BATCH: Any = {
    "captions": ["a red flower", "blue petals on the sand"],
    "neighbours": [("red petals", "a flower with red petals"), ("the sand", "blue")],
}


@pytest.fixture
def build(tiny_widths: Any) -> Any:
    """``build(max_words=4)``: a tiny model with seeded weights and, unless told otherwise, some words."""

    def seeded(words: str = "a red flower blue petals on the sand with", **changed: Any) -> SkipThought:
        L.seed_everything(3, verbose=False)
        model = SkipThought(**{**tiny_widths("skipthought"), **changed})
        model.known = Vocabulary(words.split())
        return model

    return seeded


@pytest.fixture
def keeper(tmp_path: Path) -> ModelCheckpoint:
    return ModelCheckpoint(tmp_path / "checkpoints", save_last=True, save_top_k=0, every_n_epochs=1)


def test_parameter_counts_at_the_widths_of_the_paper() -> None:
    with torch.device("meta"):
        model = SkipThought()
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    tables = 2 * 20_000 * 620
    # per unit of a GRU three gates, each with its inputs, its states and two biases
    assert count["encoder"] == tables + 7200 * (620 + 2400 + 2) + 2 * 3600 * (620 + 1200 + 2)
    decoders = 2 * 7200 * (620 + 2400 + 2400 + 2) + 20_000 * (2400 + 1)
    assert count["uni_decoders"] == count["bi_decoders"] == decoders


def test_initial_weights(build: Any) -> None:
    model = build(uni_dim=16, word_dim=8).requires_grad_(False)
    for gru in (model.encoder.uni, model.uni_decoders.after):
        for gate in gru.weight_hh_l0.chunk(3):
            torch.testing.assert_close(gate @ gate.T, torch.eye(16), atol=1e-5, rtol=0)
        bound = (6 / 8) ** 0.5  # 0.098 at the 620 numbers of the paper, where the authors have 0.1
        assert 0.95 * bound < gru.weight_ih_l0.abs().max() <= bound
        assert not gru.bias_ih_l0.any()
        assert not gru.bias_hh_l0.any()
    assert 0.09 < model.encoder.bi_words.weight.abs().max() <= 0.1
    assert not model.encoder.bi_words.weight[0].any()
    assert model.encoder.bi_words.weight[1:].any(1).all()
    assert 0.09 < model.bi_decoders.vocabulary.weight.abs().max() <= 0.1


# The loss -----------------------------------------------------------------------------------------------------------


def test_the_loss_is_a_mean_over_words() -> None:
    three = log(3.0)  # a probability of 3/4 among two words
    before, after = torch.tensor([[three, 0.0], [0.0, three]]), torch.tensor([[0.0, 0.0]])
    found = losses.neighbour_loss(before, torch.tensor([0, 0]), after, torch.tensor([1]))
    assert float(found) == pytest.approx((log(4 / 3) + log(4) + log(2)) / 3)
    half = losses.neighbour_loss(before.bfloat16(), torch.tensor([0, 0]), after, torch.tensor([1]))
    assert half.dtype == torch.float32


def step(gru: nn.GRU, word: Tensor, sentence: Tensor, h: Tensor) -> Tensor:
    """Equations 5 to 8, with the reset gate behind the recurrent product; C biases each gate."""
    w, c = gru.weight_ih_l0.split([len(word), len(sentence)], dim=1)
    parts = (w @ word + c @ sentence + gru.bias_ih_l0).chunk(3), (gru.weight_hh_l0 @ h + gru.bias_hh_l0).chunk(3)
    reset, update = ((a + b).sigmoid() for a, b in zip(*(part[:2] for part in parts), strict=True))
    return (1 - update) * (parts[0][2] + reset * parts[1][2]).tanh() + update * h


def by_hand(
    model: SkipThought, captions: list[str], neighbours: list[tuple[str, str]], known: int
) -> tuple[float, int]:
    """The loss of uni-skip summed over words, one sentence and one word at a time, and how many words there are."""
    table, decoders = model.encoder.uni_words.weight, model.uni_decoders
    total, count = 0.0, 0
    for caption, pair in zip(captions, neighbours, strict=True):
        read = torch.tensor([model.known.numbers(caption, 30, end=True)])
        sentence = model.encoder.uni(table[read])[1][0, 0]
        for decoder, neighbour in zip((decoders.before, decoders.after), pair, strict=True):
            former, h = torch.zeros(table.shape[1]), torch.zeros(len(sentence))
            for number in model.known.numbers(neighbour, 30, end=True):
                h = step(decoder, former, sentence, h)
                scores = decoders.vocabulary(h)[:known]
                total, count = total - float(scores.log_softmax(0)[number]), count + 1
                former = table[number]
    return total, count


def test_the_decoders_follow_the_equations(build: Any) -> None:
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()  # biases too
        model.encoder.uni_words.weight[0] = 0.0
        found, count = model(BATCH)
        total, words = by_hand(model, BATCH["captions"], BATCH["neighbours"], known=12)
    assert count == words == 3 + 6 + 3 + 2
    assert float(found["uni"]) == pytest.approx(total / words, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(float(found["uni"] + found["bi"]), rel=1e-6)
    assert found["uni"] != found["bi"]


@torch.no_grad()
def test_padding_has_no_influence(build: Any) -> None:
    model = build().eval()
    whole, count = model(BATCH)
    alone = [model({key: part[i : i + 1] for key, part in BATCH.items()}) for i in range(2)]
    for name in ("uni", "bi"):
        total = sum(float(found[name]) * words for found, words in alone)
        assert float(whole[name]) == pytest.approx(total / count, rel=1e-5)


@torch.no_grad()
def test_long_captions_are_cut(build: Any) -> None:
    model = build(max_words=2).eval()
    cut = {"captions": ["a red", "blue petals"], "neighbours": [("red petals", "a flower"), ("the sand", "blue")]}
    assert model(BATCH)[0] == model(cut)[0]


def test_words_are_dropped_in_training_alone(build: Any) -> None:
    model, seen = build(word_dropout=0.5), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    for training in (True, False):
        model.train(training)(BATCH)
    (dropped, lengths), (plain, _) = seen
    changed = dropped != plain
    assert changed.any()
    assert (dropped[changed] == UNKNOWN).all()
    assert (plain[changed] > END).all()
    assert lengths.tolist() == [4, 6]  # with <eos>, as the authors train
    assert [row[n - 1] for row, n in zip(plain.tolist(), lengths, strict=True)] == [END, END]
    seen.clear()
    build(word_dropout=0.0).train()(BATCH)


# Training -----------------------------------------------------------------------------------------------------------


def test_words_come_from_the_training_captions(build: Any, build_trainer: Any, build_data: Any) -> None:
    model, data = build(words="", vocabulary_size=10, learning_rate=0.0), build_data()
    build_trainer(limit_train_batches=1).fit(model, data)
    text = " ".join(data.captions_of("train")).split()
    counts = sorted({word: text.count(word) for word in text}.items(), key=lambda pair: (-pair[1], pair[0]))
    assert model.known.words == [word for word, _ in counts[:7]]
    # the decoders begin with the frequencies: each word, the unknown ones and the ends, all with one more
    often = [1, 1 + sum(n for _, n in counts[7:]), 1 + len(data.captions_of("train")), *(1 + n for _, n in counts[:7])]
    for decoders in (model.uni_decoders, model.bi_decoders):
        share = torch.tensor(often, dtype=torch.float32) / sum(often)
        torch.testing.assert_close(decoders.vocabulary.bias.detach().exp(), share)


def test_the_vector_says_which_sentences_are_near(build: Any) -> None:
    model = build(learning_rate=0.05, word_dropout=0.0, uni_dim=12, bi_dim=8)
    adam = model.configure_optimizers()
    start = float(model(BATCH)[0]["loss"].detach())
    assert start == pytest.approx(2 * log(12), rel=0.02)  # every word is as likely as any other
    for _ in range(60):
        adam.zero_grad()
        model(BATCH)[0]["loss"].backward()
        adam.step()
    with torch.no_grad():
        assert model(BATCH)[0]["loss"] < 0.1 * start
        assert model({**BATCH, "neighbours": BATCH["neighbours"][::-1]})[0]["loss"] > start


def test_every_parameter_gets_a_gradient_and_the_norm_is_clipped(
    build: Any, build_trainer: Any, tiny_data: Any
) -> None:
    norms: list[float] = []

    def note(_: L.Trainer, model: Any, *__: Any) -> None:  # after the step the gradients that it used are still there
        norms.append(float(nn.utils.get_total_norm([p.grad for p in model.parameters()])))

    model = build(words="", gradient_clip=1e-3)
    watch = LambdaCallback(on_train_batch_end=note)
    build_trainer(limit_train_batches=2, callbacks=[watch]).fit(model, tiny_data)
    assert norms == [pytest.approx(1e-3, rel=1e-3)] * 2
    lacking = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not lacking
    still = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert not still


def test_perplexity_is_of_all_words(build: Any, build_trainer: Any, build_data: Any) -> None:
    """Batches of unlike sizes: the mean is over words, not over batches."""
    model, data = build(words=""), build_data(batch_size=5)
    trainer = build_trainer(limit_train_batches=1, limit_val_batches=1.0, num_sanity_val_steps=0)
    trainer.fit(model, data)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
    parts = []
    with torch.no_grad():
        for gathered in data.val_dataloader():
            part = data.on_after_batch_transfer(gathered)
            assert "images" not in part
            parts.append(model.eval()(part))
    assert len({len(part["captions"]) for part in data.val_dataloader()}) > 1
    words = sum(count for _, count in parts)
    loss = sum(float(found["loss"]) * count for found, count in parts) / words
    assert metrics["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["val/perplexity"] == pytest.approx(exp(loss / 2), rel=1e-5)
    assert metrics["val/uni"] + metrics["val/bi"] == pytest.approx(loss, rel=1e-5)
    assert {"train/loss", "train/uni", "train/bi"} <= metrics.keys()
    trainer.test(model, data, verbose=False)
    assert float(trainer.callback_metrics["test/perplexity"]) == pytest.approx(metrics["val/perplexity"])


def test_a_checkpoint_is_whole(
    build: Any, build_trainer: Any, tiny_data: Any, keeper: ModelCheckpoint, tmp_path: Path
) -> None:
    build_trainer(limit_train_batches=1, callbacks=[keeper]).fit(model := build(words=""), tiny_data)
    found = load_model(tmp_path)
    assert isinstance(found, SkipThought)
    with torch.no_grad():
        assert found(BATCH)[0]["loss"] == model.eval()(BATCH)[0]["loss"]
    assert found.unknown_words("a zxqv flower") == ["zxqv"]
    assert set(model.hparams) == set(inspect.signature(SkipThought.__init__).parameters) - {"self"}
    build_trainer(limit_train_batches=1).fit(found, tiny_data)  # words that are there stay
    assert found.known.words == model.known.words


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"vocabulary_size": 3}, r"found --model\.vocabulary_size 3, expected more than 3"),
        ({"max_words": 0}, r"found --model\.max_words 0, expected at least 1"),
        ({"word_dropout": 1.0}, r"found --model\.word_dropout 1\.0, expected 0 or more, and less than 1"),
    ],
)
def test_wrong_options(build: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        build(**options)


def test_data_without_captions(build: Any, build_trainer: Any) -> None:
    with pytest.raises(T2IError, match="found no training captions: give SkipThought a CaptionDataModule"):
        build_trainer().fit(build(words=""), torch.utils.data.DataLoader([0]))


# The encoder of a run, and a GAN that reads it ----------------------------------------------------------------------


def test_the_encoder_of_a_run(
    build: Any, build_trainer: Any, tiny_data: Any, keeper: ModelCheckpoint, tmp_path: Path
) -> None:
    build_trainer(limit_train_batches=2, callbacks=[keeper]).fit(model := build(words=""), tiny_data)
    captions = tiny_data.captions_of("test")[:3]
    encoder = build_text_encoder({"kind": "skip_thought", "path": str(tmp_path)})
    assert encoder.known.words == model.known.words
    assert len(encoder.network.uni_words.weight) == len(model.known) <= 60  # rows that no word has stay behind
    rows = [model.known.numbers(caption, 64, end=True) for caption in captions]
    for row, found in zip(rows, encoder.encode(captions).sentence, strict=True):
        uni, bi, _ = model.encoder(torch.tensor([row]), torch.tensor([len(row)]))
        torch.testing.assert_close(found, torch.cat([F.normalize(uni), F.normalize(bi)], 1)[0].detach())
    ended = build_text_encoder({"kind": "skip_thought", "path": str(tmp_path), "use_eos": False})
    assert not torch.allclose(ended.encode(captions).sentence, encoder.encode(captions).sentence)
    few = build_text_encoder({"kind": "skip_thought", "path": str(tmp_path), "max_vocabulary": 4})
    assert few.known.words == model.known.words[:4]
    (tmp_path / "words.txt").write_text("zxqv red")
    one = build_text_encoder({"kind": "skip_thought", "path": str(tmp_path), "vocabulary": str(tmp_path / "words.txt")})
    assert one.known.words == ["red"]
    number = model.known.number("red")
    assert torch.equal(one.network.bi_words.weight[3], model.encoder.bi_words.weight[number])


def test_a_checkpoint_of_another_model_is_named(build_trainer: Any, tmp_path: Path) -> None:
    torch.save({"t2i_zoo": {"model": "t2i_zoo.models.gancls.module.GANCLS"}, "state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(T2IError, match=r"a\.ckpt is no readable checkpoint of SkipThought"):
        build_text_encoder({"kind": "skip_thought", "path": str(tmp_path / "a.ckpt")})


def test_from_captions_to_pictures_on_the_command_line(
    tiny_widths: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train an encoder by its config, train a GAN on it, lose the encoder's run, and draw a new sentence."""
    monkeypatch.chdir(tmp_path)
    SyntheticFlowers(str(tmp_path / "set"), images=48, size=24).records()
    place = ["--data.source.root", str(tmp_path / "set"), "--data.batch_size", "8", "--data.image_size", "16"]
    quick = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"]
    quick += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    quick += ["--trainer.check_val_every_n_epoch", "1", "--trainer.log_every_n_steps", "1"]
    widths = [word for k, v in tiny_widths("skipthought").items() for word in (f"--model.{k}", str(v))]
    assert main(["fit", "--config", "skipthought_flowers", *place, *quick, *widths]) == 0
    run = tmp_path / "runs" / "skipthought_flowers"
    assert "val/perplexity" in (run / "version_0" / "metrics.csv").read_text().splitlines()[0]
    again = ["--config", str(run / "version_0" / "config.yaml"), "--ckpt_path", "last"]
    assert main(["test", *again, "--trainer.default_root_dir", str(run)]) == 0
    capsys.readouterr()
    assert main(["predict", *again, "--trainer.default_root_dir", str(run)]) == 2
    assert "SkipThought generates no images" in capsys.readouterr().err
    small = ["--model.generator_width", "4", "--model.discriminator_width", "4", "--model.image_size", "16"]
    spec = ["--model.text_encoder", f"{{kind: skip_thought, path: {run}}}", "--samples.rows", "2"]
    assert main(["fit", "--config", "gancls_flowers", *place, *quick, *small, *spec]) == 0
    gan = tmp_path / "runs" / "gancls_flowers"
    noise, sentence = torch.zeros(1, 100), ["a violet flower with a red centre"]
    before = load_model(gan).generate(sentence, noise=noise)
    run.rename(tmp_path / "elsewhere")
    model = load_model(gan)
    assert model.text_encoder.dim == 5 + 2 * 4
    assert torch.equal(model.generate(sentence, noise=noise), before)
    assert not torch.equal(model.generate(["a blue flower"], noise=noise), before)
    assert model.unknown_words("a zxqv flower") == ["zxqv"]
