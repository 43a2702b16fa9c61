"""Blocks that two papers share and mean the same by; torch only."""

from t2i_zoo.nn.init import dcgan_init

__all__ = ["dcgan_init"]
