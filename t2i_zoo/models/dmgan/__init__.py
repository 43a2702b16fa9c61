"""DM-GAN (Zhu et al. 2019, arXiv 1904.01310)."""

from t2i_zoo.models.dmgan.module import DMGAN

__all__ = ["DMGAN"]
