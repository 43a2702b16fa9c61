"""``t2i-zoo list``: what the zoo holds."""

from __future__ import annotations

from collections.abc import Sequence

from t2i_zoo.data import SOURCES
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import call, packaged_configs


def list_() -> None:
    """Print models, packaged configs and data sources."""
    print("models")
    for name, entry in MODELS.items():
        print(f"  {name:<20} {entry.about}")
    print("\nconfigs (t2i-zoo fit --config NAME)")
    for name, path in packaged_configs().items():
        print(f"  {name:<20} {path.read_text('utf-8').splitlines()[0].lstrip('# ')}")
    print("\ndata sources (--data.source NAME)")
    for name, (_, about) in SOURCES.items():
        print(f"  {name:<20} {about}")


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    call(list_, words)
