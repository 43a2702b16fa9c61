"""Help, mistyped flags and completion without torch: read from signatures, and as whole as those of the real parser."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from t2i_zoo.__main__ import TRAINING, VERBS, main
from t2i_zoo.data import SOURCES
from t2i_zoo.errors import T2IError
from t2i_zoo.models import MODELS
from t2i_zoo.overview import CALLBACKS, GROUPS, check_flags, load_follows, one_size, sketch_of, training_help
from t2i_zoo.parsing import hands_on, packaged_configs
from t2i_zoo.signatures import options_of

CONFIG = ["--config", "gancls_synthetic"]
QUICK = {
    "": 0,
    "--help": 0,
    "--print_completion shtab-bash": 0,
    **{f"{verb} --help": 0 for verb in (*TRAINING, *VERBS)},
    "fit --config mirrorgan_birds --help all": 0,
    "fit --config gancls_synthetic --trainer.max_epoch 3": 2,
    "fit --config gancls_synthetic --model.learning-rat 3": 2,
    "pipeline attngan_synthetic --damns.trainer.max_epochs 3": 2,
    "evaluate --ckpt x --protocol tiny --data.sise 3": 2,
    "benchmark --config gancls_synthetic --data.sise 3": 2,
    "sample --tekst x": 2,
    "smaple": 2,
    "list": 0,
}  #: command lines that are answered at once, with their exit codes


def test_quick_answers_import_neither_torch_nor_lightning() -> None:
    """All of them in one process, since each start takes its time."""
    code = (
        "import json, sys\n"
        "from t2i_zoo.__main__ import main\n"
        "codes = {words: main(words.split()) for words in json.loads(sys.argv[1])}\n"
        "slow = {'torch', 'lightning', 'torchmetrics', 'transformers', 'scipy', 'numpy'} & set(sys.modules)\n"
        "print('\\n' + json.dumps([codes, sorted(slow)]))"
    )
    # printing a completion script ends the process, as argparse does
    asked = [words for words in QUICK if not words.startswith("--print")]
    done = subprocess.run([sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    codes, slow = json.loads(done.stdout.splitlines()[-1])
    assert codes == {words: QUICK[words] for words in asked}
    assert slow == []
    assert done.stderr.count("error: ") == sum(code == 2 for code in codes.values())


def test_signatures_agree_with_the_real_parser() -> None:
    """What is read from source is what jsonargparse finds by importing: every flag of ``fit``, and of each class."""
    from t2i_zoo.cli import ZooCLI, build
    from t2i_zoo.mistakes import known_flags

    class StopError(Exception):
        pass

    class Parsers(ZooCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            flags.update(known_flags(parser))
            raise StopError

    flags: dict[str, Any] = {}
    with pytest.raises(StopError):
        build(["fit"], cli=Parsers)
    for prefix, path in GROUPS.items():
        read = {f"--{prefix}.{option.name}" for option in options_of(path)}
        real = {flag.rstrip("+") for flag in flags if flag.startswith(f"--{prefix}.")}
        odd = {flag for flag in real ^ read if "help" not in flag and not flag.startswith("--print")}
        assert not odd, prefix
    for flag in flags:
        check_flags([*CONFIG, flag])  # none of them is refused


@pytest.mark.parametrize("name", MODELS)
def test_options_of_a_model_are_those_of_its_signatures(name: str) -> None:
    from t2i_zoo.models import model_class
    from t2i_zoo.runs import default_options

    cls, read = model_class(name), {option.name: option for option in options_of(MODELS[name].path)}
    real = default_options(cls)
    assert {key for key, option in read.items() if option.default} == set(real)
    assert all(option.about for option in read.values()), "an option without a description"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--trainer.max_epoch", "no option --trainer.max_epoch: did you mean --trainer.max_epochs"),
        ("--model.generator_widht", "did you mean --model.generator_width"),
        ("--data.source.imags", "did you mean --data.source.images"),
        ("--zebra", "no option --zebra: --help lists what there is"),
    ],
)
def test_a_mistyped_flag(flag: str, said: str) -> None:
    with pytest.raises(T2IError, match=said):
        check_flags([*CONFIG, f"{flag}=3"])


@pytest.mark.parametrize(
    "words",
    [
        "--model my.Model --model.anything 3",
        "--data.source my.Source --data.source.anything 3",
        "--trainer.callbacks+ EarlyStopping --trainer.callbacks.monitor val/x",
        "--model.init_args.learning_rate 3",
        "--model.text_encoder.kind hashing",
        "--trainer.logger.init_args.save_dir x",
        "--print_config=skip_null",
    ],
)
def test_flags_that_only_the_parser_can_judge(words: str) -> None:
    check_flags([*CONFIG, *words.split()])


def test_help_shows_the_options_of_the_chosen_model_on_two_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    said = training_help("fit", "train", ["--config", "tacgan_flowers"])
    for option in (*options_of(MODELS["tacgan"].path), *options_of(GROUPS["data"])):
        assert option.name == "source" or f".{option.name}" in said
    assert "--data.source.split" in said
    assert "--model.mismatch_weight" not in said  # GAN-CLS has it
    assert len(said.splitlines()) < 120
    assert max(map(len, said.splitlines())) <= 100
    whole = training_help("fit", "train", ["--config", "tacgan_flowers"], everything=True)
    assert "--trainer.detect_anomaly" in whole
    assert len(whole) > 3 * len(said)


def test_help_without_a_config_says_how_to_choose_a_model() -> None:
    said = training_help("fit", "train", [])
    assert "With --config NAME or --model NAME" in said
    assert f"--data.source NAME{' ' * 18}  one of {next(iter(SOURCES))}, " in said


@pytest.mark.parametrize("verb", VERBS)
def test_each_command_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"t2i-zoo {verb}" in said
    assert ("--data.batch_size" in said) == (verb in ("evaluate", "leaderboard", "prepare"))


def test_sketches_have_the_signatures_of_the_functions() -> None:
    import importlib
    import inspect

    from t2i_zoo.overview import function_name

    for verb in VERBS:
        real = getattr(importlib.import_module(f"t2i_zoo.commands.{verb}"), function_name(verb))
        sketch = sketch_of(verb)
        assert inspect.signature(sketch).parameters == inspect.signature(real).parameters
        assert inspect.getdoc(sketch) == inspect.getdoc(real)
        assert hands_on(sketch) == (verb in ("pipeline", "prepare", "evaluate", "leaderboard", "benchmark"))


def test_the_help_of_convert_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    from t2i_zoo.commands.official_states import FORMATS

    assert main(["convert", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in FORMATS)


@pytest.mark.parametrize(
    ("words", "added"),
    [
        ("--model.image_size 32", "--data.image_size 32"),
        ("--data.image-size=32", "--model.image_size 32"),
        ("--model.image_size 32 --data.image_size 16", ""),
        ("", "--data.image_size 48"),
    ],
)
def test_one_image_size_is_enough(words: str, added: str) -> None:
    config = ["--config", '{"model": {"class_path": "GANCLS", "init_args": {"image_size": 48}}}']
    assert one_size([*config, *words.split()]) == [*config, *words.split(), *added.split()]
    both = [
        "--config",
        '{"model": {"class_path": "GANCLS", "init_args": {"image_size": 48}}, "data": {"image_size": 64}}',
    ]
    assert one_size(both) == both
    without = ["--config", "damsm_synthetic", *words.split()]  # a DAMSM takes any size
    assert one_size(without) == without


@pytest.mark.parametrize(
    ("words", "added"),
    [
        ("--config gancls_synthetic --model.image_size 64", "--data.image_size 64 --data.load_size 64"),
        ("--config tacgan_flowers --data.image-size=64", "--model.image_size 64 --data.load_size 64"),
        ("--config tacgan_flowers --model.image_size 64 --data.image_size 64", "--data.load_size 64"),
        ("--config damsm_folder --data.image_size 64", "--data.load_size 76"),  # 75.98
        ("--config tacgan_flowers --model.image_size 64 --data.load_size 76", "--data.image_size 64"),
        ("--config tacgan_flowers --model.image_size 64 --data.load-size=null", "--data.image_size 64"),
        ("--config tacgan_flowers --model.image_size 128", "--data.image_size 128"),
        ("--config gancls_flowers --model.image_size 32", "--data.image_size 32"),  # whose load size is open
        ("--config tacgan_flowers --model.image_size big", "--data.image_size big"),
        ("--config tacgan_flowers", ""),
    ],
)
def test_the_load_size_of_a_config_follows_the_image_size(words: str, added: str) -> None:
    assert one_size(words.split()) == [*words.split(), *added.split()]


def test_the_load_size_follows_what_configs_say_together() -> None:
    words = ["--config", "tacgan_flowers", "--config", '{"data": {"load_size": null}}', "--data.image_size", "64"]
    assert load_follows(words) == words
    words[3] = '{"data": {"image_size": 64}}'
    assert load_follows(words) == words  # a config is taken at its word
    words[-1] = "32"
    assert load_follows(words) == [*words, "--data.load_size", "64"]
    short = '{"model": {"class_path": "TACGAN", "init_args": {"image_size": 128}}, "data": {"load_size": 152}}'
    assert load_follows(["--config", short, "--data.image_size", "64"])[-2:] == ["--data.load_size", "76"]


def test_completion_scripts_know_every_command_and_flag() -> None:
    pytest.importorskip("shtab", reason="shtab, which writes completion scripts, is not installed")
    words = [sys.executable, "-m", "t2i_zoo", "--print_completion", "shtab-bash"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for word in (*TRAINING, *VERBS, "--model.generator_width", "--data.source.root", "--interpolate-noise"):
        assert word in done.stdout
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0


def test_callbacks_on_the_command_line() -> None:
    assert set(CALLBACKS) <= set(GROUPS)
    assert all(packaged_configs())
