"""A generator as a folder that any browser draws with: ONNX, a page, and ONNX Runtime for the web; no Python."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.graphs import about, write_graph
from t2i_zoo.paths import cache_folder
from t2i_zoo.text.hashing import HashingEncoder

RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
OWN_FILES = ("index.html", "page.mjs", "encoder.mjs")
FILES = ("generator.onnx", "about.json", *OWN_FILES, *RUNTIME_FILES)  #: all that a page consists of
_SMALL = 64  # tensors of fewer numbers stay in single precision


def write_page(model: Drawing, folder: Path, title: str, runtime: str | None = None) -> None:
    """Write the page of a generator.

    Args:
        model: in eval mode, with the hashing text encoder, which the page has too.
        folder: is made; existing files of these names are replaced.
        title: of the page.
        runtime: folder with ``RUNTIME_FILES``; by default they are taken from npm once, and kept in the cache.

    Raises:
        T2IError: for another text encoder, or without the runtime.
    """
    encoder = model.text_encoder
    if not isinstance(encoder, HashingEncoder):
        raise T2IError(
            f"found a {type(encoder).__name__}, expected the hashing text encoder, the only one that a browser runs "
            "too: train with --model.text_encoder hashing, or export --to onnx"
        )
    files = _runtime(runtime)
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(model, "onnx", folder / "generator.onnx")
    _halve(folder / "generator.onnx")
    header = about(model) | {
        "title": title,
        "former": encoder.former_words,
        "text_encoder": {"maxWords": encoder.max_words},
    }
    (folder / "about.json").write_text(json.dumps(header, ensure_ascii=False), "utf-8")
    for name in OWN_FILES:
        shutil.copyfile(Path(__file__).parents[1] / "web" / name, folder / name)
    for name in RUNTIME_FILES:
        shutil.copyfile(files / name, folder / name)


def _halve(path: Path) -> None:
    """Store the weights of an ONNX file in half precision; they are cast when it is loaded, so all runtimes take it."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model: Any = onnx.load(path)
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    with replacing(path) as partial:
        onnx.save(model, partial)


def _runtime(given: str | None) -> Path:
    """The folder with ONNX Runtime for the web."""
    folder = Path(given).expanduser() if given else cache_folder() / RUNTIME.replace("@", "-")
    if all((folder / name).is_file() for name in RUNTIME_FILES):
        return folder
    if given:
        raise T2IError(f"found no {RUNTIME_FILES[0]} in {folder}, expected the folder dist of npm's {RUNTIME}")
    npm = shutil.which("npm")
    if npm is None:
        raise T2IError(
            f"found no npm, which brings ONNX Runtime for the web: install it, or give the folder dist of {RUNTIME} "
            "with --runtime"
        )
    with tempfile.TemporaryDirectory() as place:
        found = subprocess.run(
            [npm, "pack", RUNTIME, "--silent", "--pack-destination", place], capture_output=True, text=True
        )
        packed = next(Path(place).glob("*.tgz"), None)
        if found.returncode or packed is None:
            reason = (found.stderr.strip().splitlines() or ["no answer"])[-1]
            raise T2IError(f"npm found no {RUNTIME} ({reason}): give the folder of its files with --runtime")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed) as archive:
            for name in RUNTIME_FILES:
                content = archive.extractfile(f"package/dist/{name}")
                assert content is not None
                with replacing(folder / name) as partial, partial.open("wb") as file:
                    shutil.copyfileobj(content, file)
    return folder
