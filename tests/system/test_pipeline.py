"""``t2i-zoo pipeline`` with real, tiny runs: three steps in order, a stop between them, and what their run can do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from PIL import Image
from processes import Process

from t2i_zoo.__main__ import main
from t2i_zoo.commands import pipeline
from t2i_zoo.commands.pipeline import state_of, steps_of
from t2i_zoo.commands.studio import Studio

SHARED = ["--data.source.images", "64", "--data.source.size", "24", "--trainer.accelerator", "cpu"]
TRAINER = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1, "enable_progress_bar": False,
           "enable_model_summary": False, "log_every_n_steps": 1}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def forked() -> Iterator[None]:
    """Steps begin as forks of a server that has imported everything; their command lines are the same."""

    def start(command: list[str], env: None) -> Process:
        assert command[:3] == [sys.executable, "-m", "t2i_zoo"]
        return Process(command[1:])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "subprocess", SimpleNamespace(Popen=start))
        yield


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory, tiny_widths: Callable[[str], dict]) -> Path:
    """A folder with configs of all three steps, which name their runs below ``runs``."""
    folder = tmp_path_factory.mktemp("pipeline")
    data = {"source": {"class_path": "SyntheticFlowers"}, "image_size": 32, "batch_size": 8}
    gan = {**tiny_widths("mirrorgan"), "damsm": "runs/words", "stream": "runs/captions", "stream_weight": 1.0}
    models = {
        "words": ("DAMSM", tiny_widths("damsm")),
        "captions": ("STREAM", tiny_widths("stream")),
        "gan": ("MirrorGAN", gan),
    }
    for name, (kind, options) in models.items():
        config = {"model": {"class_path": kind, "init_args": options}, "data": data, "trainer": TRAINER}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def finished(configs: Path) -> Path:
    """The folder after the whole pipeline; tests must not write to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(configs)
        assert main(["pipeline", "gan.yaml", *SHARED, "--stream.model.embed_dim", "5"]) == 0
    return configs


def test_each_step_is_trained_in_its_order(finished: Path) -> None:
    runs = [finished / "runs" / name / "version_0" for name in ("words", "captions", "gan")]
    times = [(run / "finished.json").stat().st_mtime for run in runs]
    assert times == sorted(times)
    assert json.loads((runs[2] / "finished.json").read_text())["batches"] == 2
    captions = yaml.safe_load((runs[1] / "config.yaml").read_text())
    assert captions["model"]["init_args"]["embed_dim"] == 5
    assert captions["data"]["source"]["init_args"]["images"] == 64
    assert "train/generator_caption" in (runs[2] / "metrics.csv").read_text().splitlines()[0]


def test_what_is_finished_is_left_alone(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    assert main(["pipeline", "gan.yaml", *SHARED]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[1].split(":")[0] for line in said] == ["finished"] * 3
    assert not (finished / "runs" / "gan" / "version_1").exists()


def test_a_stopped_step_is_resumed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    mark = finished / "runs" / "gan" / "version_0" / "finished.json"
    mark.unlink()
    assert state_of(mark.parents[1]) == "stopped"
    assert main(["pipeline", "gan.yaml", *SHARED, "--dry-run"]) == 0
    assert "step 3 of 3: gan, to be resumed" in capsys.readouterr().out
    assert main(["pipeline", "gan.yaml", *SHARED]) == 0
    assert mark.is_file()
    assert not (finished / "runs" / "gan" / "version_1").exists()


def test_pictures_are_described_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished)
    out = str(tmp_path / "grid.png")
    words = ["sample", "--ckpt", "runs/gan", "--text", "a red flower", "--n", "2", "--out", out, "--redescribe"]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "a red flower"
    assert all(line.startswith("  ") for line in said[1:3])
    plain = str(tmp_path / "plain.png")
    assert main([*words[:-2], plain]) == 0
    assert Image.open(out).height > Image.open(plain).height  # room for the notes


