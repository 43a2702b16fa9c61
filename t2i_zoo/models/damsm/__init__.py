"""DAMSM, the matching model of AttnGAN and the text encoder of MirrorGAN (Xu et al. 2018)."""

from t2i_zoo.models.damsm.module import DAMSM

__all__ = ["DAMSM"]
