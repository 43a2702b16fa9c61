"""Every mistake on the command line is one readable sentence with exit code 2, and --traceback shows where it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from t2i_zoo.__main__ import main
from t2i_zoo.errors import T2IError

OPTIONS = {  # words after `fit` and a whole config: what the sentence must hold
    "--trainer.max_epoch 3": "no option --trainer.max_epoch: did you mean --trainer.max_epochs",
    "--model.learning_rat 3": "did you mean --model.learning_rate?",
    "--data.source.imags 3": "did you mean --data.source.images?",
    "--data.batchsize 3": "did you mean --data.batch_size?",
    "--samples.row 3": "did you mean --samples.rows?",
    "--checkpoint.every_n_epoch 3": "did you mean --checkpoint.every_n_epochs?",
    "--zebra 3": "no option --zebra: --help lists what there is",
    "stray": "found the word 'stray', which no option takes: write each value after its option",
    "gancls_synthetic": "found the word 'gancls_synthetic', which no option takes: write --config gancls_synthetic$",
    "--images 3": "no option --images: did you mean --data.source.images",
    "--data.images 3": "no option --data.images: did you mean --data.source.images",
    "--trainer.max_epochs many": "found --trainer.max_epochs many, expected an integer or null",
    "--trainer.max_epochs=-3": "max_epochs.*-3",
    "--trainer.devices x": "--trainer.*devices",
    "--trainer.accelerator cpuu": "accelerator.*cpuu.*cpu",
    "--trainer.strategy dpp": "strategy.*dpp.*ddp",
    "--trainer.profiler simpel": "simple",
    "--trainer.precision bf17": "bf17, expected one of 64, 32, .* or null: did you mean bf16",
    "--trainer.callbacks+ NoSuch": "found --trainer.callbacks NoSuch, expected the name of one of Lightning's classes",
    "--trainer.logger no.Logger": "found --trainer.logger no.Logger .No module named .no.., expected the name of one",
    "--trainer.gradient_clip_val 1": "use --model.gradient_clip",
    "--trainer.accumulate_grad_batches 2": "raise --data.batch_size, .* --model.accumulate",
    "--model.accumulate 99": "found --model.accumulate 99 for --data.batch_size .*, expected micro-batches",
    "--model.learning_rate fast": "found --model.learning_rate fast, expected a number$",
    "--model.interpolation mid": "one of midpoint, random: did you mean midpoint",
    "--model.image_size 17 --data.image_size 17": "image_size 17, expected a power of two",
    "--model GANCLSS": "found --model GANCLSS, expected one of SkipThought, CharCNNRNN, GANCLS, ",
    "--model torch.nn.Linear": "found --model torch.nn.Linear, expected one of SkipThought, CharCNNRNN, GANCLS, ",
    "--model.weights nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    "--model.text_encoder hashin": "'hashin' is unknown .did you mean 'hashing'",
    "--model.text_encoder.dims 3": "no argument 'dims' .did you mean 'dim'",
    "--data.batch_size 1.5": "found --data.batch_size 1.5, expected an integer",
    "--data.batch_size 0": "found --data.batch_size 0, expected at least 1",
    "--data.batch-size 0": "found --data.batch_size 0, expected at least 1",
    "--model.learning-rate fast": "found --model.learning_rate fast, expected a number",
    "--seed-everything x": "found --seed_everything x, expected true or false or an integer",
    "--data.batch_size 999": "fewer than one batch of 999",
    "--model.image_size 16 --data.image_size 32": "the model has 16 px and the data module gives 32 px",
    "--model.noise_dim 0": "found --model.noise_dim 0, expected at least 1",
    "--model.generator_width -8": "found --model.generator_width -8, expected at least 1",
    "--model.learning_rate -1": "found --model.learning_rate -1.0, expected 0 or more",
    "--model.beta1 2": "found --model.beta1 2.0, expected 0 or more, and less than 1",
    "--model.ema_decay null": "found --model.ema_decay None, expected 0 or more, and less than 1",
    "--model.augment [colour]": "expected a list of color, translation and cutout or null: did you mean color",
    "--model.r1 0": "found --model.penalty_every 4, which does nothing without --model.r1 or another",
    "--samples.captions []": "found --samples.captions .., expected one or more captions",
    "--samples.rows -1": "found --samples.rows -1, expected at least 1",
    "--checkpoint.filename=": "found --checkpoint.filename",
    "--checkpoint.monitor fid": "found --checkpoint.monitor fid, which nothing logs: expected a name in the head of",
    "--checkpoint.monitor val/generator_loss": "come together only every ",
    "--checkpoint.monitor val/nonsense --trainer.check_val_every_n_epoch 1": "which validation does not log: expected",
    "--checkpoint.monitor train/typo": "monitor train/typo, which training does not log: expected one of train/discr",
    "--data.limit 0": "found --data.limit 0, expected at least 2",
    "--config attngan_synthetic": "damsm runs/damsm_synthetic is not there: t2i-zoo pipeline attngan_synthetic trains",
    "--data.augment perhaps": "found --data.augment perhaps, expected true or false",
    "--data.order shufle": "one of shuffle, class_balanced: did you mean shuffle",
    "--data.pyramid 4": r"found --data.pyramid 4, expected a list of integers such as \[64, 128\] or null",
    "--data.pyramid [a]": r"found --data.pyramid \['a'\], expected a list of integers",
    "--data.source Flowers103": "expected one of Flowers102, CaptionFolder, SyntheticFlowers",
    "--data.source.images x": "found --data.source.images x, expected an integer",
    "--data.source CaptionFolder --data.source.root /nowhere": "no folder /nowhere.*--data.source.root",
    "--samples.rows x": "found --samples.rows x, expected an integer",
    "--samples.captions x": "expected a list of texts",
    "--seed_everything x": "found --seed_everything x, expected true or false or an integer",
    "--ckpt_path nowhere.ckpt": "no checkpoint at nowhere.ckpt",
    "--ckpt_path last": "no run to resume",
    "--config gancls_sinthetic": "no config 'gancls_sinthetic'.*gancls_synthetic",
    "--config nowhere/gancls.yaml": "no config 'nowhere/gancls.yaml'",
    "--config": "too little after --config, expected one value",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_wrong_options_of_fit(options, words, mistake, tmp_path):
    assert re.search(OPTIONS[options], mistake("fit", *words(tmp_path / "run"), *options.split(" ")))


CONFIGS = {
    "model:\n  class_path: GANCLS\n init_args: [1,\n": "wrong.yaml, line 3: ",
    "model:\n\tclass_path: GANCLS\n": "wrong.yaml, line 2: ",
    "- a\n- b\n": "wrong.yaml holds no options",
    "": "wrong.yaml holds no options",
    "modle: {class_path: GANCLS}": "no option --modle.class_path: did you mean --model.class_path",
    "model: {clas_path: GANCLS}": "did you mean --model.class_path",
    "model: 3": "found --model 3, expected one of SkipThought, CharCNNRNN, GANCLS, ",
    "trainer: {max_epoch: 3}": "did you mean --trainer.max_epochs",
    "data: {sorce: {class_path: SyntheticFlowers}}": "did you mean --data.source.class_path",
    "data: {batch_size: many}": "found --data.batch_size many, expected an integer",
    "model: {init_args: {generator_widht: 3}}": "did you mean --model.generator_width",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_wrong_config_files(text, words, mistake, tmp_path):
    (tmp_path / "wrong.yaml").write_text(text)
    assert CONFIGS[text] in mistake("fit", *words(tmp_path / "run"), "--config", str(tmp_path / "wrong.yaml"))


def test_a_config_that_is_not_text(mistake, tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    assert "no text in UTF-8" in mistake("fit", "--config", str(tmp_path / "x.yaml"))


def test_fit_without_a_config(mistake):
    said = mistake("fit")
    assert "--model" in said
    assert "--config NAME" in said


def test_an_unknown_command(mistake):
    assert mistake("fitt") == "found no command 'fitt': did you mean 'fit'?"
    assert "prepare" in mistake("zzz")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_a_gpu_where_there_is_none(name, words, mistake, tmp_path):
    said = mistake("fit", *words(tmp_path), "--trainer.accelerator", name)
    assert said == f"found no device for --trainer.accelerator {name}: use cpu, or auto"


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_untrained_model_is_not_judged(command, words, mistake, tmp_path):
    assert "found no --ckpt_path" in mistake(command, *words(tmp_path / "run"))


def test_a_resumed_run_takes_no_overrides(trained, mistake):
    config = str(trained / "config.yaml")
    said = mistake("fit", "--config", config, "--ckpt_path", "last", "--model.learning_rate", "0.5")
    assert "--model.learning_rate 0.01 and the command says 0.5" in said
    assert "--model.weights" in said


WORDS = {  # which are known in another place, or belong to another option
    "prepare --data.source.root jl": "found --data.source.root and before it no --data.source that takes it: put "
    "--config NAME in front, or --data.source with Flowers102, CaptionFolder, ",
    "fit --data.source.root jl --config gancls_synthetic": "found --data.source.root and before it no --data.source",
    "prepare --config gancls_folder --data.root jl": "found no option --data.root: did you mean --data.source.root?",
    "prepare --config gancls_folder --root jl": "found no option --root: did you mean --data.source.root?",
    "prepare --batch-size 3": "found no option --batch-size: did you mean --data.batch_size?",
    "prepare --config gancls_folder jl": "found the word 'jl', which no option takes: write --data.source.root jl",
    "prepare jl": "found the word 'jl', which no option takes: write --data.source.root jl",
    "prepare gancls_folder": "found the word 'gancls_folder', which no option takes: write --config gancls_folder",
    "sample flowers64 --text a": "found the word 'flowers64', which no option takes: write --model flowers64",
    "sample jl --text a": "found the word 'jl', which no option takes: write --ckpt jl",
    "attention flowers64 --text a": "found the word 'flowers64', which no option takes: write --ckpt flowers64",
    "attention --model jl --text a": "found no option --model: did you mean --ckpt?",
    "report --ckpt jl": "found no option --ckpt: write t2i-zoo report RUN",
    "leaderboard --ckpt jl --protocol tiny": "found no option --ckpt: write t2i-zoo leaderboard RUN",
    "sample --model flower64 --text a": "found no generator 'flower64' in the package, expected flowers128, flowers64",
    "sample --model flowers64 --text=a red flower": "found the word 'red', which no option takes: put quotes around a",
    "sample --noise_dim 3 --text a": "found no option --noise_dim: --help lists what there is",  # of fit
}


@pytest.mark.parametrize("line", WORDS)
def test_words_in_the_wrong_place(line, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jl").mkdir()
    assert mistake(*line.split()).startswith(WORDS[line])


def test_a_stray_folder_with_a_blank_in_its_name(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my pictures").mkdir()
    said = mistake("prepare", "--config", "gancls_folder", "my pictures")
    assert said == "found the word 'my pictures', which no option takes: write --data.source.root my pictures"


def test_the_nearest_generator_is_named(mistake):
    assert mistake("sample", "--model", "flower64", "--text", "a").endswith(": did you mean flowers64?")
    assert mistake("sample", "--model", "xyz", "--text", "a").endswith(": correct --model")


@pytest.fixture(scope="module")
def wrong_files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "version_0" / "checkpoints").mkdir(parents=True)
    (folder / "corrupt.ckpt").write_bytes(b"PK nonsense")
    torch.save({"state_dict": {}}, folder / "foreign.ckpt")
    (folder / "latin.txt").write_bytes("ein grüner Vogel".encode("latin-1"))
    (folder / "blank.txt").write_text("\n \n")
    return folder


CHECKPOINTS = {
    "nowhere": "no checkpoint at .*nowhere",
    "version_0": "no last.ckpt in the run folder .*version_0",
    "corrupt.ckpt": "corrupt.ckpt is not a readable checkpoint",
    "foreign.ckpt": "foreign.ckpt was not written by t2i-zoo",
}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("command", ["sample", "fit"])
def test_wrong_checkpoints(command, name, wrong_files, words, mistake, tmp_path):
    place = str(wrong_files / name)
    options = ["--ckpt", place, "--text", "a"] if command == "sample" else [*words(tmp_path), "--ckpt_path", place]
    assert re.search(CHECKPOINTS[name], mistake(command, *options))


def test_a_cut_off_checkpoint(trained, mistake, tmp_path):
    whole = (trained / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    assert "cut.ckpt is not a readable checkpoint" in mistake(
        "sample", "--ckpt", str(tmp_path / "cut.ckpt"), "--text=a"
    )


SAMPLE = {
    "": "no caption to draw",
    "--text": "too little after --text",
    "--text  ": "found a blank caption",
    "--text a --n 0": "found --n 0, expected an integer from 1",
    "--text a --n x": "found --n x, expected an integer",
    "--text a --seed -1": "found --seed -1",
    "--text a --truncation 0": "found --truncation 0.0, expected a number above 0 and up to 1, such as 0.88",
    "--text a --truncation 5": "found --truncation 5.0, expected a number above 0 and up to 1",
    "--text a --truncation nan": "found --truncation nan, expected a number",
    "--text a --batch-size 0": "found --batch-size 0",
    "--text a --batch-size many": "found --batch-size many, expected an integer",
    "--text a --out x.gif": r"found --out x.gif, expected .*\.png",
    "--text a --out x": "found --out x, expected",
    "--text a --device gpuu": "no device 'gpuu'",
    "--text a --txt b": "no option --txt: did you mean --text",
    "--text a --folder FILES/latin.txt": "latin.txt: File exists",
    "--text-file FILES/nowhere.txt": "no file .*nowhere.txt",
    "--text-file FILES/latin.txt": "latin.txt is not UTF-8",
    "--text-file FILES/blank.txt": "no caption to draw",
    "--text-file FILES": "is a folder: give a text file",
    "--text \udcff": "not UTF-8",
    "--interpolate a": "too little after --interpolate, expected 2 values",
    "--interpolate a b --text c": "found --interpolate beside",
    "--interpolate a b --interpolate-noise": "found --interpolate beside",
}


@pytest.mark.parametrize("options", SAMPLE)
def test_wrong_options_of_sample(options, trained, wrong_files, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [word.replace("FILES", str(wrong_files)) for word in options.split(" ")] if options else []
    assert re.search(SAMPLE[options], mistake("sample", "--ckpt", str(trained), *given))


def test_sample_without_a_checkpoint(mistake):
    said = mistake("sample", "--text", "a")
    assert said.startswith("found neither --model nor --ckpt, expected one: --model NAME comes with the package")


BENCHMARK = {
    "--window 0": "found --window 0, expected at least 1",
    "--rounds 0": "found --rounds 0, expected at least 1",
    "--window x": "found --window x, expected an integer",
    "--model.learning_rat 1": "did you mean --model.learning_rate",
    "--config nowhere": "no config 'nowhere'",
}


@pytest.mark.parametrize("options", BENCHMARK)
def test_wrong_options_of_benchmark(options, words, mistake, tmp_path):
    assert BENCHMARK[options] in mistake("benchmark", *words(tmp_path), *options.split())


WRITERS = {
    "sample": "sample --ckpt RUN --text a --out FILE.png",
    "sample into a folder": "sample --ckpt RUN --text a --folder FOLDER",
    "attention": "attention --ckpt RUN --text a --out FILE.png",
    "export": "export --ckpt RUN --out FILE.safetensors",
    "convert": "convert a.pth --from stackgan_v1 --out FILE.safetensors",
    "benchmark": "benchmark --config gancls_synthetic --out FILE.json",
    "leaderboard": "leaderboard RUN --protocol tiny --out FOLDER",
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_command_replaces_a_file_unasked(name, trained, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ("FILE.png", "FILE.safetensors", "FILE.json", "FOLDER/captions.json", "FOLDER/index.html")
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("precious", "utf-8")
    said = mistake(*WRITERS[name].replace("RUN", str(trained)).split())
    option = "--folder" if "--folder" in WRITERS[name] else "--out"
    assert re.search(rf"found \S+ already, expected a new name: change {option}, or add --overwrite", said)
    assert all(path.read_text("utf-8") == "precious" for path in tmp_path.rglob("*.*") if path.is_file())


def test_data_that_are_not_there_are_named_before_a_model_is_built(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = mistake("fit", "--config", "tacgan_flowers")
    assert said.startswith(
        "there is no folder data/oxford102: it should hold Oxford-102 (images from https://www.robots"
    )
    assert "t2i-zoo prepare --config tacgan_flowers --data.source.download true downloads" in said
    assert said.endswith("t2i-zoo fit --config tacgan_synthetic needs no data")
    assert not (tmp_path / "runs").exists()


def test_predicting_with_a_run_that_is_not_there(words, mistake, tmp_path):
    said = mistake("predict", *words(tmp_path / "run"), "--ckpt_path", "last")
    assert said.endswith("for predict to use: train one with t2i-zoo fit, or give a .ckpt file")


def test_predicting_with_other_options_than_those_of_the_run(trained, mistake):
    said = mistake("predict", "--config", str(trained / "config.yaml"), "--ckpt_path", "last", "--model.beta1", "0.1")
    assert "give the run's own config.yaml to --config" in said
    assert "resumed" not in said


def test_list_takes_no_options(mistake):
    assert "no option --x" in mistake("list", "--x")


def test_traceback_shows_where_it_was(words, tmp_path):
    with pytest.raises(T2IError, match="expected a number") as found:
        main(["fit", *words(tmp_path), "--model.learning_rate", "fast", "--traceback"])
    assert found.value.__cause__ is not None  # jsonargparse's own


def test_traceback_of_a_file_error(trained, wrong_files, tmp_path):
    wrong = ["--folder", str(wrong_files / "latin.txt"), "--out", str(tmp_path / "x.png")]
    with pytest.raises(FileExistsError):
        main(["sample", "--ckpt", str(trained), "--text", "a", *wrong, "--traceback"])
