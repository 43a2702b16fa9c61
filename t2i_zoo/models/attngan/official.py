"""The weight files of taoxugit/AttnGAN: ``bird_AttnGAN2.pth`` and its discriminators, the DCGAN variant's too."""

from __future__ import annotations

from t2i_zoo.models.official_pyramid import attentive

OFFICIAL = {"attngan": attentive("attngan", {"att.conv_context.": "attention.project."}, redescribing=False)}
