"""t2i-zoo evaluate: the same digits twice, what a line holds, floors and ceilings, and mistakes as one sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from t2i_zoo.__main__ import main
from t2i_zoo.commands.evaluate import find_photographs, find_subject
from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.protocol import list_protocols, load_protocol


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, which may be written to."""
    return Path(shutil.copytree(trained, tmp_path / "copied" / "version_0"))


def lines(path):
    return [json.loads(text) for text in (path / "metrics.jsonl").read_text().splitlines()]


def test_twice_the_same_digits_and_all_that_they_depend_on(run, network, capsys):
    words = ["evaluate", "--ckpt", str(run), "--protocol", "tiny", "--network", network]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert main([*words, "--batch-size", "24"]) == 0
    again = capsys.readouterr().out
    hash_ = load_protocol("tiny").change(network=network).hash
    assert f"protocol tiny {hash_}: 24 images" in said
    table = said.partition("\n\n")[2]
    assert table == again.partition("\n\n")[2]
    assert "small Frechet distance" in table
    assert "FID" not in said
    found = lines(run)
    half = len(found) // 2
    first, second = found[:half], found[half:]
    assert [x["value"] for x in first] == [x["value"] for x in second]
    assert {x["metric"] for x in first} >= {"frechet_distance", "kernel_distance", "inception_score", "prdc.recall"}
    for line in first:
        assert (line["protocol"], line["protocol_hash"], line["model"]) == ("tiny", hash_, "GANCLS")
        assert re.fullmatch(r"[0-9a-f]{16}", line["checkpoint_sha256"])
        assert (line["images"], line["size"], line["split"], line["batches"]) == (24, 16, "train", 6)
        assert line["versions"]["torch"] == torch.__version__
        assert line["seconds"] > 0
        assert line["protocol_content"]["images"] == 24


def test_overrides_change_hash_and_digits(run, network):
    words = ["evaluate", "--ckpt", str(run), "--protocol", "tiny", "--network", network]
    for more in ([], ["--images", "26"], ["--seed", "1"], ["--live"]):
        assert main([*words, *more]) == 0
    found = [line for line in lines(run) if line["metric"] == "frechet_distance"]
    assert len({line["protocol_hash"] for line in found}) == len({line["value"] for line in found}) == 4
    assert [line["images"] for line in found] == [24, 26, 24, 24]


def test_floor_and_ceiling(words, tmp_path, monkeypatch, trained, capsys):
    monkeypatch.chdir(tmp_path)
    config = str(trained / "config.yaml")
    words = ["--protocol", "agreement_synthetic", "--images", "40"]
    assert main(["evaluate", "--ckpt", "real", "--config", config, *words]) == 0
    assert main(["evaluate", "--ckpt", f"untrained:{config}", *words, "--out", str(tmp_path / "u" / "m.jsonl")]) == 0
    assert "GANCLS, untrained" not in capsys.readouterr().err
    real = {x["metric"]: x for x in lines(tmp_path / "runs" / "real")}
    drawn = [json.loads(text) for text in (tmp_path / "u" / "m.jsonl").read_text().splitlines()]
    untrained = {x["metric"]: x for x in drawn}
    name = "agreement.background"
    assert real[name]["value"] == 1.0
    assert untrained[name]["value"] < 0.8
    assert untrained[name]["checkpoint"] == f"untrained:{config}"
    assert (real[name]["checkpoint"], real[name]["model"]) == ("real", None)
    assert not (tmp_path / "runs" / "untrained_config").exists()


def test_other_data_than_the_runs(run, network):
    words = ["evaluate", "--ckpt", str(run), "--protocol", "tiny", "--network", network]
    assert main([*words, "--data.source.seed", "1"]) == 0
    assert main(words) == 0
    other, own = (line for line in lines(run) if line["metric"] == "frechet_distance")
    assert other["data"] != own["data"]
    assert other["value"] != own["value"]


def test_a_smaller_size_shows_the_same_part_of_the_photographs(run):
    """A load size in the config would leave the middle alone, where drawn images are resized whole."""
    cuts = []
    for words in (["--data.load_size", "null"], ["--data.load_size", "32"]):
        for size in (16, 8):
            photographs, module = find_photographs(find_subject(str(run)), words, size)
            cuts.append((module.spec.load_size / size, photographs.size))
    assert cuts == [(19 / 16, 16), (10 / 8, 8), (2.0, 16), (2.0, 8)]


def test_another_image_size_than_the_configs_shows_the_same_part_of_the_photographs():
    words = ["--config", "gancls_synthetic", "--data.image_size", "16"]
    words += ["--data.source.images", "24", "--data.source.size", "16"]
    photographs, module = find_photographs(find_subject("real"), words, None)
    assert (module.spec.load_size, photographs.size) == (16, 16)


