"""TAC-GAN (Dash et al. 2017)."""

from t2i_zoo.models.tacgan.module import TACGAN

__all__ = ["TACGAN"]
