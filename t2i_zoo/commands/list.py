"""``t2i-zoo list``: what comes with the package."""

from __future__ import annotations

from t2i_zoo.data import SOURCES
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import packaged_configs
from t2i_zoo.paths import shipped_generators


def list_() -> None:
    """Print models, packaged configs, data sources and the generators that come with the package."""
    _print("models", {name: entry.about for name, entry in MODELS.items()})
    configs = {name: path.read_text("utf-8").splitlines()[0].lstrip("# ") for name, path in packaged_configs().items()}
    _print("\nconfigs (t2i-zoo fit --config NAME)", configs)
    _print("\ndata sources (--data.source NAME)", {name: about for name, (_, about) in SOURCES.items()})
    cards = {name: path.with_suffix(".md").read_text("utf-8") for name, path in shipped_generators().items()}
    if cards:  # a card begins with "# name: what it is"
        about = {name: text.splitlines()[0].lstrip("# ").removeprefix(f"{name}: ") for name, text in cards.items()}
        _print("\ntrained generators (t2i-zoo sample --model NAME --text ...)", about)


def _print(title: str, rows: dict[str, str]) -> None:
    width = max(map(len, rows), default=0)
    print(title)
    for name, about in rows.items():
        print(f"  {name:<{width}}  {about}")
