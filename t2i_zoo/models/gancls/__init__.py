"""GAN-CLS and GAN-INT (Reed et al. 2016)."""

from t2i_zoo.models.gancls.module import GANCLS

__all__ = ["GANCLS"]
