"""The notebooks run from first to last cell, offline, and are stored with small outputs that name no machine."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
pytest.importorskip("nbclient", reason="needs the extra docs")
pytest.importorskip("ipykernel", reason="needs the extra docs")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))
sys.path.insert(0, str(FOLDER))

from execute import execute  # noqa: E402


def name_of(path: Path) -> str:
    return path.stem


def code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", BOOKS, ids=name_of)
def test_runs(path: Path, tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    stored, fresh = code(nbformat.read(path, as_version=4)), code(execute(path, tmp_path))
    for old, new in zip(stored, fresh, strict=True):
        kinds = [[sorted(output.get("data", ["text"])) for output in cell.outputs] for cell in (old, new)]
        assert kinds[0] == kinds[1], f"stored with other outputs: python docs/notebooks/execute.py {path.stem}"


@pytest.mark.parametrize("path", BOOKS, ids=name_of)
def test_is_small_and_short(path: Path) -> None:
    assert path.stat().st_size < 300_000
    cells = code(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/jpeg" in output.get("data", {}) for cell in cells for output in cell.outputs)
    result = next(cell.source for cell in cells if "from t2i_zoo import" in cell.source)
    assert len([line for line in result.splitlines() if line.strip()]) <= 15
    shown = "".join(str(output.get("text", output.get("data", {}))) for cell in cells for output in cell.outputs)
    text = re.sub(r"'image/jpeg': '[^']*'", "", shown)
    assert not re.search(r"site-packages|\b20\d\d-\d\d-\d\d|(?<![\w.])/(?:tmp|home|root|work|Users)\b", text)
