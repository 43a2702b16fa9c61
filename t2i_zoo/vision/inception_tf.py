"""The network of the Fréchet Inception distance: Inception-v3 as TensorFlow published it in 2015, ported exactly.

It comes from torch-fidelity, an optional dependency (``pip install "t2i-zoo[metrics]"``). torchvision's Inception-v3 is
a different network with different features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256
from t2i_zoo.vision.network import Seen, VisionNetwork

NAME = "inception_v3_tf"
_ADDRESS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
_HASH = "6726825d"  # start of the file's SHA-256, as in its name


class InceptionV3TF(VisionNetwork):
    """2,048 features after the last pooling, and the 1,008 scores without bias that the Inception Score reads.

    Images are rounded to 8 bits and resized to 299 px as in TensorFlow 1, without antialiasing; so no gradient reaches
    them.

    Args:
        net: torch-fidelity's extractor for the features ``2048`` and ``logits_unbiased``.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(NAME, 0, False, False)
        self.net = net
        self.feature_dim, self.region_dim, self.num_logits = 2048, 0, 1008
        self.eval()

    def look(self, images: Tensor) -> Seen:
        """Features and scores of images (B, 3, S, S) in [-1, 1] of any size."""
        pixels = images.detach().float().add(1).mul(127.5).round().clamp(0, 255).byte()
        with torch.autocast(pixels.device.type, enabled=False):
            features, logits = self.net(pixels)
        return Seen(features, None, logits)


def load(weights: str | None) -> VisionNetwork:
    """Build the network.

    Args:
        weights: path of the file ``weights-inception-2015-12-05-6726825d.pth``; by default it is downloaded once to
            torch's cache (``$TORCH_HOME/hub/checkpoints``). Either way its hash is checked.

    Raises:
        T2IError: torch-fidelity or the file is missing, or the file is not that one.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-untyped]
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise T2IError(
            f"found no torch-fidelity, which provides {NAME}: pip install torch-fidelity, or choose another --network"
        ) from error
    path = Path(weights).expanduser() if weights else _fetch()
    if not path.is_file():
        raise T2IError(f"found no weights file {path}: give the path of {_ADDRESS.rpartition('/')[2]}")
    if not sha256(path).startswith(_HASH):
        raise T2IError(f"{path} is not the file {_ADDRESS} (its sha256 differs): download it again")
    return InceptionV3TF(FeatureExtractorInceptionV3(NAME, ["2048", "logits_unbiased"], str(path)))


def _fetch() -> Path:
    """The file in torch's cache, which is downloaded, checked and moved there if it is missing."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / _ADDRESS.rpartition("/")[2]
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(_ADDRESS, str(path), _HASH, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise T2IError(
                f"cannot download the weights of {NAME} ({error}): put the file {_ADDRESS} at {path}, or choose "
                "another --network"
            ) from error
    return path
