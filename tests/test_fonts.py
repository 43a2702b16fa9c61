"""Letters of every script: which font draws which character, in which order, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features
from tiny_font import write_font

from t2i_zoo import fonts
from t2i_zoo.errors import T2IError
from t2i_zoo.fonts import Letters, clusters, right_to_left


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without fontconfig and matplotlib, whose fonts are in this folder."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(fonts, "_FOLDERS", (str(tmp_path / "system"),))
    monkeypatch.setattr(fonts, "_dejavu", lambda: ())
    monkeypatch.setattr(fonts, "_found", [])
    monkeypatch.setattr(fonts, "_missing", set())
    (tmp_path / "system").mkdir()
    return tmp_path / "system"


def ink(letters: Letters, text: str, width: int = 200) -> Image.Image:
    """A line as it is drawn, black on white."""
    page = Image.new("RGB", (width, 40), "white")
    letters.draw(page, (0, 5), text, "black")
    return page


def black(page: Image.Image) -> list[tuple[int, int]]:
    return [(x, y) for x in range(page.width) for y in range(page.height) if page.getpixel((x, y)) == (0, 0, 0)]


def parts(letters: Letters, text: str) -> list[tuple[str, str]]:
    """The runs of a line in the order they are drawn, each with the name of its font's file."""
    runs = fonts._visual(letters._runs(text), right_to_left(text))
    return [(Path(str(face.font.path)).name if isinstance(face.font.path, str) else "", part) for face, part in runs]


def test_a_character_comes_from_a_font_of_the_system(machine: Path) -> None:
    write_font(machine / "Tiny-Bold.ttf", "\u82b1")
    write_font(machine / "Tiny.ttf", "\u82b1")
    (machine / "broken.ttf").write_bytes(b"no font")
    letters = Letters(10)
    assert parts(letters, "a \u82b1!") == [("", "a "), ("Tiny.ttf", "\u82b1"), ("", "!")]
    assert letters.length("\u82b1\u82b1") == 20
    page = ink(letters, "\u82b1\u82b1")
    assert sorted(black(page)) == [(x, y) for x in range(20) for y in range(5, 15)]  # stands on the baseline


def test_a_script_without_a_font_is_said_once(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = Letters(10)
    for text in ("\u82b1", "\u7ea2\u8272", "a \U0001f338", "\U0001f338\U0001f33a", "plain"):
        ink(letters, text)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["note"] * 2
    assert "no font on this machine draws Chinese such as \u82b1: install one (fonts-noto-cjk" in lines[0]
    assert "emoji and symbols such as \U0001f338" in lines[1]
    assert lines[0].endswith("--font")


def test_the_fonts_of_fontconfig_are_asked_for(machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    font, tool = write_font(tmp_path / "elsewhere.ttf", "\u82b1"), tmp_path / "bin" / "fc-list"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\ntest "$1" = :charset=82b1 && echo {font}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    assert parts(Letters(10), "\u82b1") == [("elsewhere.ttf", "\u82b1")]


def test_a_font_of_your_own_comes_first(tmp_path: Path) -> None:
    own = Letters(10, str(write_font(tmp_path / "own.ttf", "ab \u82b1")))
    assert parts(own, "ab \u82b1a") == [("own.ttf", "ab \u82b1a")]
    assert parts(own, "abc") == [("own.ttf", "ab"), ("", "c")]


@pytest.mark.parametrize("content", [None, b"", b"not a font"])
def test_a_file_that_is_no_font_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "letters.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(T2IError, match=r"letters\.txt is not a font that can be read: give a \.ttf.* to --font"):
        Letters(10, str(path))


def test_one_font_draws_a_whole_line_where_one_has_all_letters(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = str(write_font(machine / "wide.ttf", "flower \u00f6"))
    monkeypatch.setattr(fonts, "_dejavu", lambda: (wide,))
    assert parts(Letters(10), "fl\u00f6wer") == [("wide.ttf", "fl\u00f6wer")]
    assert parts(Letters(10), "flower") == [("", "flower")]


def test_runs_are_drawn_from_right_to_left(machine: Path) -> None:
    write_font(machine / "alef.ttf", "\u05d0\u05d1")
    write_font(machine / "han.ttf", "\u82b1")
    letters = Letters(10)
    assert parts(letters, "\u05d0 \u82b1") == [("han.ttf", "\u82b1"), ("", " "), ("alef.ttf", "\u05d0")]
    assert parts(letters, "a\u82b1 \u05d0") == [("", "a"), ("han.ttf", "\u82b1"), ("", " "), ("alef.ttf", "\u05d0")]
    assert [part for _, part in parts(letters, "\u05d0 \u82b1a")] == ["\u82b1", "a", " ", "\u05d0"]


@pytest.mark.skipif(not features.check("raqm"), reason="this Pillow has no raqm")
def test_letters_of_a_run_are_drawn_from_right_to_left(tmp_path: Path) -> None:
    letters = Letters(10, str(write_font(tmp_path / "own.ttf", "\u05d1")))  # beth is large, alef is missing and small
    columns = {x for x, _ in black(ink(letters, "\u05d1\u05d1", 40))}
    assert columns == set(range(20))
    assert right_to_left("1 \u05d1 a")
    assert not right_to_left("a \u05d1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc", ["a", "b", "c"]),
        ("e\u0301\u0302a", ["e\u0301\u0302", "a"]),
        ("\U0001f469\u200d\U0001f33e!", ["\U0001f469\u200d\U0001f33e", "!"]),
        ("\U0001f44d\U0001f3fdx", ["\U0001f44d\U0001f3fd", "x"]),
        ("\u0301a", ["\u0301", "a"]),
        ("", []),
    ],
)
def test_marks_stay_with_their_characters(text: str, expected: list[str]) -> None:
    assert list(clusters(text)) == expected
