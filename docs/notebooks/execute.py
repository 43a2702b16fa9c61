"""Execute the notebooks beside this file and store them with their outputs: ``python docs/notebooks/execute.py``.

The pages show the stored outputs, so that building them executes nothing.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a folder, and return it with outputs that say nothing about the machine or the time."""
    book = nbformat.read(path, as_version=4)
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    book.metadata = {key: book.metadata[key] for key in ("kernelspec",) if key in book.metadata}
    for number, cell in enumerate(book.cells, 1):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = _joined([each for each in cell.outputs if each.get("name") != "stderr"])
            for output in cell.outputs:
                if "text" in output:
                    output.text = output.text.replace(f"{folder}/", "").replace(f"{FOLDER.parents[1]}/", "")
                if png := output.get("data", {}).pop("image/png", None):
                    output["data"]["image/jpeg"] = _smaller(png)
    return book


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What was printed in one piece, however the kernel cut it."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and "text" in output and "text" in found[-1]:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _smaller(png: str) -> str:
    """A PNG image as JPEG, both in base64."""
    image, file = Image.open(io.BytesIO(base64.b64decode(png))), io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    for source in sorted(FOLDER.glob("*.ipynb")):
        if source.stem in (sys.argv[1:] or [source.stem]):
            with tempfile.TemporaryDirectory() as place:
                nbformat.write(execute(source, Path(place)), source)
            print(f"{source.name}: {source.stat().st_size / 1024:.0f} kB")
