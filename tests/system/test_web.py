"""``export --to web``: its text encoder in JavaScript, the folder, and the page in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import asked, browser, elsewhere, needs_chromium

from t2i_zoo import load_model
from t2i_zoo.__main__ import main
from t2i_zoo.commands.pages import OWN_FILES, RUNTIME, RUNTIME_FILES
from t2i_zoo.data import SyntheticFlowers
from t2i_zoo.text import build_text_encoder
from t2i_zoo.text.none import NoText

WEB = Path(sys.modules["t2i_zoo"].__path__[0]) / "web"
ODD = [
    "Straße mit ΟΔΟΣ \u2019bird\u2019s\u2011eye\u2019 café ﬁne Å",
    "黄色い花 と 赤", "नमस्ते दुनिया", "a_b c--d 'e' 12.5 ½ x²",
    "İstanbul", "ñandú e\u0301", "a", "of the",
]  # fmt: skip
SCRIPT = """
import fs from "fs";
const {encode} = await import(process.argv[2]), asked = JSON.parse(fs.readFileSync(0));
const found = asked.captions.map(caption => encode(caption, asked.options));
console.log(JSON.stringify(found.map(({words, sentence, vectors}) =>
  ({words, sentence: [...sentence], vectors: vectors.map(vector => [...vector])}))));
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with files named like ONNX Runtime for the web; what does not run the page needs no more."""
    folder = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME_FILES:
        (folder / name).write_text(name)
    return str(folder)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js to run the page's text encoder")
@pytest.mark.parametrize(("dim", "former"), [(48, False), (7, True)])
def test_the_text_encoder_agrees_with_pythons(dim: int, former: bool, tmp_path: Path) -> None:
    encoder = build_text_encoder({"kind": "hashing", "dim": dim, "max_words": 6})
    encoder.former_words = former
    world = [caption for record in SyntheticFlowers(images=400).records() for caption in record.captions]
    captions = [*world[:1000], *ODD]
    assert len(captions) >= 1000
    asked = {"captions": captions, "options": {"dim": dim, "maxWords": 6, "former": former}}
    (tmp_path / "run.mjs").write_text(SCRIPT)
    command = ["node", str(tmp_path / "run.mjs"), (WEB / "encoder.mjs").as_uri()]
    found = json.loads(
        subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True).stdout
    )
    for caption, one in zip(captions, found, strict=True):
        assert one["words"][:6] == encoder.tokens(caption)
        wanted = encoder.encode([caption], words=True)
        assert wanted.words is not None
        torch.testing.assert_close(torch.tensor(one["sentence"]), wanted.sentence[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(torch.tensor(one["vectors"]), wanted.words[0], rtol=0, atol=1e-6)


def test_a_folder_with_a_generator_in_half_precision(
    trained: Path, runtime: str, tmp_path: Path, capsys: Any, mistake: Any
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 't2i-zoo[onnx]'")
    folder = tmp_path / "page"
    words = ["export", "--ckpt", str(trained), "--to", "web", "--out", str(folder), "--runtime", runtime]
    assert main(words) == 0
    assert f"--directory {folder}" in capsys.readouterr().out
    own = {"generator.onnx", "generator.md", "about.json"}
    assert {path.name for path in folder.iterdir()} == {*own, *OWN_FILES, *RUNTIME_FILES}
    about, model = json.loads((folder / "about.json").read_text("utf-8")), load_model(trained)
    assert (about["sentence_dim"], about["vocabulary"]) == (model.text_encoder.dim, sorted(model.vocabulary))
    assert str(tmp_path.parent) not in json.dumps(about)
    noise, text = model.noise(3), model.encode(["a red flower"] * 3)
    session = onnxruntime.InferenceSession(folder / "generator.onnx")
    (images,) = session.run(None, {"noise": noise.numpy(), "sentence": text.sentence.numpy()})
    torch.testing.assert_close(torch.from_numpy(images), model.generate(text, noise=noise), rtol=0, atol=5e-3)
    assert (folder / "generator.onnx").stat().st_size < 2.6 * sum(x.numel() for x in model.generator.parameters()) + 1e5
    assert "already" in mistake(*words)
    assert mistake(*words[:-2], "--overwrite", "--runtime", str(tmp_path)).startswith("found no ort.wasm.min.mjs in")
    assert "expected a folder" in mistake(*words[:5], "--out", "page.onnx")


def test_files_of_another_page_stay_unless_told(trained: Path, runtime: str, tmp_path: Path, mistake: Any) -> None:
    words = ["export", "--ckpt", str(trained), "--to", "web", "--out", str(tmp_path), "--runtime", runtime]
    for name in ("index.html", "about.json", RUNTIME_FILES[0]):
        own = tmp_path / name
        own.write_text("mine")
        assert mistake(*words).startswith(f"found {own} already, expected a new name")
        own.unlink()
    for name in OWN_FILES + RUNTIME_FILES:
        (tmp_path / name).touch()
    assert f"{OWN_FILES[2]} and 3 more already" in mistake(*words)
    assert "expected --to web" in mistake(*words[:3], "--out", str(tmp_path / "a.safetensors"), "--runtime", runtime)


def test_what_a_browser_cannot_run_is_refused(trained: Path, tmp_path: Path, mistake: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("T2I_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["export", "--ckpt", str(trained), "--to", "web", "--out", str(tmp_path / "page")]
    assert mistake(*words) == (
        f"found no npm, which brings ONNX Runtime for the web: install it, or give the folder dist of {RUNTIME} with "
        "--runtime"
    )
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'npm error 404 not found' >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    assert "(npm error 404 not found)" in mistake(*words)
    model = load_model(trained)
    model.text_encoder = NoText()
    monkeypatch.setattr("t2i_zoo.commands.export.load_model", lambda source: model)
    assert "found a NoText, expected the hashing text encoder" in mistake(*words)
    assert not (tmp_path / "page").exists()


def test_8_bit_integers(trained: Path, tmp_path: Path, mistake: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 't2i-zoo[onnx]'")
    sizes, images = [], []
    model = load_model(trained)
    noise, text = model.noise(2, torch.Generator().manual_seed(0)), model.encode(["a red flower"] * 2)
    for more in ([], ["--int8"]):
        path = tmp_path / f"one{len(more)}.onnx"
        assert main(["export", "--ckpt", str(trained), "--to", "onnx", "--out", str(path), *more]) == 0
        sizes.append(path.stat().st_size)
        session = onnxruntime.InferenceSession(path)
        images.append(session.run(None, {"noise": noise.numpy(), "sentence": text.sentence.numpy()})[0])
    assert sizes[1] < 0.6 * sizes[0]
    assert 0 < abs(images[0] - images[1]).mean() < 0.1
    assert "expected --to onnx" in mistake("export", "--ckpt", str(trained), "--out", "a.safetensors", "--int8")


@pytest.fixture
def address(trained: Path, tmp_path: Path) -> Iterator[str]:
    """A plain file server of the page of the trained run."""
    runtime = os.environ.get("ONNXRUNTIME_WEB")
    if not runtime:
        pytest.skip(f"needs the folder dist of npm's {RUNTIME}, named by $ONNXRUNTIME_WEB")
    folder = tmp_path / "page"
    assert main(["export", "--ckpt", str(trained), "--to", "web", "--out", str(folder), "--runtime", runtime]) == 0
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@needs_chromium
def test_a_browser_draws_what_python_draws(address: str, trained: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    model, caption = load_model(trained), "a flower with red petals"
    noise = torch.sin(torch.arange(2 * model.total_noise_dim)).view(2, -1)
    with browser(tmp_path) as driver:
        wait = WebDriverWait(driver, 120)
        driver.get(address)
        wait.until(lambda d: d.execute_script("return document.body.dataset.ready"))
        assert len(driver.find_elements(By.CSS_SELECTOR, "#images canvas")) == 8
        box = driver.find_element(By.ID, "caption")
        box.clear()
        box.send_keys("a red xylophone\n")
        wait.until(lambda d: "xylophone" in d.find_element(By.ID, "notes").text)
        drawn = driver.execute_async_script(
            """
            const [caption, noise, done] = arguments, options = {dim: zoo.about.sentence_dim, maxWords: 32};
            zoo.imagesOf(zoo.inputsOf(zoo.encode(caption, options), Float32Array.from(noise), 2))
              .then(images => done(Array.from(images.data)));
            """,
            caption,
            noise.flatten().tolist(),
        )
        assert elsewhere(asked(driver)) == []
        assert not [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    wanted = model.generate([caption] * 2, noise=noise)
    torch.testing.assert_close(torch.tensor(drawn).view_as(wanted), wanted, rtol=0, atol=0.01)  # half precision
