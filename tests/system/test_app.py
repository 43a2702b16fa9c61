"""The page: what its studio draws, and a visit by a real browser that never leaves this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import asked, browser, elsewhere, needs_chromium
from PIL import Image

from t2i_zoo import load_model
from t2i_zoo.commands.studio import LONGEST, MOST, Studio
from t2i_zoo.errors import T2IError
from t2i_zoo.paths import shipped_generators
from t2i_zoo.pictures import to_uint8
from t2i_zoo.sampling import draw_rows

CAPTION = "a flower with red petals"


@pytest.fixture
def studio(trained: Path) -> Studio:
    return Studio(trained.parents[1])


@pytest.fixture
def run(trained: Path) -> str:
    """The name of the trained run on the page."""
    return str(trained.relative_to(trained.parents[1]))


def pixels(path: Path) -> torch.Tensor:
    image = Image.open(path)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)


def test_it_offers_shipped_generators_files_and_runs_of_gans(studio: Studio, run: str, tmp_path: Path) -> None:
    assert list(studio.generators()) == [*shipped_generators(), run]
    for name, config in {"damsm": "model: {class_path: DAMSM}", "broken": "model: [", "none": ""}.items():
        folder = tmp_path / name / "version_0" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "last.ckpt").touch()
        (folder.parent / "config.yaml").write_text(config)
    assert list(Studio(tmp_path, ["own.safetensors"]).generators()) == [*shipped_generators(), "own.safetensors"]


def test_a_name_that_is_taken_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = next(iter(shipped_generators()))
    found = Studio(tmp_path, ["a/own.safetensors", "b/own.safetensors", name]).generators()
    assert found[name] == str(shipped_generators()[name])
    own = {"own.safetensors": "a/own.safetensors", str(tmp_path / "b/own.safetensors"): "b/own.safetensors"}
    assert {key: file for key, file in found.items() if key not in shipped_generators()} == {
        **own,
        str(tmp_path / name): name,
    }


def test_images_are_those_of_sample_and_say_how_they_came_about(studio: Studio, run: str, trained: Path) -> None:
    drawn, notes = studio.draw([run, "flowers64"], CAPTION, 3, seed=5)
    assert [title for _, title in drawn] == [run] * 3 + ["flowers64"] * 3
    model = load_model(trained)
    (row,) = draw_rows(model, [CAPTION], model.noise(3, torch.Generator().manual_seed(5)))
    for (path, _), image in zip(drawn, to_uint8(row), strict=False):
        assert torch.equal(pixels(path), image.permute(1, 2, 0))
    about = Image.open(drawn[0][0]).info
    assert (about["Description"], about["Seed"]) == (CAPTION, "5")
    assert "GANCLS" in about["Model"]
    assert notes == ""
    assert "xylophone" in studio.draw([run], "a xylophone", 1, seed=0)[1]
    cut, _ = studio.draw([run], CAPTION, 3, seed=5, truncation=0.5)
    assert Image.open(cut[0][0]).info["Truncation"] == "0.5"
    assert not torch.equal(pixels(cut[0][0]), pixels(drawn[0][0]))


def test_a_path_begins_and_ends_with_its_captions(studio: Studio, run: str) -> None:
    walk = studio.between(run, (CAPTION, "a blue flower"), 4, seed=1)
    for caption, frame in ((CAPTION, walk.frames[0]), ("a blue flower", walk.frames[-1])):
        ((path, _),) = studio.draw([run], caption, 1, seed=1)[0]
        assert (pixels(path).int() - pixels(frame).int()).abs().max() <= 1
    film = Image.open(walk.film)
    assert (film.n_frames, film.size) == (6, (256, 256))  # there and back


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"names": []}, "found no generator"),
        ({"names": ["gone"]}, "'gone' any more"),
        ({"caption": " "}, "blank caption"),
        ({"caption": "red " * LONGEST}, "4,000 characters"),
        ({"count": MOST + 1}, "expected 1 to 16"),
        ({"seed": -1}, "expected an integer from 0"),
        ({"redescribe": True}, "without a STREAM"),
    ],
)
def test_mistakes_are_one_sentence(studio: Studio, run: str, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(T2IError, match=sentence):
        studio.draw(**{"names": [run], "caption": CAPTION, "count": 1, "seed": 0, **change})


def test_a_model_without_attention_says_so(studio: Studio, run: str) -> None:
    with pytest.raises(T2IError, match="attends to no words"):
        studio.attention(run, CAPTION, 0)


def test_a_run_that_was_trained_on_is_loaded_anew(studio: Studio, run: str) -> None:
    first = studio.model(run)
    assert studio.model(run) is first
    last = Path(studio.generators()[run]) / "checkpoints" / "last.ckpt"
    stat = last.stat()
    try:
        os.utime(last, (stat.st_atime, stat.st_mtime + 5))
        assert studio.model(run) is not first
    finally:
        os.utime(last, (stat.st_atime, stat.st_mtime))


def test_a_file_that_was_written_again_is_loaded_anew(trained: Path, tmp_path: Path) -> None:
    own = Path(shutil.copy(trained / "checkpoints" / "last.ckpt", tmp_path / "own.ckpt"))
    for given, file in ((own, own), (trained.parent, trained / "checkpoints" / "last.ckpt")):
        studio, stat = Studio(tmp_path, [str(given)]), file.stat()
        first = studio.model(given.name)
        assert studio.model(given.name) is first
        try:
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
            assert studio.model(given.name) is not first
        finally:
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_without_gradio_it_names_the_extra(mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert mistake("app", "--port", "0") == 'the page needs gradio: pip install "t2i-zoo[app]"'
    assert "needs gradio" in mistake("app", "flowers64", "hf://user/name", "--port", "0")
    assert "correct its name" in mistake("app", "nothing.safetensors")
    assert "0 to 65535" in mistake("app", "--port", "70000")


@pytest.fixture
def address(trained: Path) -> Iterator[str]:
    """The page of a real process."""
    words = [sys.executable, "-m", "t2i_zoo", "app", "--port", "0", "--runs", str(trained.parents[1])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        try:
            assert found is not None
            yield found[0]
        finally:
            process.kill()


@needs_chromium
def test_a_visit(address: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    with browser(tmp_path) as driver:
        wait = WebDriverWait(driver, 60)
        driver.get(address)
        box = wait.until(lambda d: d.find_element(By.CSS_SELECTOR, "#caption textarea, #caption input"))

        def draw(caption: str) -> None:
            driver.execute_script("arguments[0].value = ''", box)
            box.send_keys(caption)
            driver.find_element(By.ID, "draw").click()

        def notes() -> str:
            return driver.find_element(By.CSS_SELECTOR, "#notes textarea, #notes input").get_attribute("value")

        draw("a xylophone with pink petals")
        images = wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, "#images img"))
        wait.until(lambda d: all(image.get_property("naturalWidth") == 128 for image in images))
        wait.until(lambda d: "xylophone" in notes())
        driver.set_window_size(700, 1000)
        wide = "let each = document.querySelector('#images .grid-wrap'); return each.scrollWidth - each.clientWidth"
        assert driver.execute_script(wide) == 0  # eight images fit a narrow window
        driver.set_window_size(1200, 1000)
        draw("<b id=bold>red</b><script>document.title = 'taken'</script>")
        wait.until(lambda d: "'script'" in notes())
        assert driver.title == "t2i-zoo"
        assert not driver.find_elements(By.ID, "bold")
        addresses = asked(driver)
        assert any("/file=" in one for one in addresses)
        assert elsewhere(addresses) == []
