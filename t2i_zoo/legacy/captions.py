"""Writing the vocabulary and captions of AttnGAN's data, ``captions.pickle``."""

from __future__ import annotations

import pickle
from pathlib import Path

from t2i_zoo.files import replacing
from t2i_zoo.legacy.files import AttnGANCaptions


def write_attngan_captions(path: str | Path, captions: AttnGANCaptions) -> Path:
    """Write [train, test, ixtoword, wordtoix] in protocol 2, as ``read_attngan_captions`` and the authors read it.

    Args:
        path: the file, ``captions.pickle`` in AttnGAN; an existing file is replaced whole or not at all.
        captions: the captions may be empty if only the vocabulary is known.

    Returns:
        The path.
    """
    target = Path(path)
    with replacing(target) as beside, beside.open("wb") as file:
        pickle.dump([captions.train, captions.test, captions.ixtoword, captions.wordtoix], file, protocol=2)
    return target
