"""Options that are declared once, as the parameters of a typed function, and how they may be written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from t2i_zoo.errors import T2IError
from t2i_zoo.parsing import arguments, command_parser, named_model


def draw(
    *runs: str,
    out: str,
    n: int = 8,
    text: Sequence[str] = (),
    between: tuple[str, str] | None = None,
    about: str | None = None,
    from_: str | None = None,
    live: bool = False,
    module_prefix: bool | None = None,
    text_encoder: str | dict[str, Any] | None = None,
    to: Literal["store", "shards"] = "store",
    words: Sequence[str] = (),
) -> dict[str, Any]:
    """Draw 100% of it.

    Args:
        runs: Folders of runs.
        about: One line.
        n: Images, 100% of them.
        live: Use ``last`` weights.
    """
    return {name: value for name, value in locals().items() if value not in (None, (), [])}


def call(words: list[str]) -> dict[str, Any]:
    """Call ``draw`` with the words of a command."""
    given, named = arguments(draw, words)
    return draw(*given, **named)


DEFAULTS = {"out": "o", "n": 8, "live": False, "to": "store"}
WRITTEN = {
    "": {},
    "--n 3": {"n": 3},
    "--n=3": {"n": 3},
    "a b": {"runs": ("a", "b")},
    "a --live b": "the word 'b', which no option takes",  # words without a flag stand together
    "--live --text a b": {"live": True, "text": ["a", "b"]},
    "--text a b --n 3 --text c": {"text": ["a", "b", "c"], "n": 3},
    "--live=true": {"live": True},
    "--live True": {"live": True},
    "--live false": {"live": False},
    "--no-live": {"live": False},
    "--no_module_prefix": {"module_prefix": False},
    "--module-prefix": {"module_prefix": True},
    "--module_prefix false": {"module_prefix": False},
    "--between a b": {"between": ["a", "b"]},
    "--between a": "found too little after --between, expected 2 values",
    "--about null": {"about": "null"},
    "--about 3": {"about": "3"},
    "--from x": {"from_": "x"},
    "--text_encoder {kind:a}": {"text_encoder": "{kind:a}"},
    "--to shards": {"to": "shards"},
    "--to shardz": "found --to shardz, expected one of store, shards: did you mean shards?",
    "--n x": "found --n x, expected an integer",
    "--m 3": "found no option --m: ",
    "--live=perhaps": "found a wrong --live: ignored explicit argument 'perhaps'",
}


@pytest.mark.parametrize("words", WRITTEN)
def test_ways_to_write_an_option(words: str) -> None:
    expected, given = WRITTEN[words], ["--out", "o", *words.split()]
    if isinstance(expected, str):
        with pytest.raises(T2IError, match=expected.replace("?", r"\?")):
            call(given)
    else:
        assert call(["--out", "o", *words.split()]) == {**DEFAULTS, **expected}


def test_a_required_option() -> None:
    with pytest.raises(T2IError, match="found no --out: give it"):
        call([])


def test_the_help_is_the_docstring() -> None:
    said = " ".join(command_parser(draw).format_help().split())
    for part in (
        "Draw 100% of it.",
        "Images, 100% of them. (type: int, default: 8)",
        "Use last weights",
    ):
        assert part in said
    assert "One line. (type: str)" in said
    assert "null)" not in said  # None is how a function says that an option was not given
    assert "--words" not in said


def test_options_of_fit_are_handed_on_with_what_follows_them() -> None:
    given = "r --config c --data.batch-size 3 --n 2 --trainer.devices -1 -c d --seed-everything 3 --out o"
    found = call(given.split())
    handed = "--config c --data.batch-size 3 --trainer.devices -1 -c d --seed-everything 3"
    assert found["words"] == handed.split()
    assert (found["runs"], found["n"]) == (("r",), 2)


def test_a_model_by_its_name_or_path() -> None:
    assert named_model("GANCLS") is named_model("t2i_zoo.models.gancls.GANCLS")
    assert named_model("collections.OrderedDict").__name__ == "OrderedDict"
    for wrong in ("GANCLSS", "", "nowhere.Model", "t2i_zoo.models.gancls.Nothing"):
        with pytest.raises(T2IError, match=f"found no model class '{wrong}'"):
            named_model(wrong)
