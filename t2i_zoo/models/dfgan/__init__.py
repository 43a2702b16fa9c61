"""DF-GAN (Tao et al. 2022)."""

from t2i_zoo.models.dfgan.module import DFGAN

__all__ = ["DFGAN"]
