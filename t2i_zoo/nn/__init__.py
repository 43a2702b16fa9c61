"""Blocks that two papers share and mean the same by; torch only."""

from t2i_zoo.nn.checkpointing import checkpointed
from t2i_zoo.nn.conditioning import CAActivation, ConditioningAugmentation
from t2i_zoo.nn.glu import FirstStage, GLUResidual, conv3x3, glu_block, glu_up, orthogonal_init, tile, to_image
from t2i_zoo.nn.init import dcgan_init
from t2i_zoo.nn.joint import JointDiscriminator, JointHeads, Logits, picture_trunk
from t2i_zoo.nn.losses import bce, class_loss, discriminator_loss, kl_to_normal, mismatched
from t2i_zoo.nn.words import WordAttention, WordGenerator

__all__ = [
    "CAActivation",
    "ConditioningAugmentation",
    "FirstStage",
    "GLUResidual",
    "JointDiscriminator",
    "JointHeads",
    "Logits",
    "WordAttention",
    "WordGenerator",
    "bce",
    "checkpointed",
    "class_loss",
    "conv3x3",
    "dcgan_init",
    "discriminator_loss",
    "glu_block",
    "glu_up",
    "kl_to_normal",
    "mismatched",
    "orthogonal_init",
    "picture_trunk",
    "tile",
    "to_image",
]
