"""The file of a study: its forms, and each mistake in it as one sentence before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from t2i_zoo.__main__ import main
from t2i_zoo.commands import study
from t2i_zoo.commands.study_file import Study, find_study, packaged_studies
from t2i_zoo.errors import T2IError
from t2i_zoo.overview import check_flags

PROTOCOL = "metrics: [caption_diversity]\nreference: train\nimages: 16\nsamples_per_caption: 8\n"


def read(folder: Path, text: str) -> Study:
    path = folder / "small.yaml"
    path.write_text(text, "utf-8")
    return Study.read(path)


def test_one_number_one_text_and_one_score_are_lists_of_one(tmp_path: Path) -> None:
    text = "minutes: 0.5\nseeds: 1\ncaptions: a red ball\nscores: {protocol: diversity_caption}\narms: {16: , r1: {}}\n"
    found = read(tmp_path, text)
    assert (found.minutes, found.seeds, found.captions) == ([0.5], [1], ["a red ball"])
    assert [score["protocol"] for score in found.scores] == ["diversity_caption"]
    assert found.arms == {"16": {}, "r1": {}}
    assert read(tmp_path, "minutes: [30, 15, 30]\noptions:\narms: {plain: }\n").minutes == [15, 30]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arms: {}", "found arms {}, expected names with their options, such as arms: {r1: {model.r1: 1}}"),
        ("minutes: [1]", "found arms None, expected names with their options"),
        ("arms: [plain, r1]", "found arms ['plain', 'r1'], expected names with their options"),
        ("arms: {plain: {}, r1: 1}", "found arm r1 1, expected names with their options"),
        ("arms: {a/b: {}}", "found the arm 'a/b', expected a name that a folder can have"),
        ("arms: {a: {}}\noption: {model.r1: 1}", "found the key 'option', did you mean options?"),
        ("arms: {a: {}}\noptions: [model.r1]", "found options ['model.r1'], expected such as options: {model.r1: 1}"),
        ("arms: {a: {}}\nminutes: soon", "found minutes 'soon', expected numbers, such as minutes: [15, 30, 60]"),
        ("arms: {a: {}}\nminutes: []", "found minutes [], expected at least one of numbers"),
        ("arms: {a: {}}\nminutes: [0]", "found minutes 0, expected numbers above 0"),
        ("arms: {a: {}}\nseeds: [0, yes]", "found seeds [0, True], expected integers, such as seeds: [0, 1]"),
        ("arms: {a: {}}\ncaptions: [a flower, 7]", "found captions ['a flower', 7], expected texts"),
        ("arms: {a: {}}\ncaptions: [a flower, ' ']", "found a blank caption ' '"),
        ("arms: {a: {}}\nscores: tiny", "found scores 'tiny', expected arguments of evaluate"),
        ("arms: {a: {model: GANCLS\n", "small.yaml, line 2: expected ',' or '}'"),
        ("arms: {a: {}}\nanchors: 2024-13-45", "small.yaml is no YAML in UTF-8 (month must be in 1..12)"),
        ("a study", "small.yaml holds no study: write arms, such as arms: {plain: {}, r1: {model.r1: 1}}"),
    ],
)
def test_each_mistake_is_one_sentence_with_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(T2IError, match=re.escape(said)) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "small.yaml"))


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("{protocol: diversity}", "found no protocol 'diversity'"),
        ("{protocol: diversity_caption, images: 20}", "found --images 20, expected a multiple of the protocol's 8"),
        ("{protocol: diversity_caption, image: 16}", "found the key 'image', did you mean images?"),
        ("{protocol: diversity_caption, ckpt: real}", "found the key 'ckpt', expected some of protocol, network"),
        ("{protocol: diversity_caption, images: many}", "found --images many"),
        ("{protocol: diversity_caption, seed: -1}", "found seed -1"),
        ("{protocol: diversity_caption, batch_size: 0}", "found --batch-size 0"),
        ("{images: 16}", "--protocol"),
    ],
)
def test_each_score_is_checked_with_the_file(tmp_path: Path, score: str, said: str) -> None:
    with pytest.raises(T2IError, match=f"small.yaml, score 2: .*{re.escape(said)}"):
        read(tmp_path, f"arms: {{a: {{}}}}\nscores: [{{protocol: diversity_caption, images: 16}}, {score}]\n")


def test_a_protocol_is_found_beside_the_file_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "own.yaml").write_text(PROTOCOL)
    (tmp_path / "other.yaml").write_text(PROTOCOL)
    monkeypatch.chdir(tmp_path)
    scores = "[{protocol: own.yaml, live: true}, {protocol: other.yaml, images: 24}]"
    first, second = read(tmp_path / "studies", f"arms: {{a: {{}}}}\nscores: {scores}\n").scores
    assert first["protocol"] == str(tmp_path / "studies" / "own.yaml")
    assert first["live"] is True
    assert second["protocol"] == "other.yaml"
    assert second["images"] == 24


def test_hashes_tell_what_a_result_depends_on_and_not_how_it_is_written(tmp_path: Path) -> None:
    def hashes(options: str = "{model.r1: 1, model: GANCLS}", **more: Any) -> dict[str, str]:
        text = "".join(f"{key}: {value}\n" for key, value in more.items())
        return read(tmp_path, f"arms: {{a: {options}}}\n{text}").hashes("a", 0)

    (tmp_path / "own.yaml").write_text(PROTOCOL)
    former = hashes(scores="{protocol: own.yaml}")
    assert former == hashes("{model: GANCLS, model.r1: 1}", scores=f"[{{images: 16, protocol: {tmp_path}/own.yaml}}]")

    def changed(now: dict[str, str]) -> list[str]:
        return [name for name in former if former[name] != now[name]]

    assert changed(hashes("{model: GANCLS}", scores="{protocol: own.yaml}")) == ["options"]
    assert changed(hashes(scores="{protocol: own.yaml}", captions="a ball")) == ["captions"]
    assert changed(hashes(scores="{protocol: own.yaml, seed: 1}")) == ["scores"]
    assert changed(hashes(scores="{protocol: own.yaml, live: true}")) == ["scores"]
    (tmp_path / "own.yaml").write_text(PROTOCOL.replace("16", "32"))
    assert changed(hashes(scores="{protocol: own.yaml}")) == ["scores"]


def test_a_study_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(packaged_studies()) == {"aids", "papers"}
    assert find_study("aids") == find_study("experiments/studies/aids.yaml") == packaged_studies()["aids"]
    assert main(["study", "adis"]) == 2
    assert (
        "found no study 'adis': give the path of a YAML file or a packaged name such as aids" in capsys.readouterr().err
    )
    monkeypatch.setattr(study, "run_to_end", lambda *_: 130)
    monkeypatch.setattr(Study, "check_scores", lambda _: None)  # the network of its scores may not be here
    assert main(["study", "aids", "--arms", "gancls"]) == 0
    assert "stopped" in capsys.readouterr().out
    assert (tmp_path / "runs" / "studies" / "aids" / "gancls-0").is_dir()
    assert main(["study", "aids", "--minutes", "0"]) == 2
    assert "--minutes: found minutes 0, expected numbers above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "known"), [("aids", {"gancls", "dfgan", "projected_light"}), ("papers", {"tacgan", "attngan_seeking"})]
)
def test_the_packaged_studies_name_options_that_exist(
    name: str, known: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # as after an installation
    chosen = Study.read(find_study(name))
    assert known <= set(chosen.arms)
    assert chosen.minutes == [15, 30, 60]
    for arm in chosen.arms:
        check_flags(["fit", *chosen.words(arm, 0)])
    chosen.arms["odd"] = {"model": "GANCLS", "model.generator_widht": 8}
    with pytest.raises(T2IError, match="generator_widht"):
        check_flags(["fit", *chosen.words("odd", 0)])
