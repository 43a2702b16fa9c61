"""Blocks that two papers share and mean the same by; torch only."""

from t2i_zoo.nn.conditioning import CAActivation, ConditioningAugmentation
from t2i_zoo.nn.init import dcgan_init
from t2i_zoo.nn.losses import bce, kl_to_normal

__all__ = ["CAActivation", "ConditioningAugmentation", "bce", "dcgan_init", "kl_to_normal"]
