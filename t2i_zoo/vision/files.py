"""A picture network of one's own, from one file that brings its graph along.

Two forms are read. **TorchScript** (``torch.jit.save``): ``forward`` takes pictures (B, 3, H, W) in [-1, 1] and returns
the features (B, D), or a tuple that begins with them and goes on with the logits (B, K) and the regions (B, C, H, W).

**Safetensors with a graph**: the metadata hold ``input``, the name of the pictures' value, and ``graph``, a JSON list
of operations in order, each with its source ``src`` and the name of its result ``dst``:

- ``{"op": "conv", "layer": N, "stride": 1, "groups": 1, "relu6": true, ...}`` with the tensors ``N.weight`` and
  ``N.bias``, padded as TensorFlow's SAME (the odd pixel goes after), clipped to 0 and 6 with ``relu6``;
- ``{"op": "add", "src2": ...}``, the sum of two values;
- ``{"op": "pool", ...}``, the mean over the picture: it gives the features, and what it reads are the regions. The last
  operation gives the logits, where it is not the pool.
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
from t2i_zoo.vision.network import Seen, VisionNetwork

_GRAPH_SIZE = 224  # what networks that carry a graph read, unless told otherwise


class FileNetwork(VisionNetwork):
    """Base of both forms."""

    def __init__(self, path: Path, **resize: Any) -> None:
        super().__init__(f"file:{path.name}", **resize)
        self._content = hashlib.sha256(path.read_bytes()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of the whole file too: a graph or a script is no weight."""
        return hashlib.sha256(f"{super().fingerprint} {self._content}".encode()).hexdigest()[:16]


class GraphNetwork(FileNetwork):
    """Interprets the graph of a .safetensors file; weights may be kept in half precision there."""

    def __init__(self, path: Path, graph: list[dict[str, Any]], source: str, tensors: dict[str, Tensor],
                 **resize: Any) -> None:  # fmt: skip
        super().__init__(path, **resize)
        self.graph, self.source = graph, str(source)
        self.weights = nn.ParameterDict({key.replace(".", "_"): value.float() for key, value in tensors.items()})

    def look(self, images: Tensor) -> Seen:
        """Run the operations in order."""
        values: dict[str, Tensor] = {self.source: images}
        features = regions = None
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
        assert features is not None
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
    """A TorchScript file."""

    def __init__(self, path: Path, net: nn.Module, **resize: Any) -> None:
        super().__init__(path, **resize)
        self.net = net

    def look(self, images: Tensor) -> Seen:
        """Run the script and sort its results."""
        found = self.net(images)
        results = [found] if isinstance(found, Tensor) else list(found)
        features = results[0]
        if not isinstance(features, Tensor) or features.dim() != 2:
            raise T2IError(f"{self.name} does not begin its results with features (B, D): return them first, pooled")
        logits, regions = ([*results[1:3], None, None])[:2]
        return Seen(features, regions, logits)


def load_file(path: Path, *, input_size: int | None, align_corners: bool, antialias: bool) -> VisionNetwork:
    """Read either form; its three numbers are found by one forward."""
    if not path.is_file():
        raise T2IError(f"found no network file {path}: check the path behind file:")
    resize = {"align_corners": align_corners, "antialias": antialias}
    network: VisionNetwork
    if path.suffix == ".safetensors":
        graph, source, tensors = _read_graph(path)
        size = _GRAPH_SIZE if input_size is None else input_size
        network = GraphNetwork(path, graph, source, tensors, input_size=size, **resize)
    else:
        try:
            net = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except Exception as error:
            raise T2IError(
                f"cannot read {path} as TorchScript: save it with torch.jit.save, or as .safetensors with its graph"
            ) from error
        network = ScriptNetwork(path, net, input_size=input_size or 0, **resize)
    network.eval()
    side = network.input_size or 64
    try:
        with torch.no_grad():
            seen = network.look(torch.zeros(2, 3, side, side))
    except T2IError:
        raise
    except Exception as error:
        raise T2IError(
            f"the network in {path} fails on pictures of {side} px ({str(error).splitlines()[-1]}): give the "
            "input_size that it reads, and a file whose graph is whole"
        ) from error
    network.feature_dim = seen.features.shape[1]
    network.region_dim = 0 if seen.regions is None else seen.regions.shape[1]
    network.num_logits = 0 if seen.logits is None else seen.logits.shape[1]
    return network


def _read_graph(path: Path) -> tuple[list[dict[str, Any]], str, dict[str, Tensor]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise T2IError(f"cannot read {path} as safetensors ({error}): fetch the file again") from error
    try:
        graph, source = json.loads(about["graph"]), about["input"]
        whole = all(step["op"] in ("conv", "add", "pool") and {"src", "dst"} <= step.keys() for step in graph)
        if not whole or not any(step["op"] == "pool" for step in graph):
            raise KeyError("op")
    except (KeyError, TypeError, ValueError) as error:
        raise T2IError(
            f"the metadata of {path} hold no graph of conv, add and pool: write one as vision/files.py describes, or "
            "give weights of a torchvision network by its name"
        ) from error
    return graph, source, tensors
