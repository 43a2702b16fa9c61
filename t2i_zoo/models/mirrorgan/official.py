"""The weight files of qiaott/MirrorGAN: ``netG_epoch_N.pth`` and ``netD0.pth`` to ``netD2.pth``."""

from __future__ import annotations

from functools import partial
from typing import Any

from t2i_zoo.models import official_words as words
from t2i_zoo.models.official import Official

STAGE = {
    "att.conv_context.": "local.project.",
    "att.conv_sentence_vis.": "whole.look.",
    "att.linear.": "whole.project.",
    "conv.": "fuse.",
}


def options(networks: Any) -> dict[str, Any]:
    """As of AttnGAN; a converted model is no run, so no STREAM is looked for."""
    return {**words.options(networks), "stream_weight": 0.0}


OFFICIAL = {
    "mirrorgan": Official(
        "mirrorgan",
        partial(words.identify, redescribing=True),
        options,
        partial(words.prefixes, stage=STAGE),
        words.files,
        loose=(*words.LOOSE, "stream_weight"),
    )
}
