"""Numbers that are meant: defaults of all models and blocks, constants, and the shapes of every network.

``defaults.json`` holds them. Where a change is meant, ``python tests/models/test_defaults.py`` writes it anew, and the
diff shows what else has changed.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from t2i_zoo.models import list_models, model_class

ROOT = Path(__file__).parents[2]
PLACE = Path(__file__).with_name("defaults.json")
PATTERNS = ("nn/*.py", "models/*.py", "models/*/networks.py", "models/*/losses.py", "models/*/module.py",
            "models/*/drawing.py", "metrics/*.py", "data/plan.py", "data/mismatch.py")  # fmt: skip
FILES = sorted(p.relative_to(ROOT).as_posix() for each in PATTERNS for p in (ROOT / "t2i_zoo").glob(each))
sys.path.insert(0, str(ROOT / "tests"))
TINY = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["TINY"]
PLAIN = (bool, int, float, str, type(None))
#: sides at which channels are capped
LARGE = dict.fromkeys(("gancls", "gancls:light", "stackgan", "stackganpp", "dmgan", "dfgan", "dfgan:preprint"), 128)


def plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(map(plain, value)))


def numbers(file: str) -> dict[str, Any]:
    """Plain constants of a module, and plain defaults and attributes of its functions and classes."""
    module = importlib.import_module(file[:-3].replace("/", ".").removesuffix(".__init__"))
    found: dict[str, Any] = {}

    def signature(name: str, function: Any) -> None:
        for each in inspect.signature(function).parameters.values():
            if each.default is not each.empty and plain(each.default):
                found[f"{name}({each.name})"] = each.default

    for name, value in sorted(vars(module).items()):
        if plain(value) and not name.startswith("__"):
            found[name] = value
        elif getattr(value, "__module__", None) != module.__name__:
            continue
        elif isinstance(value, types.FunctionType):
            signature(name, value)
        elif isinstance(value, type):
            for key, part in sorted(vars(value).items()):
                if isinstance(part, types.FunctionType):
                    signature(f"{name}.{key}", part)
                elif plain(part) and not key.startswith(("__", "_abc", "_field")):
                    found[f"{name}.{key}"] = part
                elif key == "needs":
                    found[f"{name}.needs"] = repr(part)
    return json.loads(json.dumps(found))


def networks(key: str) -> dict[str, Any]:
    """Options, needs, and a digest of all weights' names, shapes and constant initial values of a tiny model."""
    options = {"image_size": 16, "noise_dim": 8, "text_encoder": {"kind": "hashing", "dim": 32}, **TINY[key]}
    found = {}
    for size in {options["image_size"]: None, LARGE.get(key, options["image_size"]): None}:
        model = model_class(key.partition(":")[0])(**{**options, "image_size": size})
        digest = hashlib.sha256()
        for name, tensor in sorted(model.state_dict().items()):
            constant = float(tensor.flatten()[0]) if tensor.numel() and (tensor == tensor.flatten()[0]).all() else ""
            digest.update(f"{name} {tuple(tensor.shape)} {constant if tensor.numel() > 1 else ''}\n".encode())
        found[str(size)] = {"weights": digest.hexdigest()[:16], "needs": repr(model.needs)}
    return {**found, "options": json.loads(json.dumps({k: v for k, v in sorted(model.hparams.items()) if plain(v)}))}


GANS = [key for key in TINY if key.partition(":")[0] in list_models("gan")]


@pytest.mark.parametrize("file", FILES)
def test_numbers(file: str) -> None:
    assert numbers(file) == json.loads(PLACE.read_text("utf-8"))["numbers"].get(file, {})


@pytest.mark.parametrize("key", GANS)
def test_networks(key: str) -> None:
    assert networks(key) == json.loads(PLACE.read_text("utf-8"))["networks"][key]


if __name__ == "__main__":
    content = {
        "numbers": {file: found for file in FILES if (found := numbers(file))},
        "networks": {key: networks(key) for key in GANS},
    }
    PLACE.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
