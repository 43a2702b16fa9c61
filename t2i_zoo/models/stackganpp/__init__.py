"""StackGAN++ (Zhang et al. 2017)."""

from t2i_zoo.models.stackganpp.module import StackGANPlusPlus

__all__ = ["StackGANPlusPlus"]
