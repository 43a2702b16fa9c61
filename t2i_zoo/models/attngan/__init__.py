"""AttnGAN (Xu et al. 2018, arXiv 1711.10485)."""

from t2i_zoo.models.attngan.module import AttnGAN

__all__ = ["AttnGAN"]
