"""Blocks that several papers share and mean the same by; torch only."""

from t2i_zoo.nn.adversarial import ADVERSARIAL, PAPER, AdversarialLoss, AdversarialName, mean
from t2i_zoo.nn.augment import Augmentation, augment
from t2i_zoo.nn.checkpointing import checkpointed
from t2i_zoo.nn.conditioning import CAActivation, ConditioningAugmentation
from t2i_zoo.nn.discriminator import ConditionalDiscriminator, Logits
from t2i_zoo.nn.glu import FirstStage, GLUResidual, conv3x3, glu_block, glu_up, orthogonal_init, tile, to_image
from t2i_zoo.nn.init import dcgan_init
from t2i_zoo.nn.joint import JointDiscriminator, JointHeads, picture_trunk
from t2i_zoo.nn.losses import class_loss, discriminator_loss, generator_loss, kl_to_normal, over_sizes
from t2i_zoo.nn.penalties import (
    LeCam,
    adaptive_probability,
    feature_matching,
    matching_aware_penalty,
    overfitting,
    squared_gradients,
)
from t2i_zoo.nn.projected import ProjectedDiscriminator
from t2i_zoo.nn.words import WordAttention, WordGenerator

__all__ = [
    "ADVERSARIAL",
    "AdversarialLoss",
    "AdversarialName",
    "Augmentation",
    "CAActivation",
    "ConditionalDiscriminator",
    "ConditioningAugmentation",
    "FirstStage",
    "GLUResidual",
    "JointDiscriminator",
    "JointHeads",
    "LeCam",
    "Logits",
    "PAPER",
    "ProjectedDiscriminator",
    "WordAttention",
    "WordGenerator",
    "adaptive_probability",
    "augment",
    "checkpointed",
    "class_loss",
    "conv3x3",
    "dcgan_init",
    "discriminator_loss",
    "feature_matching",
    "generator_loss",
    "glu_block",
    "glu_up",
    "kl_to_normal",
    "matching_aware_penalty",
    "mean",
    "orthogonal_init",
    "over_sizes",
    "overfitting",
    "picture_trunk",
    "squared_gradients",
    "tile",
    "to_image",
]
