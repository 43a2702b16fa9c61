"""Networks that metrics look at images with, some of which also encode or write captions, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import VisionNetwork, build_vision
from t2i_zoo.vision.network import weights_hash

INCEPTION, LITE0 = "inception_v3_tf", "efficientnet_lite0"
DFGAN_INCEPTION = "inception_v3_dfgan"  #: of published distances of DM-GAN and DF-GAN; never called FID
_KINDS = (
    "inception_v3_tf, efficientnet_lite0, torchvision:NAME, file:PATH, transformers:NAME, checkpoint:PATH, "
    "classifier:PATH or inception_v3_dfgan"
)


@runtime_checkable
class DualEncoder(Protocol):
    """What R-precision and the CLIP score need: DAMSM, CLIP, or an encoder of your own."""

    def image_codes(self, images: Tensor) -> Tensor:
        """Codes (B, D) of images (B, 3, S, S) in [-1, 1]."""

    def sentence_codes(self, captions: Sequence[str]) -> Tensor:
        """Codes (B, D) of B captions, to be compared with those of images by their cosine."""


@runtime_checkable
class Captioner(Protocol):
    """What redescription needs, in eval mode: STREAM, or a captioner of your own."""

    #: returns codes (B, E), from which captions are written, of images (B, 3, S, S) in [-1, 1]
    reader: Callable[[Tensor], Tensor]

    def describe(self, images: Tensor) -> list[str]:
        """The most likely caption, word by word, of each image (B, 3, S, S) in [-1, 1]."""


class Network:
    """A vision network, a dual encoder or a captioner.

    Args:
        label: name in tables, without a path.
        fingerprint: hash of its weights and of how images are resized for it.
        vision: the vision network, or
        dual: the dual encoder, or
        captioner: the captioner.
    """

    def __init__(
        self,
        label: str,
        fingerprint: str,
        vision: VisionNetwork | None = None,
        dual: DualEncoder | None = None,
        captioner: Captioner | None = None,
    ) -> None:
        self.label, self.fingerprint, self.vision, self.dual = label, fingerprint, vision, dual
        self.captioner = captioner

    @property
    def num_logits(self) -> int:
        """Number of classes that it scores; 0 for none."""
        return self.vision.num_logits if self.vision is not None else 0

    def to(self, device: torch.device | str) -> Network:
        """Move it to a device, and return it."""
        module: Any = self.vision or self.dual or self.captioner
        if hasattr(module, "to"):
            module.to(device)
        return self

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, D) and logits (B, K) or None, float32, of images (B, 3, S, S) in [-1, 1]."""
        if self.dual is not None:
            return self.dual.image_codes(images).float(), None
        if self.captioner is not None:
            return self.captioner.reader(images).float(), None
        assert self.vision is not None
        # On a CPU four at a time: larger maps are fresh memory in every layer, and clearing its pages took three
        # quarters of the time.
        seen = [self.vision(part) for part in torch.split(images, 4 if images.device.type == "cpu" else len(images))]
        logits = [part.logits for part in seen if part.logits is not None]
        return torch.cat([part.features for part in seen]).float(), torch.cat(logits).float() if logits else None

    @torch.no_grad()
    def read(self, captions: Sequence[str], batch_size: int = 256) -> Tensor:
        """Codes (B, D) of captions, float32."""
        assert self.dual is not None
        parts = [captions[i : i + batch_size] for i in range(0, len(captions), batch_size)]
        return torch.cat([self.dual.sentence_codes(list(part)).float() for part in parts])


def takes_weights(name: str) -> bool:
    """Whether ``weights`` of ``build_network`` change the network ``name``."""
    return name.partition(":")[0] in ("torchvision", INCEPTION, LITE0, DFGAN_INCEPTION)


def build_network(
    name: str,
    antialias: bool = True,
    load_checkpoint: Callable[[str], Any] | None = None,
    weights: str | None = None,
) -> Network:
    """Build a network by name.

    Args:
        name: ``inception_v3_tf``, the network of the FID; ``inception_v3_dfgan``, what the code of DM-GAN and DF-GAN
            uses in its place; ``efficientnet_lite0``; ``torchvision:NAME``; ``file:PATH`` of a network in a file
            (``vision/files.py`` describes the formats); ``transformers:NAME`` of a dual encoder such as CLIP;
            ``checkpoint:PATH`` of a dual encoder of the zoo, such as DAMSM, or of a captioner, such as STREAM; or
            ``classifier:PATH`` of a classifier that was trained here.
        antialias: whether resizing to fewer pixels averages; ``inception_v3_tf``, dual encoders and classifiers resize
            in their own way.
        load_checkpoint: function that loads a checkpoint.
        weights: weights of ``inception_v3_tf`` or of a torchvision network, as for ``build_vision``.

    Raises:
        T2IError: for an unknown name, and for weights that cannot be found or read.
    """
    kind, _, rest = name.partition(":")
    if kind == "transformers" and rest:
        from t2i_zoo.metrics.transformers_dual import TransformersDual

        dual = TransformersDual(rest)
        return Network(rest.rstrip("/").rpartition("/")[2], weights_hash(dual.model), dual=dual)
    if kind in ("checkpoint", "classifier") and rest and load_checkpoint is not None:
        return (_of_model if kind == "checkpoint" else _of_classifier)(load_checkpoint(rest), rest)
    if kind not in ("torchvision", "file") and name not in (INCEPTION, DFGAN_INCEPTION, LITE0):
        raise T2IError(f"found the network {name!r}, expected {_KINDS}: correct --network")
    network = build_vision(name, weights=weights, antialias=antialias).requires_grad_(False)
    label = rest or name
    if kind == "file":  # scores of a file are never called FID, whatever its name
        label = Path(rest).stem if Path(rest).stem != INCEPTION else name.rpartition("/")[2]
    return Network(label, network.fingerprint, vision=network)


def _of_model(model: Any, path: str) -> Network:
    """A dual encoder or captioner of the zoo."""
    label, fingerprint = type(model).__name__, weights_hash(model)
    if isinstance(model, DualEncoder):
        return Network(label, fingerprint, dual=model)
    if isinstance(model, Captioner):
        return Network(label, fingerprint, captioner=model)
    raise T2IError(
        f"found a {label} in {path}, expected a model with codes of images and captions, such as DAMSM, or one that "
        "writes captions, such as STREAM: give its checkpoint to --network checkpoint:PATH"
    )


def _of_classifier(model: Any, path: str) -> Network:
    """A classifier of the zoo."""
    vision = getattr(model, "network", None)
    if not isinstance(vision, VisionNetwork):
        raise T2IError(
            f"found a {type(model).__name__} in {path}, expected a Classifier: give the run of a config such as "
            "classifier_flowers to --network classifier:PATH"
        )
    return Network(model.label, vision.fingerprint, vision=vision.requires_grad_(False))
