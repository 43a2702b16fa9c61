"""Sphinx: MyST pages, Furo, and an API page from the docstrings. Builds without network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from t2i_zoo.version import __version__

project = "t2i-zoo"
author = "the authors of t2i-zoo"
project_copyright = author
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build", "api", "leaderboard"]
nb_execution_mode = "off"  # the notebooks are stored with their outputs, see notebooks/execute.py
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["narrow.css"]
pygments_dark_style = "monokai"
html_title = f"t2i-zoo {__version__}"


def setup(app: Any) -> None:
    """With ``-t demo``, add the page that draws in the reader's browser; it needs npm."""
    if app.tags.has("demo"):
        app.connect("build-finished", _write_demo)


def _write_demo(app: Any, failed: Exception | None) -> None:
    from t2i_zoo import load_model
    from t2i_zoo.commands.pages import write_page

    if failed is None:
        write_page(load_model("flowers64"), Path(app.outdir) / "demo", "flowers64", os.environ.get("ONNXRUNTIME_WEB"))
