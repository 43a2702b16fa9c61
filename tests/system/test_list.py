"""t2i-zoo list and the overview name everything that there is."""

import pytest

from t2i_zoo import __version__
from t2i_zoo.__main__ import TRAINING, VERBS, main
from t2i_zoo.data import SOURCES
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import packaged_configs
from t2i_zoo.paths import shipped_generators


def test_list_names_models_configs_and_sources(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shipped = shipped_generators()
    for name in [*MODELS, *packaged_configs(), *SOURCES, *shipped]:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 3  # and says what it is
    for names in (MODELS, packaged_configs(), SOURCES):  # descriptions stand in one column
        rows = [line for line in lines if line.split()[:1] and line.split()[0] in names and line.startswith("  ")]
        assert len({len(line) - len(line.split(maxsplit=1)[1]) for line in rows}) == 1
    headings = 3 + bool(shipped)  # with a blank line between two
    assert len(MODELS) + len(packaged_configs()) + len(SOURCES) + len(shipped) + 2 * headings - 1 == len(lines)


@pytest.mark.parametrize("words", [[], ["--help"], ["help"]])
def test_the_overview_names_every_command(words, capsys):
    assert main(words) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in (*TRAINING, *VERBS))


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
