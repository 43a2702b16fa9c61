"""Your own image network, from one file that brings its architecture along.

**TorchScript** (``torch.jit.save``): ``forward`` takes images (B, 3, H, W) in [-1, 1] and returns the features (B, D),
or a tuple that starts with them and continues with the logits (B, K) and the regions (B, C, H, W).

**Safetensors with a graph**: the metadata hold ``input``, the name of the value that the images are, and ``graph``, a
JSON list of operations in order, each with its source ``src`` and the name of its result ``dst``:

- ``{"op": "conv", "layer": N, "stride": 1, "groups": 1, "relu6": true, ...}`` with the tensors ``N.weight`` and
  ``N.bias``, padded like TensorFlow's SAME (an odd pixel goes to the right and bottom), clipped to [0, 6] by ``relu6``;
- ``{"op": "add", "src2": ...}``, the sum of two values;
- ``{"op": "pool", ...}``, the mean over the image: its result is the features, its source the regions. The last
  operation gives the logits unless it is the pool.

Three operations cover converted TensorFlow networks such as MobileNetV2, whose padding torchvision's modules lack;
running the list takes less code than rebuilding a network of modules from it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_pointer, sha256
from t2i_zoo.vision.network import Seen, VisionNetwork

_GRAPH_SIZE = 224  # default input size of networks with a graph


class FileNetwork(VisionNetwork):
    """Base of both formats."""

    def __init__(self, path: Path, **resize: Any) -> None:
        super().__init__(f"file:{path.name}", **resize)
        refuse_pointer(path)
        self._content = sha256(path)

    @property
    def fingerprint(self) -> str:
        """Includes the whole file, since a graph or a script is not among the weights."""
        return hashlib.sha256(f"{super().fingerprint} {self._content}".encode()).hexdigest()[:16]


class GraphNetwork(FileNetwork):
    """Runs the graph of a .safetensors file, whose weights may be in half precision."""

    def __init__(self, path: Path, **resize: Any) -> None:
        from safetensors import safe_open

        super().__init__(path, **resize)
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {key.replace(".", "_"): file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        except Exception as error:
            raise T2IError(f"cannot read {path} as safetensors ({error}): download the file again") from error
        try:
            self.graph, self.source = json.loads(about["graph"]), about["input"]
            if not {"pool"} <= {step["op"] for step in self.graph} <= {"conv", "add", "pool"}:
                raise KeyError("op")
        except (KeyError, TypeError, ValueError) as error:
            raise T2IError(
                f"the metadata of {path} hold no graph of conv, add and pool: write one as vision/files.py describes, "
                "or name a torchvision network and pass the file as its weights"
            ) from error
        self.weights = nn.ParameterDict(tensors)

    def look(self, images: Tensor) -> Seen:
        """Run the operations in order."""
        values: dict[str, Tensor] = {self.source: images}
        for step in self.graph:
            x = values[str(step["src"])]
            if step["op"] == "conv":
                x = self._convolve(x, step)
            elif step["op"] == "add":
                x = x + values[str(step["src2"])]
            else:
                regions, x = x, x.mean((2, 3), keepdim=True)
                features = x.flatten(1)
            values[str(step["dst"])] = x
        return Seen(features, regions, x.flatten(1) if self.graph[-1]["op"] != "pool" else None)

    def _convolve(self, x: Tensor, step: dict[str, Any]) -> Tensor:
        weight, bias = self.weights[f"{step['layer']}_weight"], self.weights[f"{step['layer']}_bias"]
        stride, side = step.get("stride", 1), weight.shape[-1]
        height, width = (max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[2:])
        if height or width:
            x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        x = F.conv2d(x, weight, bias, stride=stride, groups=step.get("groups", 1))
        return F.relu6(x) if step.get("relu6") else x


class ScriptNetwork(FileNetwork):
    """Runs a TorchScript file."""

    def __init__(self, path: Path, **resize: Any) -> None:
        super().__init__(path, **resize)
        try:
            self.net = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise T2IError(
                f"cannot read {path} as TorchScript: save it with torch.jit.save, or as .safetensors with its graph"
            ) from error

    def look(self, images: Tensor) -> Seen:
        """Run the script and sort its results."""
        found = self.net(images)
        results = [found] if isinstance(found, Tensor) else list(found)
        features, logits, regions = [*results, None, None][:3]
        if not isinstance(features, Tensor) or features.dim() != 2:
            raise T2IError(f"{self.name} does not return features (B, D): return them first, pooled")
        return Seen(features, regions, logits)


def load_file(path: Path, *, input_size: int | None, **resize: bool) -> VisionNetwork:
    """Read either format; one forward pass finds the three dimensions."""
    if not path.is_file():
        raise T2IError(f"found no network file {path}: check the path behind file:")
    network: FileNetwork
    if path.suffix == ".safetensors":
        network = GraphNetwork(path, input_size=_GRAPH_SIZE if input_size is None else input_size, **resize)
    else:
        network = ScriptNetwork(path, input_size=input_size or 0, **resize)
    network.eval()
    side = network.input_size or 64
    try:
        with torch.no_grad():
            seen = network.look(torch.zeros(2, 3, side, side))
    except T2IError:
        raise
    except Exception as error:
        raise T2IError(
            f"the network in {path} fails on images of {side} px ({str(error).splitlines()[-1]}): set the input_size "
            "that it reads, or use a file whose graph is complete"
        ) from error
    network.feature_dim = seen.features.shape[1]
    network.region_dim = 0 if seen.regions is None else seen.regions.shape[1]
    network.num_logits = 0 if seen.logits is None else seen.logits.shape[1]
    return network