def test_attention_is_shown(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    out = tmp_path / "a.png"
    words = ["attention", "--ckpt", "runs/gan", "--text", "a red flower with yellow petals", "--out", str(out)]
    assert main(words) == 0
    assert Image.open(out).size > (300, 200)
    first = out.read_bytes()
    assert main([*words, "--seed", "1", "--overwrite"]) == 0
    assert out.read_bytes() != first


def test_the_page_shows_attention_and_describes_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    studio, caption = Studio(Path("runs")), "a red flower with red petals"
    assert [name for name in studio.generators() if "version" in name] == ["gan/version_0"]
    image, maps = studio.attention("gan/version_0", caption, 0)
    assert [word for _, word in maps] == [f"{i}. {word}" for i, word in enumerate(caption.split(), 1)]
    for one, _ in maps:
        assert one.shape == image.size
        assert one.max() == pytest.approx(1)
    drawn, _ = studio.draw(["gan/version_0"], caption, 2, 0, redescribe=True)
    assert all(len(title.split()) > 0 for _, title in drawn)


def test_a_path_between_two_captions_of_different_length(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    ends = ["a red flower", "a blue flower with many round petals"]
    out = ["--n", "3", "--folder", str(tmp_path), "--out", str(tmp_path / "grid.png")]
    assert main(["sample", "--ckpt", "runs/gan", "--interpolate", *ends, *out]) == 0
    assert len(list(tmp_path.glob("0*.png"))) == 12


def test_steps_of_packaged_configs() -> None:
    steps = steps_of(
        "mirrorgan_flowers", ["--data.source.root", "d", "--damsm.model.dim", "8", "--model.kl_weight", "2"]
    )
    assert [Path(step.config).stem for step in steps] == ["damsm_flowers", "stream_flowers", "mirrorgan_flowers"]
    assert steps[0].words == ["--data.source.root", "d", "--model.dim", "8"]
    assert steps[1].words == ["--data.source.root", "d"]
    assert steps[2].words == ["--data.source.root", "d", "--model.kl_weight", "2"]
    assert [step.folder for step in steps] == [
        Path("runs") / name for name in (s.config.split("/")[-1][:-5] for s in steps)
    ]
    assert [Path(s.config).stem for s in steps_of("stackgan_stage2_synthetic", [])] == [
        "stackgan_stage1_synthetic",
        "stackgan_stage2_synthetic",
    ]
    assert len(steps_of("stackgan_stage2_synthetic", ["--model.stage1", "untrained"])) == 1
    assert len(steps_of("gancls_synthetic", [])) == 1
    assert len(steps_of("attngan_synthetic", ["--model.damsm", "null"])) == 1


def test_a_config_may_say_where_its_run_is(tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    for trainer, folder in (
        ("{default_root_dir: elsewhere}", "elsewhere"),
        ("{max_epochs: 1}", "runs/own"),
        ("", "runs/own"),
    ):
        config.write_text(f"model: GANCLS\ntrainer: {trainer}\n")
        assert [step.folder for step in steps_of(str(config), [])] == [Path(folder)]
        (step,) = steps_of(str(config), ["--trainer.default_root_dir", "here"])
        assert step.folder == Path("here")


def test_the_data_are_those_of_every_step() -> None:
    data = ["--data.source", "CaptionFolder", "--data.source.root", "my", "--data.on_bad_image", "skip"]
    own = ["--data.batch_size", "4", "--data.resize", "stretch"]
    steps = steps_of("attngan_flowers", [*data, "--seed_everything=3", *own])
    assert [step.words for step in steps] == [
        [*data, "--seed_everything", "3"],
        [*data, "--seed_everything", "3", *own],
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mirorgan_flowers"], "found no config 'mirorgan_flowers': .* mirrorgan_flowers"),
        (["--config", "gancls_flowers"], "found no config, expected one config first: t2i-zoo pipeline"),
        (["attngan_synthetic", "--damsn.trainer.max_epochs", "3"], "no option --damsn.trainer.max_epochs"),
        (["attngan_synthetic", "--damsm.trainer.max_epoch", "3"], "in step damsm_synthetic: .* --trainer.max_epochs"),
        (["attngan_synthetic", "--model.nonsense", "3"], "found no option --model.nonsense"),
        (
            ["attngan_synthetic", "--damsm.model.dim", "-2", "--dry-run"],
            "in step damsm_synthetic: found --model.dim",
        ),
        (["attngan_synthetic", "--model.noise_dim", "0"], "in step attngan_synthetic: found --model.noise_dim 0"),
        (["attngan_flowers", "--model.damsm", "elsewhere"], r"--model\.damsm elsewhere is not there, and no config"),
        (["attngan_flowers", "--model", "mine.AttnGAN"], "found no model class 'mine.AttnGAN'"),
        (["attngan_flowers", "word"], "found 'attngan_flowers' and 'word', expected one config first"),
    ],
)
def test_mistakes(words: list[str], sentence: str, mistake: Callable[..., str]) -> None:
    import re

    assert re.search(sentence, mistake("pipeline", *words))


def test_mistakes_of_the_commands(finished: Path, trained: Path, mistake: Callable[..., str]) -> None:
    run = str(finished / "runs" / "gan")
    assert "holds a GANCLS, which attends to no words" in mistake("attention", "--ckpt", str(trained), "--text", "a")
    assert "expected a file name that ends in" in mistake("attention", "--ckpt", run, "--text", "a", "--out", "a.txt")
    assert "found a blank caption" in mistake("attention", "--ckpt", run, "--text", " ")
    assert "was trained without a STREAM" in mistake("sample", "--ckpt", str(trained), "--text", "a", "--redescribe")
    assert "--stream without --redescribe" in mistake("sample", "--ckpt", run, "--text", "a", "--stream", run)
    wrong = ["--redescribe", "--stream", str(finished / "runs" / "words")]
    assert "holds a DAMSM, expected the run of a STREAM" in mistake("sample", "--ckpt", run, "--text", "a", *wrong)
