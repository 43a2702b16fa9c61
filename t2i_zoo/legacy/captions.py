"""Writing the vocabulary and captions of AttnGAN's data, ``captions.pickle``."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from t2i_zoo.legacy.files import AttnGANCaptions


def write_attngan_captions(path: str | Path, captions: AttnGANCaptions) -> Path:
    """Write [train, test, ixtoword, wordtoix] in protocol 2, as ``read_attngan_captions`` and the authors read it.

    Args:
        path: the file, ``captions.pickle`` in AttnGAN; a file that is there is replaced at once or not at all.
        captions: lists may be empty, where the vocabulary alone is known.

    Returns:
        The path.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with beside.open("wb") as file:
            pickle.dump([captions.train, captions.test, captions.ixtoword, captions.wordtoix], file, protocol=2)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return target
