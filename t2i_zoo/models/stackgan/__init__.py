"""StackGAN (Zhang et al. 2017)."""

from t2i_zoo.models.stackgan.module import StackGAN

__all__ = ["StackGAN"]
