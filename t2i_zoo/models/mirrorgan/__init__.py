"""MirrorGAN (Qiao et al. 2019, arXiv 1903.05854)."""

from t2i_zoo.models.mirrorgan.module import MirrorGAN

__all__ = ["MirrorGAN"]
