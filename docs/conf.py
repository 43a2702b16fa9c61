"""Sphinx: MyST pages, Furo, and an API page from the docstrings. Builds without network."""

from __future__ import annotations

import sys
from pathlib import Path

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
