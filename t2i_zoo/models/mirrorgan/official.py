"""The weight files of qiaott/MirrorGAN: ``netG_epoch_N.pth`` and ``netD0.pth`` to ``netD2.pth``."""

from __future__ import annotations

from t2i_zoo.models.official_pyramid import attentive

STAGE = {
    "att.conv_context.": "local.project.",
    "att.conv_sentence_vis.": "whole.look.",
    "att.linear.": "whole.project.",
    "conv.": "fuse.",
}

OFFICIAL = {"mirrorgan": attentive("mirrorgan", STAGE, redescribing=True)}
