"""The batch that the data module hands to every model, and the pictures that a generator hands to its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from torch import Tensor

from t2i_zoo.text.features import TextFeatures


@dataclass(frozen=True)
class BatchNeeds:
    """What a model reads of a batch; the model states it, and the data module delivers that and nothing more.

    Attributes:
        sizes: sides of the images in pixels, smallest first; None leaves them to the data module.
        images: whether it looks at images at all.
        wrong_images: whether its mismatched pairs need images and not only captions.
        words: whether it reads word features beside the sentence embedding.
        neighbours: whether it reads the captions before and after each caption of an image.
        references: whether it compares with all captions of an image.
    """

    sizes: tuple[int, ...] | None = None
    images: bool = True
    wrong_images: bool = False
    words: bool = False
    neighbours: bool = False
    references: bool = False


class Batch(TypedDict, total=False):
    """One batch on the device; B pictures.

    Keys:
        images: pyramid of (B, 3, S, S) in [-1, 1], smallest S first; models of one resolution use the last.
        captions: B strings, one caption of each picture.
        text: cached features of the captions; absent where the encoder has to run.
        wrong_captions, wrong_text: captions of other classes (of other pictures where there are no classes).
        wrong_images: pyramid of pictures of other classes; only for models with ``needs_wrong_images``.
        neighbours: the captions before and after each among its picture's; only for models with ``needs_neighbours``.
        references: all captions of each picture; only for models with ``needs_references``.
        labels: (B,) int64 class, -1 where there is none.
        wrong_labels: (B,) int64 class of the mismatched pictures and captions.
        index: (B,) int64 position of each picture in its split.
    """

    images: list[Tensor]
    captions: list[str]
    text: TextFeatures
    wrong_captions: list[str]
    wrong_text: TextFeatures
    wrong_images: list[Tensor]
    neighbours: list[tuple[str, str]]
    references: list[list[str]]
    labels: Tensor
    wrong_labels: Tensor
    index: Tensor


class Fakes(NamedTuple):
    """What one generator forward yields.

    Attributes:
        images: pyramid of (B', 3, S, S) in [-1, 1], smallest first; B' may exceed B (GAN-INT).
        text: the features that the pictures were drawn from, B' rows.
        extras: what else the paper's losses need (mean and log-variance of conditioning augmentation, ...).
        noise: what the pictures were drawn from, B' rows.
    """

    images: list[Tensor]
    text: TextFeatures
    extras: dict[str, Tensor]
    noise: Tensor

    @property
    def attention(self) -> list[Tensor]:
        """Attention over the words at each further stage, (B, T, H, H), 1 in sum at each place; empty without."""
        stages = range(sum(name.startswith("attention_") for name in self.extras))
        return [self.extras[f"attention_{stage}"] for stage in stages]

    def detach(self) -> Fakes:
        """The same pictures without their graph, for the discriminator."""
        extras = {name: tensor.detach() for name, tensor in self.extras.items()}
        return self._replace(images=[image.detach() for image in self.images], extras=extras)
