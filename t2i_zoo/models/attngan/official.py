"""The weight files of taoxugit/AttnGAN: ``bird_AttnGAN2.pth`` and its discriminators, the DCGAN variant's too."""

from __future__ import annotations

from functools import partial

from t2i_zoo.models import official_words as words
from t2i_zoo.models.official import Official

STAGE = {"att.conv_context.": "attention.project."}

OFFICIAL = {
    "attngan": Official(
        "attngan",
        partial(words.identify, redescribing=False),
        words.options,
        partial(words.prefixes, stage=STAGE),
        words.files,
        loose=words.LOOSE,
    )
}
