"""t2i-zoo report: one page about a run, of whatever the run has left behind, which a browser shows without network."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from browser import asked, browser, elsewhere, needs_chromium
from PIL import Image

from t2i_zoo.__main__ import main
from t2i_zoo.commands.report import _thinned, find_run, render
from t2i_zoo.runs import lock


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run with another page of samples, scores, and a caption that is HTML."""
    folder = Path(shutil.copytree(trained, tmp_path / "tiny" / "version_0"))
    Image.new("RGB", (64, 32), "red").save(folder / "samples" / "epoch_0001.png")
    assert main(["evaluate", "--ckpt", str(folder), "--protocol", "agreement_synthetic", "--images", "8"]) == 0
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "# <script>alert(1)</script>\n")
    return folder


def test_the_page(run, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main(["report", str(run), "--out", str(page)]) == 0
    assert f" MB: {page}" in capsys.readouterr().out
    text = page.read_text("utf-8")
    for part in (
        *("tiny / version_0", ">finished<", "GANCLS", "SyntheticFlowers", "2 of 2", "agreement of petal colour"),
        *("generator_loss", "epoch 2", "&lt;script&gt;alert(1)", "<dt>lightning</dt>", "<dt>device</dt><dd>cpu</dd>"),
    ):
        assert part in text, part
    assert text.count("data:image/jpeg;base64,") == 2
    assert text.count("<script>") == 1
    assert "http" not in text.replace("https://", "http://", 0).partition("<h2>Config</h2>")[0]
    assert main(["report", str(run.parent), "--out", str(tmp_path / "newest.html")]) == 0  # the folder above it
    assert (tmp_path / "newest.html").read_text("utf-8") == text
    assert find_run(run / "checkpoints" / "last.ckpt") == run.resolve()


def test_runs_that_did_not_end(run):
    (run / "finished.json").unlink()
    held = lock(run)
    assert ">running<" in render(run)
    held.release()
    assert ">not finished<" in render(run)
    csv, grid = run / "metrics.csv", run / "samples" / "epoch_0002.png"
    csv.write_text(csv.read_text() + "1,9")  # cut off by a full disk
    grid.write_bytes(grid.read_bytes()[:100])
    page = render(run)
    assert page.count("data:image/jpeg;base64,") == 1
    assert "generator_loss" in page
    for path in run.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run / "config.yaml").write_text("model: {")
    page = render(run)
    for sentence in ("None were drawn yet.", "No batch was logged yet.", "None were measured", "Not recorded."):
        assert sentence in page


def test_images_of_all_processes_count(run):
    def speed():
        return float(re.search(r"([\d.e+]+) images/s", render(run))[1])

    for number, name in enumerate(("epoch_0001.png", "epoch_0002.png")):
        os.utime(run / "samples" / name, (number, number))  # a second per epoch
    alone, about = speed(), run / "environment.json"
    about.write_text(json.dumps({"device": "4 x NVIDIA H200"}))
    assert speed() == 4 * alone
    about.unlink()
    assert speed() == alone


def test_long_curves_keep_their_means():
    points = [(float(x), float(x % 2)) for x in range(1000)]
    thinned = _thinned(points)
    assert len(thinned) == 200
    assert thinned[1] == (7.0, 0.6)  # of 5 to 9, three of which are odd


def test_mistakes(run, tmp_path, mistake):
    assert mistake("report").startswith("found 0 runs, expected one: t2i-zoo report RUN")
    assert mistake("report", str(run), "--out", "a.pdf").endswith("expected a file name that ends in .html")
    assert mistake("report", str(tmp_path / "none")).startswith(f"found no run in {tmp_path / 'none'}")
    (tmp_path / "alone.ckpt").write_text("")
    assert mistake("report", str(tmp_path / "alone.ckpt")).startswith(f"found no run in {tmp_path / 'alone.ckpt'}")
    page = tmp_path / "a.html"
    page.write_text("mine")
    assert mistake("report", str(run), "--out", str(page)).startswith(f"found {page} already")


@needs_chromium
def test_a_browser_shows_it_in_both_themes(run, tmp_path):
    page = tmp_path / "report.html"
    page.write_text(render(run), "utf-8")
    with browser(tmp_path) as driver:
        asked(driver)  # by the browser's own start page
        inks = set()
        for theme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": theme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            driver.get(page.as_uri())
            inks.add(driver.execute_script("return getComputedStyle(document.body).color"))
        assert len(inks) == 2
        shown = "return [...document.querySelectorAll('.grids img')].map(x => x.offsetWidth > 0 && x.complete)"
        assert driver.execute_script(shown) == [False, True]
        driver.execute_script("document.getElementById('scrub').value = 0")
        driver.execute_script("document.getElementById('scrub').dispatchEvent(new Event('input'))")
        assert driver.execute_script(shown) == [True, False]
        assert driver.find_element("id", "epoch").text == "epoch 1"
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        assert not driver.get_log("browser")
        assert not elsewhere([address for address in asked(driver) if address != page.as_uri()])
