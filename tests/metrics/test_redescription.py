"""Which colour a description names, the share that is the caption's by hand, and real caption writers."""

from __future__ import annotations

import json
import math

import pytest
import torch
from metrics_worker import Scribe

from t2i_zoo.__main__ import main
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.evaluation import evaluate
from t2i_zoo.metrics.flowers.drawn_captions import read_caption, written_petal_colour
from t2i_zoo.metrics.flowers.reader import ATTRIBUTES
from t2i_zoo.metrics.flowers.redescription import Redescription
from t2i_zoo.metrics.networks import Network, build_network
from t2i_zoo.metrics.protocol import Protocol, load_protocol
from t2i_zoo.models.damsm import DAMSM
from t2i_zoo.models.stream import STREAM


class Told(Scribe):
    """A caption writer that says what it is told."""

    def __init__(self, *said):
        self.said = list(said)

    def describe(self, images):
        return [self.said.pop(0) for _ in images]


def grey(count):
    return torch.zeros(count, 3, 16, 16)


def test_the_colour_that_a_description_names(flowers):
    for caption in flowers.captions:
        assert written_petal_colour(caption) == ATTRIBUTES["petal_colour"][read_caption(caption)["petal_colour"]]
    for text, colour in (
        ("a red red flower with petals a petals", "red"),
        ("this flower is with six petals around a yellow centre", None),
        ("this flower has red petals that are round and its centre is yellow", "red"),
        ("a red flower with yellow petals", None),
        ("this yellow flower has round petals and a yellow middle", "yellow"),
        ("a magenta blossom on a green background", "magenta"),
        ("", None),
    ):
        assert written_petal_colour(text) == colour, text


def test_share_and_chance_by_hand(make_job):
    told = Told("a single red flower with six petals", "a blue bloom with a black centre on the sand")
    metric = Redescription(make_job(30, network=Network("told", "", captioner=told)))
    captions = ["a red blossom against the sky", "the petals of this flower are red and round"]
    metric.update(grey(2), captions)
    told.said = ["a blue blossom against the sky", "a flower with red petals and blue petals", "a flower"]
    metric.update(grey(3), ["a blue blossom on the sand", "a white blossom on the sand", "a white blossom on the sand"])
    metric.update(grey(0), [])
    scores = {score.metric: score for score in metric.compute()}
    assert set(scores) == {f"redescription.{name}" for name in ("all", "red", "blue", "white")}
    whole = scores["redescription.all"]
    assert whole.label == "redescribed petal colour (told)"
    assert whole.value == 0.4
    assert whole.chance == pytest.approx(2 / 5 * 1 / 5 + 1 / 5 * 2 / 5)  # red said once, blue twice
    assert whole.error == pytest.approx(math.sqrt(0.4 * 0.6 / 4))
    assert whole.note == "5 of 5 captions name one colour, 2 of their descriptions none or several"
    assert [(scores[f"redescription.{name}"].value, scores[f"redescription.{name}"].chance) for name in (
        "red", "blue", "white")] == [(0.5, 0.2), (1, 0.4), (0, 0)]  # fmt: skip


def test_other_captions_are_read_by_the_rule_for_real_flowers(flowers, make_job, monkeypatch):
    texts = ["this flower has violet petals", "a flower with white and pink petals", "the flower has many petals"]
    monkeypatch.setattr(flowers.store, "captions", [texts[i % 3] for i in range(len(flowers.captions))])
    told = Told("the petals are lavender", "this flower has petals that are purple and white")
    metric = Redescription(make_job(30, network=Network("told", "", captioner=told)))
    metric.update(grey(4), [texts[0], texts[1], texts[2], texts[0]])  # the writer is asked for two alone
    assert not told.said
    whole, purple = metric.compute()
    assert (whole.metric, purple.metric) == ("redescription.all", "redescription.purple")
    assert (whole.value, purple.value) == (0.5, 0.5)
    assert whole.note == "2 of 4 captions name one colour, 1 of their descriptions none or several"


def test_refusals(flowers, make_job, monkeypatch, tiny_widths):
    with pytest.raises(T2IError, match="and codes writes no captions: give a STREAM"):
        Redescription(make_job(30))
    network = Network("scribe", "", captioner=Scribe())
    with pytest.raises(T2IError, match="found no drawn caption that names one petal colour, expected some: raise"):
        Redescription(make_job(30, network=network)).compute()
    protocol = load_protocol("rprec_damsm")
    with pytest.raises(T2IError, match="r_precision reads captions and scribe reads only images"):
        evaluate(protocol, flowers, None, network)
    monkeypatch.setattr(flowers.store, "captions", ["two boats on a lake"] * len(flowers.captions))
    with pytest.raises(T2IError, match=r"found no caption among 1 that names one petal colour, .* for other data"):
        Redescription(make_job(30, network=network))
    damsm = DAMSM(**tiny_widths("damsm"))
    assert build_network("checkpoint:run", load_checkpoint={"run": damsm}.__getitem__).captioner is None


def test_a_stream_is_a_caption_writer(flowers, tiny_widths):
    torch.manual_seed(0)
    model = STREAM(**tiny_widths("stream")).eval()
    model.know(["a", "red", "blue", "flower"])
    network = build_network("checkpoint:run", load_checkpoint={"run": model}.__getitem__)
    assert (network.label, network.dual, network.num_logits) == ("STREAM", None, 0)
    features, logits = network.look(flowers.images(torch.arange(3)))
    assert (features.shape, logits) == ((3, 6), None)
    # its codes serve other metrics too, under its name
    distance = Protocol("mine", {"frechet_distance": {"groups": 2}}, network="checkpoint:run", reference="train")
    assert evaluate(distance, flowers, None, network).scores[0].label.startswith("STREAM")


@pytest.fixture
def stream_run(tmp_path, build_data, build_trainer, tiny_widths):
    """A STREAM that was trained for three batches."""
    trainer = build_trainer(max_epochs=1, limit_train_batches=3)
    trainer.fit(STREAM(**tiny_widths("stream")), build_data("random"))
    trainer.save_checkpoint(tmp_path / "stream.ckpt")
    return tmp_path / "stream.ckpt"


def test_on_the_command_line(stream_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data.source.images", "72", "--data.source.size", "24", "--protocol", "redescription"]
    real = ["evaluate", "--ckpt", "real", "--config", "stream_synthetic", "--data.image_size", "16", *data]
    gan = ["evaluate", "--ckpt", "untrained:gancls_synthetic", "--images", "6", *data]
    for words in (real, [*real, "--batch-size", "2"], gan):
        assert main([*words, "--network", f"checkpoint:{stream_run}", "--out", "lines.jsonl"]) == 0
    lines = [json.loads(text) for text in (tmp_path / "lines.jsonl").read_text().splitlines()]
    photographs = [line for line in lines if line["checkpoint"] == "real"]
    half = len(photographs) // 2
    assert [line["value"] for line in photographs[:half]] == [line["value"] for line in photographs[half:]]
    assert lines[-1]["images"] == 6
    assert {line["network"] for line in lines} == {"STREAM"}
    assert "redescribed petal colour (STREAM)" in capsys.readouterr().out
