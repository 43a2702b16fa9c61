"""``t2i-zoo list``: what comes with the package."""

from __future__ import annotations

from t2i_zoo.data import SOURCES
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import packaged_configs
from t2i_zoo.paths import shipped_generators


def list_() -> None:
    """Print models, packaged configs, data sources and the generators that come with the package."""
    print("models")
    for name, entry in MODELS.items():
        print(f"  {name:<20} {entry.about}")
    print("\nconfigs (t2i-zoo fit --config NAME)")
    for name, path in packaged_configs().items():
        print(f"  {name:<20} {path.read_text('utf-8').splitlines()[0].lstrip('# ')}")
    print("\ndata sources (--data.source NAME)")
    for name, (_, about) in SOURCES.items():
        print(f"  {name:<20} {about}")
    if shipped := shipped_generators():
        print("\ntrained generators (t2i-zoo sample --model NAME --text ...)")
        for name, path in shipped.items():  # a card begins with "# name: what it is"
            first = path.with_suffix(".md").read_text("utf-8").splitlines()[0]
            print(f"  {name:<20} {first.lstrip('# ').removeprefix(f'{name}: ')}")
