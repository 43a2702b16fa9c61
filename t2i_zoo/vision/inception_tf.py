"""The network of the Fréchet Inception distance: Inception-v3 as TensorFlow published it in 2015, ported exactly.

Through torch-fidelity, an optional dependency (``pip install "t2i-zoo[metrics]"``). torchvision's Inception-v3 is
another network with other features.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.vision.network import Seen, VisionNetwork

NAME = "inception_v3_tf"
_ADDRESS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
_HASH = "6726825d"  # the beginning of the file's sha256, as its name has it


class InceptionV3TF(VisionNetwork):
    """2,048 features after the last pooling, and the 1,008 scores without bias that the Inception Score reads.

    Pictures are rounded to 8 bits and resized to 299 px as TensorFlow 1 does, without averaging; so no gradient
    reaches them.

    Args:
        net: torch-fidelity's extractor of the features ``2048`` and ``logits_unbiased``.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(NAME, 0, False, False)
        self.net = net
        self.feature_dim, self.region_dim, self.num_logits = 2048, 0, 1008
        self.eval()

    def look(self, images: Tensor) -> Seen:
        """Features and scores of pictures (B, 3, S, S) in [-1, 1] of any size."""
        pixels = images.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte()
        with torch.autocast(pixels.device.type, enabled=False):
            features, logits = self.net(pixels)
        return Seen(features, None, logits)


def load(weights: str | None) -> VisionNetwork:
    """Build the network.

    Args:
        weights: path of the file ``weights-inception-2015-12-05-6726825d.pth``; None takes it from torch's cache
            (``$TORCH_HOME/hub/checkpoints``), where it is fetched to once. Either way its hash is checked.

    Raises:
        T2IError: where torch-fidelity or the file is missing, or the file is another one.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-untyped]
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise T2IError(
            f"found no torch-fidelity, which {NAME} comes from: pip install torch-fidelity, or choose another --network"
        ) from error
    path = Path(weights).expanduser() if weights else _fetch()
    if not path.is_file():
        raise T2IError(f"found no weights file {path}: give the path of {_ADDRESS.rpartition('/')[2]}")
    if _sha256(path)[: len(_HASH)] != _HASH:
        raise T2IError(f"{path} is not the file {_ADDRESS} (its sha256 differs): fetch it again")
    return InceptionV3TF(FeatureExtractorInceptionV3(NAME, ["2048", "logits_unbiased"], str(path)))


def _fetch() -> Path:
    """The file in torch's cache, downloaded beside it and renamed where it is missing."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / _ADDRESS.rpartition("/")[2]
    if not path.is_file():
        beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_ADDRESS, str(beside), _HASH, progress=False)
            beside.replace(path)
        except (URLError, OSError, RuntimeError) as error:
            raise T2IError(
                f"cannot fetch the weights of {NAME} ({error}): put the file {_ADDRESS} at {path}, or choose another "
                "--network"
            ) from error
        finally:
            beside.unlink(missing_ok=True)
    return path


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
