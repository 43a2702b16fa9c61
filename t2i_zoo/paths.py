"""Where things are on the user's machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder for stores, encoded captions and built-in data: ``$T2I_ZOO_CACHE``, or the system's place for caches."""
    if chosen := os.environ.get("T2I_ZOO_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("t2i-zoo", appauthor=False)


def experiments_folder() -> Path:
    """Folder of the packaged configs, in an installed package and in a checkout."""
    packaged = Path(__file__).parent / "experiments"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "experiments"
