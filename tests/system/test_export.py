"""t2i-zoo export: a run becomes one small file with its card, and every command that draws takes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from t2i_zoo.__main__ import main
from t2i_zoo.commands.export import _scores, export
from t2i_zoo.models import load_model

RED = "a flower with red petals"


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The exported file of the tiny run, which must not be written to."""
    path = tmp_path_factory.mktemp("exported") / "small.safetensors"
    return export(str(trained), path)


def test_the_same_picture_as_of_the_run(exported, trained, tmp_path, capsys):
    words = ["--text", RED, "a zeppelin", "--n", "2", "--seed", "3"]
    for flag in ("--model", "--ckpt"):
        assert main(["sample", flag, str(exported), *words, "--out", str(tmp_path / f"{flag}.png")]) == 0
        assert "note: no training caption holds 'zeppelin'" in capsys.readouterr().err
    assert (tmp_path / "--model.png").read_bytes() == (tmp_path / "--ckpt.png").read_bytes()
    noise = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    run, small = load_model(trained), load_model(exported)
    torch.testing.assert_close(
        small.generate([RED] * 2, noise=noise), run.generate([RED] * 2, noise=noise), rtol=0, atol=0.02
    )
    run.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in run.state_dict().items()})
    assert torch.equal(run.generate([RED] * 2, noise=noise), small.generate([RED] * 2, noise=noise))


def test_it_is_small_and_tells_nothing_of_this_machine(exported, trained):
    content, card = exported.read_bytes(), exported.with_suffix(".md").read_text("utf-8")
    assert len(content) < (trained / "checkpoints" / "last.ckpt").stat().st_size / 4
    for caption in ("petals of this flower", "flower with"):  # words of the training captions, but no caption
        assert caption.encode() not in content
    for place in (trained.parent, exported.parent):
        assert str(place).encode() not in content
        assert str(place) not in card


def test_numbers_of_the_file(exported, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(trained / "config.yaml"), "--protocol", "agreement_synthetic", "--images", "12"]
    assert main(["evaluate", "--ckpt", str(exported), *config, "--out", "m.jsonl"]) == 0
    (first, *_) = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert (first["model"], first["batches"], first["size"]) == ("GANCLS", 6, 16)


def test_the_card(trained, tmp_path, capsys):
    run = Path(shutil.copytree(trained, tmp_path / "copied" / "version_0"))
    words = ["--ckpt", str(run), "--out", str(tmp_path / "a.safetensors")]
    assert main(["evaluate", "--ckpt", str(run), "--protocol", "agreement_synthetic", "--images", "12"]) == 0
    table = capsys.readouterr().out
    assert main(["export", *words, "--about", "tiny flowers", "--licence", "Drawn by code: Apache-2.0."]) == 0
    card = (tmp_path / "a.md").read_text("utf-8")
    lines = card.splitlines()
    assert lines[0] == "# a: tiny flowers"
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## Data", "## Licence", "## Recipe", "## Scores"]
    assert "SyntheticFlowers, " in card
    assert "images 64" in card
    assert "GANCLS, 6 batches of " in card
    assert "- text encoder: kind hashing, dim " in card
    assert lines[lines.index("## Licence") + 2] == "Drawn by code: Apache-2.0."
    rows = [line for line in lines if line.startswith("| agreement_synthetic ")]
    assert len(rows) == 4
    for row in rows:
        _, _, label, value, *_ = (cell.strip() for cell in row.split("|"))
        value, _, note = value.rstrip(")").partition(" (")
        assert any(line.startswith(label) and value in line and note in line for line in table.splitlines())


def test_own_terms_stand_before_the_card_of_what_it_was_made_from(exported, tmp_path):
    graph = tmp_path / "small.pt2"
    words = ["--ckpt", str(exported), "--to", "torch-export", "--out", str(graph), "--licence", "Mine alone."]
    assert main(["export", *words]) == 0
    card = (tmp_path / "small.pt2.md").read_text("utf-8")
    assert "weights in single precision" in card
    own, _, former = card.partition("The card of what it was made from:")
    assert "## Licence\n\nMine alone.\n" in own
    assert "weights in half precision" in former


def test_the_card_has_scores_of_what_is_exported_alone(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "copied" / "version_0")
    for more in ([], ["--live"]):
        words = ["evaluate", "--ckpt", str(run), "--protocol", "agreement_synthetic", "--images", "8", *more]
        assert main(words) == 0
    export(str(run), tmp_path / "mine.safetensors")
    rows = [line for line in (tmp_path / "mine.md").read_text().splitlines() if "agreement of petal colour" in line]
    assert len(rows) == 1


def score(checkpoint, fingerprint, value, images, note=""):
    """A line of metrics.jsonl."""
    shared = {"metric": "r_precision", "label": "R-precision", "error": None, "chance": 0.01, "network": "DAMSM"}
    shared |= {"protocol": "rprec_damsm", "protocol_hash": "abc", "data": "flowers", "checkpoint": checkpoint}
    return {**shared, "network_fingerprint": fingerprint, "value": value, "images": images, "note": note}


