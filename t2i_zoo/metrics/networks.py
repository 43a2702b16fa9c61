"""What looks at pictures, and for some metrics also reads captions, behind one small face."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.vision import VisionNetwork, build_vision

INCEPTION = "inception_v3_tf"
_KINDS = "inception_v3_tf, torchvision:NAME, file:PATH, transformers:NAME, checkpoint:PATH or classifier:PATH"


@runtime_checkable
class DualEncoder(Protocol):
    """What R-precision and the CLIP score need: DAMSM, CLIP, or an encoder of one's own."""

    def image_codes(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] to codes (B, D)."""

    def sentence_codes(self, captions: Sequence[str]) -> Tensor:
        """B captions to codes (B, D), comparable with those of pictures by their cosine."""


@runtime_checkable
class Captioner(Protocol):
    """What redescription needs: STREAM, or a caption writer of one's own."""

    #: in eval mode; pictures (B, 3, S, S) in [-1, 1] to codes (B, E), which captions are written from
    reader: Callable[[Tensor], Tensor]

    def describe(self, images: Tensor) -> list[str]:
        """The most likely caption, word by word, of each picture (B, 3, S, S) in [-1, 1]."""


class Network:
    """A picture network, a dual encoder or a caption writer.

    Args:
        label: what tables call it, without a path.
        fingerprint: of its weights and of how pictures reach it.
        vision: a picture network, or
        dual: a dual encoder, or
        captioner: a caption writer.
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
        """Classes that it scores; 0 for none."""
        return self.vision.num_logits if self.vision is not None else 0

    @property
    def feature_dim(self) -> int | None:
        """Width of the features, where it is known without looking."""
        return self.vision.feature_dim if self.vision is not None else None

    def to(self, device: torch.device | str) -> Network:
        """Move it, and return it."""
        module: Any = self.vision or self.dual or self.captioner
        if hasattr(module, "to"):
            module.to(device)
        return self

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features (B, D) and logits (B, K) or None, float32, of pictures (B, 3, S, S) in [-1, 1]."""
        if self.dual is not None:
            return self.dual.image_codes(images).float(), None
        if self.captioner is not None:
            return self.captioner.reader(images).float(), None
        assert self.vision is not None
        seen = self.vision(images)
        return seen.features.float(), None if seen.logits is None else seen.logits.float()

    @torch.no_grad()
    def read(self, captions: Sequence[str], batch_size: int = 256) -> Tensor:
        """Codes (B, D) of captions, float32."""
        assert self.dual is not None
        parts = [captions[i : i + batch_size] for i in range(0, len(captions), batch_size)]
        return torch.cat([self.dual.sentence_codes(list(part)).float() for part in parts])


def build_network(
    name: str, antialias: bool = True, load_checkpoint: Callable[[str], Any] | None = None, weights: str | None = None
) -> Network:
    """Build the network that a protocol names.

    Args:
        name: ``inception_v3_tf``, ``torchvision:NAME``, ``file:PATH``, ``transformers:NAME`` of a dual encoder such as
            CLIP, ``checkpoint:PATH`` of a model of the zoo that is one, such as DAMSM, or that writes captions, such as
            STREAM, or ``classifier:PATH`` of a classifier of the data's own classes that was trained here.
        antialias: whether resizing to fewer pixels averages; ``inception_v3_tf``, dual encoders and classifiers have
            their own way.
        load_checkpoint: how a checkpoint is opened.
        weights: of ``inception_v3_tf`` or torchvision's, as ``build_vision`` takes them.

    Raises:
        T2IError: for an unknown name, and what cannot be had or read.
    """
    kind, _, rest = name.partition(":")
    if kind == "transformers" and rest:
        from t2i_zoo.metrics.transformers_dual import TransformersDual

        dual = TransformersDual(rest)
        return Network(rest.rstrip("/").rpartition("/")[2], dual.fingerprint, dual=dual)
    if kind == "checkpoint" and rest and load_checkpoint is not None:
        model = load_checkpoint(rest)
        label = type(model).__name__
        if isinstance(model, DualEncoder):
            return Network(label, weights_hash(model), dual=model)
        if isinstance(model, Captioner):
            return Network(label, weights_hash(model), captioner=model)
        raise T2IError(
            f"found a {label} in {rest}, expected a model with codes of pictures and captions, such as DAMSM, or one "
            "that writes captions, such as STREAM: give its checkpoint to --network checkpoint:PATH"
        )
    if kind == "classifier" and rest and load_checkpoint is not None:
        model = load_checkpoint(rest)
        vision = getattr(model, "network", None)
        if not isinstance(vision, VisionNetwork):
            raise T2IError(
                f"found a {type(model).__name__} in {rest}, expected a Classifier: give the run of classifier_flowers "
                "or the like to --network classifier:PATH"
            )
        return Network(model.label, vision.fingerprint, vision=vision.requires_grad_(False))
    if kind not in ("torchvision", "file") and name != INCEPTION:
        raise T2IError(f"found the network {name!r}, expected {_KINDS}: correct --network")
    network = build_vision(name, weights=weights, antialias=antialias).requires_grad_(False)
    label = rest or INCEPTION
    if kind == "file":  # a file of one's own is called FID by no name
        label = Path(rest).stem if Path(rest).stem != INCEPTION else name.rpartition("/")[2]
    return Network(label, network.fingerprint, vision=network)


def weights_hash(module: Any) -> str:
    """Hash of a module's weights."""
    found = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        found.update(key.encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
