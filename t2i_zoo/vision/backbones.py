"""Any classifier of torchvision as an image network: pooled features, a map of regions, logits."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.files import refuse_code, refuse_pointer
from t2i_zoo.vision.network import Seen, VisionNetwork
from t2i_zoo.vision.taps import find_taps, watch

#: their published weights come from TensorFlow and expect [-1, 1]; torchvision converts its own normalization inside
_FROM_TENSORFLOW = ("inception_v3", "googlenet")


class TorchvisionNetwork(VisionNetwork):
    """A torchvision classifier without dropout, so that its features are the same in training and evaluation mode.

    The features are the input of its last linear layer. The arguments are those of ``build_vision``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str,
        weights: str | None,
        *,
        layer: str | None,
        normalize: bool,
        logits: bool,
        input_size: int | None,
        align_corners: bool,
        antialias: bool,
    ) -> None:
        known = torchvision.models.list_models(module=torchvision.models)
        if model not in known:
            near = difflib.get_close_matches(model, known, 3)
            hint = f": did you mean {' or '.join(near)}?" if near else ": torchvision.models.list_models() lists them"
            raise T2IError(f"torchvision has no classifier named {model!r}{hint}")
        published: Any = torchvision.models.get_model_weights(model).DEFAULT  # type: ignore[attr-defined]
        recipe = published.transforms()
        size = recipe.crop_size[0] if input_size is None else input_size
        super().__init__(f"torchvision:{model}", size, align_corners, antialias)
        self.net = _build(model, weights, published)
        plain = not normalize or model in _FROM_TENSORFLOW
        for name, values in (("mean", recipe.mean), ("std", recipe.std)):
            self.register_buffer(name, torch.tensor([0.5] * 3 if plain else values).view(3, 1, 1), persistent=False)
        for module in self.net.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        self._seen: dict[str, Tensor] = {}
        heads = [(n, m) for n, m in self.net.named_modules() if isinstance(m, nn.Linear)]
        if not heads:
            raise T2IError(f"{self.name} has no linear layer, whose input would be the features: name another network")
        head, linear = heads[-1]
        self.feature_dim = linear.in_features
        self.num_logits = linear.out_features if logits else 0
        if not logits:
            linear = nn.Identity()  # type: ignore[assignment]
            parent, _, leaf = head.rpartition(".")
            setattr(self.net.get_submodule(parent), leaf, linear)
        linear.register_forward_pre_hook(self._keep_features)
        self.eval()
        outputs, side = self._outputs()
        name, self.region_dim = self._find_regions(layer, outputs)
        if name:
            self.net.get_submodule(name).register_forward_hook(self._keep_regions)
        self._taps = find_taps(outputs, side)
        self.tap_channels = tuple(self._taps.values())

    def look(self, images: Tensor) -> Seen:
        """Run the network, and keep features and regions on the way."""
        scores = self.net((images * 0.5 + 0.5 - self.mean) / self.std)
        features, regions = self._seen["features"], self._seen.get("regions")
        self._seen.clear()  # a kept map would keep its graph alive
        return Seen(features.flatten(1), regions, scores if self.num_logits else None)

    def tap(self, images: Tensor) -> list[Tensor]:
        """The last output of a block at each stride."""
        return watch(self.net, list(self._taps), lambda: self.look(images))

    # Hooks are bound methods, so that a copy of the network keeps its own values.
    def _keep_features(self, module: nn.Module, inputs: Any) -> None:
        self._seen["features"] = inputs[0]

    def _keep_regions(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._seen["regions"] = output

    @torch.no_grad()
    def _outputs(self) -> tuple[list[tuple[str, torch.Size]], int]:
        """Names and shapes of all maps in the order of computation, and the side of the images that gave them."""
        found: list[tuple[str, torch.Size]] = []

        def note(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.dim() == 4:
                    found.append((name, output.shape))

            return hook

        handles = [m.register_forward_hook(note(n)) for n, m in self.net.named_modules() if n]
        side = self.input_size or 64
        self.look(torch.zeros(1, 3, side, side))
        for handle in handles:
            handle.remove()
        return found, side

    def _find_regions(self, layer: str | None, outputs: list[tuple[str, torch.Size]]) -> tuple[str, int]:
        """Name of the layer that gives the map, by default the last one, and the channels of the map."""
        modules = dict(self.net.named_modules())
        if layer is not None and not modules.get(layer):
            near = difflib.get_close_matches(layer, list(modules), 3, 0.4)
            raise T2IError(f"{self.name} has no layer {layer!r}: name one such as {', '.join(near) or 'features'}")
        maps = [(name, shape[1]) for name, shape in outputs if (name == layer if layer else shape[2] * shape[3] > 1)]
        if layer is not None and not maps:
            raise T2IError(f"layer {layer!r} of {self.name} gives no map (B, C, H, W): name a convolutional one")
        return maps[-1] if maps else ("", 0)


def _build(model: str, weights: str | None, published: Any) -> nn.Module:
    """The classifier with its weights, without an auxiliary head."""
    options: dict[str, Any] = {}
    if model in _FROM_TENSORFLOW:
        options = {"transform_input": False, "init_weights": weights == "random", "aux_logits": True}
    net: nn.Module = torchvision.models.get_model(model, weights=None, **options)
    if weights != "random":
        _load(net, model, weights, published)
    if model in _FROM_TENSORFLOW:
        net.aux_logits = False  # type: ignore[assignment]
        for name in ("AuxLogits", "aux1", "aux2"):
            if hasattr(net, name):
                setattr(net, name, None)
    return net


def _load(net: nn.Module, model: str, weights: str | None, published: Any) -> None:
    if weights is None:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
        try:
            values = published.get_state_dict(progress=False, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise T2IError(
                f"cannot download the weights of {model} ({error}): put the file {published.url} at {place}, "
                "or set weights to a path or to random"
            ) from error
    else:
        values = read_state(Path(weights).expanduser())
    load_exactly(net, values, f"{weights or published.url}", model, optional=("AuxLogits.", "aux1.", "aux2."))


def load_exactly(
    net: nn.Module, values: dict[str, Tensor], source: str, name: str, optional: tuple[str, ...] = ()
) -> None:
    """Load a state dict that has the names and shapes of the network.

    Args:
        net: the network.
        values: the state dict. Counters of batch normalization may be missing.
        source: where the weights come from, for the error.
        name: of the network, for the error.
        optional: prefixes of further weights that may be missing.

    Raises:
        T2IError: a weight is missing, unexpected or of another shape.
    """
    own = net.state_dict()
    for key in [*own, *values]:
        there, here = (tuple(state[key].shape) if key in state else "nothing" for state in (values, own))
        if there != here and not (key not in values and (key.startswith(optional) or key.endswith("_tracked"))):
            raise T2IError(
                f"the weights {source} do not fit {name}: {key} is {there} in the file and {here} in the network: use "
                "the weights of that network"
            )
    net.load_state_dict(values, strict=False)


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file, or from a .pth file without running its code."""
    if not path.is_file():
        raise T2IError(f"found no weights file {path}: check the path, or set weights to random")
    refuse_pointer(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        refuse_code(path, error)
        raise T2IError(f"cannot read {path} as weights ({error}): give a state dict, .pth or .safetensors") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise T2IError(f"{path} holds no state dict: save only the weights, as torch.save(net.state_dict(), path)")
    return found