def test_no_last_weights_in_an_exported_file(run, tmp_path, mistake):
    assert main(["export", "--ckpt", str(run), "--out", str(tmp_path / "mine.safetensors")]) == 0
    said = mistake(
        "evaluate", "--ckpt", str(tmp_path / "mine.safetensors"), "--protocol", "agreement_synthetic", "--live"
    )
    assert said.startswith("found --live and ")


def test_a_checkpoint_without_its_run(run, network, tmp_path, mistake):
    (tmp_path / "alone").mkdir()
    alone = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone" / "model.ckpt")
    words = ["--ckpt", str(alone), "--protocol", "tiny", "--network", network]
    assert mistake("evaluate", *words).startswith("found no config.yaml beside")
    source = ["--data.source", "SyntheticFlowers", "--data.source.images", "64", "--data.source.size", "24"]
    assert main(["evaluate", *source, *words]) == 0
    assert lines(tmp_path / "alone")[0]["size"] == 16  # the model's


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--protocol", "tiny"], "the protocol tiny leaves its network open: name one with --network"),
        (["--protocol", "tyny"], "found no protocol 'tyny', expected a YAML file or a packaged one: try tiny"),
        ([], "found no --protocol: give it"),
        (["--protocol", "agreement_synthetic", "--images", "many"], "found --images many, expected an integer"),
        (
            ["--protocol", "agreement_synthetic", "--batch-size", "0"],
            "found --batch-size 0, expected an integer of at",
        ),
        (["--protocol", "agreement_synthetic", "--data.sourse", "x"], "found no option --data.sourse: did you mean"),
        (["--protocol", "agreement_synthetic", "--model", "x"], "found no option --model"),
        (["--protocol", "agreement_synthetic", "--network", "a"], "found a network a for the protocol agreement_s"),
        (
            ["--protocol", "agreement_synthetic", "--weights", "a.pt"],
            "found --weights for the protocol agreement_synth",
        ),
        (["--protocol", "tiny", "--network", "file:a.pt", "--weights", "a"], "found --weights and the network file:a"),
        (["--protocol", "rprec_clip", "--weights", "a"], "found --weights and the network transformers:"),
        (["--protocol", "rprec_clip", "--network", "clip"], "found the network 'clip', expected inception_v3_tf"),
        (["--protocol", "rprec_damsm", "--network", "file:nowhere.pt"], "found no network file nowhere.pt"),
    ],
)
def test_mistakes(more, message, trained, mistake):
    assert mistake("evaluate", "--ckpt", str(trained), *more).startswith(message)


def test_help_names_protocols_and_data(capsys):
    assert main(["evaluate", "--help"]) == 0
    said = capsys.readouterr().out
    assert [name for name in list_protocols() if name not in said] == []
    assert "--data.source" in said


def test_a_place_that_cannot_be_written_is_named_before_anything_is_drawn(trained, tmp_path, monkeypatch, mistake):
    def draws(*given, **named):
        raise AssertionError("drawn in vain")

    monkeypatch.setattr("t2i_zoo.commands.evaluate.run_protocol", draws)
    (tmp_path / "file").write_text("")
    words = ["--protocol", "agreement_synthetic", "--images", "8", "--out", str(tmp_path / "file" / "m.jsonl")]
    assert "give another --out" in mistake("evaluate", "--ckpt", str(trained), *words)


def test_a_failed_evaluation_leaves_no_file(trained, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").write_text("{}\n")
    words = ["--config", str(trained / "config.yaml"), "--protocol", "diversity_caption"]
    for out in ([], ["--out", "there.jsonl"]):
        said = mistake("evaluate", "--ckpt", "real", *words, *out)
        assert said.startswith("found caption_diversity for real images")
    assert [path.name for path in tmp_path.iterdir()] == ["there.jsonl"]
    assert (tmp_path / "there.jsonl").read_text() == "{}\n"


def test_untrained_models_have_the_size_of_the_data_as_in_training(tmp_path):
    config = tmp_path / "short.yaml"
    for head, size in (("", 64), ("data: {image_size: 32}", 32), ("data: {image_size: 16}", 16)):
        config.write_text(f"{head}\nmodel: {{class_path: GANCLS, init_args: {{generator_width: 4}}}}\n")
        assert find_subject(f"untrained:{config}").model.hparams["image_size"] == size
    config.write_text("data: {image_size: 16}\nmodel: {class_path: GANCLS, init_args: {image_size: 32}}\n")
    assert find_subject(f"untrained:{config}").model.hparams["image_size"] == 32


def test_a_config_may_name_its_model_alone(tmp_path):
    (tmp_path / "short.yaml").write_text("model: SkipThought\n")
    with pytest.raises(T2IError, match="holds a SkipThought, which generates no images"):
        find_subject(f"untrained:{tmp_path / 'short.yaml'}")


def test_no_run_of_a_gan(mistake):
    said = mistake("evaluate", "--ckpt", "untrained:skipthought_flowers", "--protocol", "agreement_synthetic")
    assert said == "untrained:skipthought_flowers holds a SkipThought, which generates no images: give a run of a GAN"
