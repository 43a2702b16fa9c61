"""Blocks and losses that several papers share with the same meaning; torch only."""

from t2i_zoo.nn.adversarial import ADVERSARIAL, PAPER, AdversarialLoss, AdversarialName, mean
from t2i_zoo.nn.augment import Augmentation, augment
from t2i_zoo.nn.checkpointing import checkpointed
from t2i_zoo.nn.conditioning import CAActivation, ConditioningAugmentation, split_noise
from t2i_zoo.nn.discriminator import ConditionalDiscriminator, Logits
from t2i_zoo.nn.glu import FirstStage, PyramidGenerator, conv3x3, glu_block, glu_residuals, glu_up, tile, to_image
from t2i_zoo.nn.init import dcgan_init, norm_init, orthogonal_init
from t2i_zoo.nn.joint import JointDiscriminator, JointHeads, Norm, activated, encoder, image_trunk, same_block
from t2i_zoo.nn.layout import laid_out_as
from t2i_zoo.nn.losses import (
    class_loss,
    discriminator_loss,
    discriminator_terms,
    generator_loss,
    kl_to_normal,
    of_other_classes,
    over_sizes,
    weighted,
)
from t2i_zoo.nn.penalties import (
    LeCam,
    adaptive_probability,
    feature_matching,
    matching_aware_penalty,
    overfitting,
    squared_gradients,
)
from t2i_zoo.nn.projected import ProjectedDiscriminator
from t2i_zoo.nn.words import WordAttention, attend

__all__ = [
    "ADVERSARIAL",
    "AdversarialLoss",
    "AdversarialName",
    "Augmentation",
    "CAActivation",
    "ConditionalDiscriminator",
    "ConditioningAugmentation",
    "FirstStage",
    "JointDiscriminator",
    "JointHeads",
    "LeCam",
    "Logits",
    "Norm",
    "PAPER",
    "ProjectedDiscriminator",
    "PyramidGenerator",
    "WordAttention",
    "activated",
    "adaptive_probability",
    "attend",
    "augment",
    "checkpointed",
    "class_loss",
    "conv3x3",
    "dcgan_init",
    "discriminator_loss",
    "discriminator_terms",
    "encoder",
    "feature_matching",
    "generator_loss",
    "glu_block",
    "glu_residuals",
    "glu_up",
    "image_trunk",
    "kl_to_normal",
    "laid_out_as",
    "matching_aware_penalty",
    "mean",
    "norm_init",
    "of_other_classes",
    "orthogonal_init",
    "over_sizes",
    "overfitting",
    "same_block",
    "split_noise",
    "squared_gradients",
    "tile",
    "to_image",
    "weighted",
]