def test_photographs_stand_beside_scores_of_the_same_network_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photographs = [score("real", "first", 0.9, 50, "biased"), score("real", "second", 0.8, 60)]
    Path("runs/real").mkdir(parents=True)
    Path("runs/real/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in photographs))
    for fingerprint, value, reached in (
        ("first", "0.4 (few)", "0.9 (biased), of 50 images"),
        ("second", "0.4 (few)", "0.8, of 60 images"),
        ("third", "0.4 (few)", ""),
    ):
        lines = [score("own", "first", 0.3, 100), score("own", fingerprint, 0.4, 100, "few")]
        said, _, _, _, *rows = _scores(lines, "a.safetensors", "half precision")
        assert "rounded to half precision" in said
        (cells,) = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)  # the last of the protocol
        assert cells == ["rprec_damsm abc", "R-precision (DAMSM)", value, "", "100", "0.01", reached]
    assert "rounded" not in _scores(lines, None, "single precision")[0]
    assert "rounded to 8-bit integers" in _scores(lines, None, "8-bit integers")[0]


def test_a_card_of_a_checkpoint_alone_says_what_is_unknown(trained, tmp_path):
    alone = shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "model.ckpt")
    export(str(alone), tmp_path / "a.safetensors")
    card = (tmp_path / "a.md").read_text("utf-8")
    command = "t2i-zoo evaluate --ckpt a.safetensors --config CONFIG --protocol NAME"
    unmeasured = f"None were measured before the export; `{command}` measures them."
    for sentence in ("has no config.yaml that names its data", "Not stated.", unmeasured):
        assert sentence in card


def test_what_is_there_stays_unless_told(trained, tmp_path, mistake):
    words = ["export", "--ckpt", str(trained), "--out", str(tmp_path / "a.safetensors")]
    (tmp_path / "a.md").write_text("my own words")
    said = mistake(*words)
    assert said == f"found {tmp_path / 'a.md'} already, expected a new name: change --out, or add --overwrite"
    assert [file.name for file in tmp_path.iterdir()] == ["a.md"]
    assert main([*words, "--overwrite"]) == 0
    assert (tmp_path / "a.md").read_text("utf-8").startswith("# a: GANCLS, 16 px, trained on SyntheticFlowers")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.md", "a.safetensors"]


def test_mistakes(trained, exported, tmp_path, mistake):
    out = ["--out", str(tmp_path / "a.safetensors")]
    assert mistake("export", "--ckpt", str(trained), "--out", "a.pt").startswith(
        "found --out a.pt, expected a file name"
    )
    for out_of, to in (("a.onnx", "onnx"), ("a.pt2", "torch-export")):
        said = mistake("export", "--ckpt", str(trained), "--out", out_of)
        assert said.endswith(f"with --to safetensors: change it, or write --to {to}")
    assert mistake("export", "--ckpt", "nowhere", *out).startswith("found no checkpoint at nowhere")
    assert "is a .safetensors file already" in mistake("export", "--ckpt", str(exported), *out)
    (tmp_path / "file").write_text("")
    blocked = mistake("export", "--ckpt", str(trained), "--out", str(tmp_path / "file" / "a.safetensors"))
    assert blocked.startswith(f"cannot write {tmp_path / 'file'}")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_which_generator(trained, exported, mistake):
    text = ["--text", RED]
    assert mistake("sample", *text).startswith("found neither --model nor --ckpt, expected one: --model NAME comes")
    both = mistake("sample", "--model", str(exported), "--ckpt", str(trained), *text)
    assert both.startswith("found both --model and --ckpt, expected one")
    live = mistake("sample", "--model", str(exported), "--live", *text)
    assert live == f"found --live and {exported}, which holds no other weights than it draws with: leave out --live"
    assert mistake("attention", "--ckpt", str(exported), "--text", RED, "--live") == live


def test_a_graph_of_a_run_and_of_a_file(exported, trained, tmp_path, capsys):
    for ckpt in (trained, exported):
        path = tmp_path / f"{ckpt.stem}.pt2"
        assert main(["export", "--ckpt", str(ckpt), "--to", "torch-export", "--out", str(path)]) == 0
        model, card = load_model(ckpt), path.with_name(f"{path.name}.md").read_text("utf-8")
        noise, text = model.noise(3), model.encode([RED] * 3)
        images = torch.export.load(path).module()(noise=noise, sentence=text.sentence)
        torch.testing.assert_close(images, model.generate([RED] * 3, noise=noise), rtol=0, atol=1e-4)
        block = card.split("```python\n")[1].split("```")[0]
        block = block.replace('load_model("...")', f"load_model({str(ckpt)!r})").replace(path.name, str(path))
        values: dict = {}
        exec(block, values)  # as the card shows it
        assert values["images"].shape == (1, 3, 16, 16)
        assert card.count("## Data") == 1
        if ckpt == trained:  # of the graph, which no command draws with
            assert "None were measured before the export; `t2i-zoo evaluate` measures the run.\n" in card
    assert main(["export", "--ckpt", str(trained), "--to", "onnx", "--out", str(tmp_path / "a.pt2")]) == 2
    assert "expected a file name that ends in .onnx with --to onnx" in capsys.readouterr().err
