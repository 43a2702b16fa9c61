"""Weight files of the PyTorch port, aelnouby/Text-to-Image-Synthesis: ``gen_{epoch}.pth`` and ``disc_{epoch}.pth``.

Both are state dicts of ``nn.DataParallel``, of its types ``gan`` and ``wgan``, whose networks are the same (the critic
leaves out the sigmoid, which has no weights). Its two ``vanilla`` types read no text and have no counterpart here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.official import Official, State

#: the port's prefix and ours; the numbers after them are the same, since both are the same sequence of layers
PREFIXES = {
    "generator": [("projection.", "project."), ("netG.", "layers.")],
    "discriminator": [("projector.projection.", "project."), ("netD_1.", "image."), ("netD_2.0.", "joint.")],
}
WIDTH, NOISE = 64, 100  # constants of the port's classes, for a network that is not given


def identify(state: State) -> str | None:
    """The two networks have differently named trunks."""
    for trunk, network in (("netG.", "generator"), ("netD_1.", "discriminator")):
        if any(name.startswith(trunk) for name in state):
            return network
    return None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Widths from the first and the last layer of each network; the size is always 64 px."""
    found: dict[str, Any] = {"architecture": "dcgan", "image_size": 64}
    found |= {"generator_width": WIDTH, "discriminator_width": WIDTH, "noise_dim": NOISE}
    if "discriminator" in networks:
        state = networks["discriminator"]
        found["projection_dim"], found["text_dim"] = state["projector.projection.0.weight"].shape
        found["discriminator_width"] = state["netD_1.0.weight"].shape[0]
    if "generator" in networks:
        state = networks["generator"]
        found["projection_dim"], found["text_dim"] = state["projection.0.weight"].shape
        found["noise_dim"] = state["netG.0.weight"].shape[0] - found["projection_dim"]
        found["generator_width"] = state["netG.12.weight"].shape[0]
    return found


def prefixes(network: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The same for every width; only the port's networks have a place in its files."""
    for name, expected in (("architecture", "dcgan"), ("image_size", 64)):
        if hparams[name] != expected:
            raise T2IError(
                f"found a model with {name} {hparams[name]}, expected {name} {expected}, the port's only one"
            )
    return PREFIXES[network]


def files(hparams: Mapping[str, Any]) -> dict[str, str]:
    """The names of the last files that the port writes in its 200 epochs."""
    return {"generator": "gen_190.pth", "discriminator": "disc_190.pth"}


OFFICIAL = {"aelnouby_gancls": Official("gancls", identify, options, prefixes, files, module_prefix=True)}
