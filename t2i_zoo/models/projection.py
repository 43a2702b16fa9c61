"""Projected discriminators instead of a paper's: trained heads on a frozen network, which is a companion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.nn import ConditionalDiscriminator, ProjectedDiscriminator
from t2i_zoo.vision import VisionNetwork, build_vision

_OF_HEADS = ("channels", "width", "text_scale", "separable", "batch_std")


@dataclass(frozen=True)
class Projection:
    """The option ``projected``.

    Args:
        network: name of an image network with feature maps at four strides: ``efficientnet_lite0``, or a convolutional
            ``torchvision:NAME``.
        weights: weights of the network; see ``t2i_zoo.vision.build_vision``.
        input_size: side in pixels that images are resized to for it, 224 in the paper; by default they keep their own
            size, which is a tenth of the work at 64 px.
        channels: channels of the randomly mixed features.
        width: largest number of channels of a head; the paper has 512, and 64 suits a CPU.
        text_scale: factor of the matched logits; below 1 it weakens the text against the unconditional logits.
        separable: cheaper convolutions in the heads.
        batch_std: let the heads see how far the images of a batch differ, which reveals samples with one layout.
    """

    network: str
    weights: str | None = None
    input_size: int | None = None
    channels: int = 64
    width: int = 512
    text_scale: float = 1.0
    separable: bool = False
    batch_std: bool = False

    @classmethod
    def of(cls, option: str | dict[str, Any]) -> Projection:
        """Read the option.

        Raises:
            T2IError: for a mapping without ``network``, with another key than the arguments above, or with a value that
                no network can have.
        """
        values = {"network": option} if isinstance(option, str) else option
        known = [field.name for field in fields(cls)]
        if odd := [name for name in values if name not in known]:
            raise T2IError(f"found {odd[0]} in --model.projected, expected one of {', '.join(known)}")
        if "network" not in values:
            raise T2IError("found --model.projected without a network: add one, such as network: efficientnet_lite0")
        if not str(values["network"]).startswith(("torchvision:", "efficientnet_lite0")):
            raise T2IError(
                f"found --model.projected {values['network']}, expected efficientnet_lite0 or a convolutional network "
                "such as torchvision:mobilenet_v2"
            )
        for name in ("input_size", "channels", "width"):
            if (value := values.get(name)) is not None and (type(value) is not int or value < 1):
                raise T2IError(f"found {name}: {value} in --model.projected, expected an integer such as 64")
        if not isinstance(scale := values.get("text_scale", 1.0), (int, float)):
            raise T2IError(f"found text_scale: {scale} in --model.projected, expected a number such as 0.5")
        return cls(**values)

    def build(self, weights: str | None) -> VisionNetwork:
        """The network; random weights are always the same, so that a resumed run has them again."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # not CUDA's, which is not forked
            return build_vision(self.network, weights=weights, input_size=self.input_size or 0, logits=False)


class Projected(ProjectedDiscriminator):
    """A ``ProjectedDiscriminator`` of images, once ``look`` is set to its frozen network."""

    look: Callable[[Tensor], list[Tensor]] | None = None

    def features(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Features of each head, of images (B, 3, S, S) in [-1, 1]."""
        assert self.look is not None, "the frozen network is loaded in setup"
        return super().features(self.look(images))


def projected(option: Projection, papers: nn.Module, sizes: Sequence[int]) -> nn.Module:
    """A projected discriminator for each of a paper's, with its condition and classes.

    Args:
        option: the option ``projected``.
        papers: a ``ConditionalDiscriminator``, or an ``nn.ModuleList`` of one per size.
        sizes: of the images, in pixels.

    Raises:
        T2IError: for any other discriminator, whose condition and classes are unknown.
    """
    found: list[Projected] = []
    every: list[nn.Module] = [*papers] if isinstance(papers, nn.ModuleList) else [papers]
    with torch.no_grad():
        network = option.build("random")  # for the shapes of its maps; setup loads the weights
        try:
            shapes = [[tap.shape[-1] for tap in network.taps(torch.zeros(1, 3, size, size))] for size in sizes]
        except (AssertionError, RuntimeError) as error:
            raise T2IError(
                f"found --model.projected {option.network}, which cannot look at images of {sizes[0]} px "
                f"({str(error).splitlines()[0]}): give it an input_size such as 224, or name efficientnet_lite0"
            ) from error
    for paper, sides in zip(every, shapes, strict=True):
        if not isinstance(paper, ConditionalDiscriminator):
            raise T2IError(
                f"found --model.projected with a {type(paper).__name__}, expected a discriminator derived from "
                "t2i_zoo.nn's ConditionalDiscriminator: derive it, or leave the option out"
            )
        options = {name: getattr(option, name) for name in _OF_HEADS}
        found.append(Projected(network.tap_channels, sides, paper.condition_dim, paper.num_classes, **options))
    return nn.ModuleList(found) if isinstance(papers, nn.ModuleList) else found[0]
