"""What passes between data, models and losses: what a model needs of a batch, the batch, and the generated images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypedDict

import torch
from torch import Tensor

from t2i_zoo.text.features import TextEncoder, TextFeatures


@dataclass(frozen=True)
class BatchNeeds:
    """What a model reads of a batch; the model states it, and the data module delivers that and nothing more.

    Attributes:
        sizes: sides of the images in pixels, smallest first; empty leaves them to the data module.
        images: whether it looks at images at all.
        wrong_images: whether its mismatched pairs need images and not only captions.
        words: whether it reads word features beside the sentence embedding.
        wrong_text: whether it reads mismatched captions.
        wrong_words: whether it reads their words too; only with both of the above.
        neighbours: whether it reads the captions before and after each caption of an image.
        references: whether it compares with all captions of an image.
        least: images that a training batch must have; 2 for batch norm over vectors, and for losses between images.
    """

    sizes: tuple[int, ...] = ()
    images: bool = True
    wrong_images: bool = False
    words: bool = False
    wrong_text: bool = True
    wrong_words: bool = True
    neighbours: bool = False
    references: bool = False
    least: int = 1


class ReadsBatches(Protocol):
    """A model that a data module serves: every ``ZooModule``, and any object with these attributes."""

    @property
    def needs(self) -> BatchNeeds:
        """What it reads of a batch."""

    @property
    def text_encoder(self) -> TextEncoder | None:
        """The frozen encoder whose features the data module caches, if any."""

    @property
    def device(self) -> torch.device:
        """Where its batches go."""


class CaptionedData:
    """What a model may ask of its data module; a data module of your own inherits this to be asked.

    Attributes:
        source: where images and captions come from.
        image_size: side of the largest images in a batch, in pixels.
        batch_size: images in a batch, of each process.
    """

    source: Any
    image_size: int
    batch_size: int

    @property
    def sizes(self) -> list[int]:
        """Sides of the images in a batch, smallest first."""
        return [self.image_size]

    @property
    def num_classes(self) -> int:
        """One more than the largest class; 0 for a source without classes."""
        return 0

    def classes_of(self, split: str) -> frozenset[int] | None:
        """The classes of one split; None where they are not known ahead."""
        return None

    def captions_of(self, split: str) -> list[str]:
        """All captions of one split."""
        raise NotImplementedError

    def vocabulary(self) -> frozenset[str]:
        """Every word of the training captions."""
        raise NotImplementedError

    def example_captions(self, count: int) -> list[str]:
        """Captions of ``count`` held-out images, of different classes as far as possible; always the same."""
        raise NotImplementedError


class Batch(TypedDict, total=False):
    """One batch on the device; B images.

    Keys:
        images: pyramid of (B, 3, S, S) in [-1, 1], smallest S first; models of one resolution use the last.
        captions: B strings, one caption of each image.
        text: cached features of the captions; absent where the encoder has to run.
        wrong_captions, wrong_text: of other classes or images; only with ``BatchNeeds.wrong_text`` (``.wrong_words``).
        wrong_images: pyramid of images of other classes; only with ``BatchNeeds.wrong_images``.
        neighbours: the captions before and after each among its image's; only with ``BatchNeeds.neighbours``.
        references: all captions of each image; only with ``BatchNeeds.references``.
        labels: (B,) int64 class, -1 where there is none.
        wrong_labels: (B,) int64 class of the mismatched images and captions.
        index: (B,) int64 position of each image in its split.
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
        text: the features that the images were drawn from, B' rows.
        extras: what else the paper's losses need (mean and log-variance of conditioning augmentation, ...).
        noise: what the images were drawn from, B' rows.
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
        """The same images without their graph, for the discriminator."""
        extras = {name: tensor.detach() for name, tensor in self.extras.items()}
        return self._replace(images=[image.detach() for image in self.images], extras=extras)
