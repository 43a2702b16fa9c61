"""Blocks that two papers share and mean the same by; torch only."""

from t2i_zoo.nn.augment import Augmentation, augment
from t2i_zoo.nn.checkpointing import checkpointed
from t2i_zoo.nn.conditioning import CAActivation, ConditioningAugmentation
from t2i_zoo.nn.glu import FirstStage, GLUResidual, conv3x3, glu_block, glu_up, orthogonal_init, tile, to_image
from t2i_zoo.nn.init import dcgan_init
from t2i_zoo.nn.joint import JointDiscriminator, JointHeads, Logits, picture_trunk
from t2i_zoo.nn.losses import bce, class_loss, discriminator_loss, kl_to_normal, mismatched
from t2i_zoo.nn.penalties import (
    LeCam,
    MatchingAwarePenalty,
    adaptive_probability,
    feature_matching,
    gradient_penalty,
    matching_aware_penalty,
    overfitting,
    squared_gradients,
    top_k,
    top_k_count,
)
from t2i_zoo.nn.words import WordAttention, WordGenerator

__all__ = [
    "Augmentation",
    "CAActivation",
    "ConditioningAugmentation",
    "FirstStage",
    "GLUResidual",
    "JointDiscriminator",
    "JointHeads",
    "LeCam",
    "Logits",
    "MatchingAwarePenalty",
    "WordAttention",
    "WordGenerator",
    "adaptive_probability",
    "augment",
    "bce",
    "checkpointed",
    "class_loss",
    "conv3x3",
    "dcgan_init",
    "discriminator_loss",
    "feature_matching",
    "glu_block",
    "glu_up",
    "gradient_penalty",
    "kl_to_normal",
    "matching_aware_penalty",
    "mismatched",
    "orthogonal_init",
    "overfitting",
    "picture_trunk",
    "squared_gradients",
    "tile",
    "to_image",
    "top_k",
    "top_k_count",
]
