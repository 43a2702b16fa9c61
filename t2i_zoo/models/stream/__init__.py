"""STREAM, MirrorGAN's caption writer (Qiao et al. 2019, arXiv 1903.05854)."""

from t2i_zoo.models.stream.module import STREAM

__all__ = ["STREAM"]
