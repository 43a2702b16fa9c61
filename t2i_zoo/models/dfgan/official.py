"""The weight files of tobran/DF-GAN: ``state_epoch_1220.pth`` of the CVPR code, ``netG_600.pth`` of the preprint's.

The former holds generator, discriminator and the judgement ``netC`` in one file; the latter's discriminator contains
that judgement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.official import Official, State, count_keys

PREPRINT_SIZE, PREPRINT_TEXT = 256, 256  #: written into the preprint's classes

#: official keys by which a network is known, and its path here
CVPR = {
    "generator": "GBlocks.0.fuse1.affine0.fc_gamma.linear1.weight",
    "discriminator.trunk": "DBlocks.0.conv_r.0.weight",
    "discriminator.joint": "joint_conv.0.weight",
}
PREPRINT = {
    "generator": "block0.affine0.fc_gamma.linear1.weight",
    "discriminator": "COND_DNET.joint_conv.0.weight",
}
FILES = {
    "generator": "state_epoch_000.pth:netG",
    "discriminator.trunk": "state_epoch_000.pth:netD",
    "discriminator.joint": "state_epoch_000.pth:netC",
}
PREPRINT_FILES = {"generator": "netG_000.pth", "discriminator": "netD_000.pth"}


def identify(state: State, known: Mapping[str, str]) -> str | None:
    """The path of the network that has the key by which it is known."""
    return next((path for path, key in known.items() if key in state), None)


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Widths, sizes and dimensions of the CVPR code, from the shapes of the weights."""
    found: dict[str, Any] = {"variant": "cvpr", "image_size": 256}
    channels = None
    if state := networks.get("discriminator.trunk", {}):
        halvings = count_keys(state, "DBlocks.{}.conv_r.0.weight", first=0)
        channels = state[f"DBlocks.{halvings - 1}.conv_r.0.weight"].shape[0]
        found |= {"discriminator_width": state["conv_img.weight"].shape[0], "image_size": 4 * 2**halvings}
    if state := networks.get("discriminator.joint", {}):
        hidden, inputs = state["joint_conv.0.weight"].shape[:2]
        found |= {"discriminator_width": hidden // 2, "text_dim": inputs - (channels or 4 * hidden)}
    if state := networks.get("generator", {}):
        doublings = count_keys(state, "GBlocks.{}.c1.weight", first=0)
        found |= {"generator_width": state["to_rgb.1.weight"].shape[1], "image_size": 4 * 2**doublings}
        found["noise_dim"] = state["fc.weight"].shape[1]
        found["text_dim"] = state[CVPR["generator"]].shape[1] - found["noise_dim"]
    return found


def preprint_options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Widths and dimensions of the preprint's code."""
    found: dict[str, Any] = {"variant": "preprint", "image_size": PREPRINT_SIZE}
    if state := networks.get("discriminator", {}):
        width = state["conv_img.weight"].shape[0]
        found |= {"discriminator_width": width, "text_dim": state[PREPRINT["discriminator"]].shape[1] - 16 * width}
    if state := networks.get("generator", {}):
        found |= {"generator_width": state["conv_img.1.weight"].shape[1], "noise_dim": state["fc.weight"].shape[1]}
        found["text_dim"] = state[PREPRINT["generator"]].shape[1]
    if found["text_dim"] != PREPRINT_TEXT:
        raise T2IError(
            f"found a sentence embedding of dimension {found['text_dim']}, expected {PREPRINT_TEXT}, the preprint's "
            "only one"
        )
    return found


def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours."""
    _require_variant(hparams, "cvpr")
    if hparams["image_size"] < 32:
        raise T2IError(f"found a model with image_size {hparams['image_size']}, expected at least 32")
    if path == "discriminator.joint":
        return [("joint_conv.", "")]
    if path == "discriminator.trunk":
        return [("conv_img.", "stem."), *_down_pairs(hparams, "DBlocks.{}.", "blocks.{}.")]
    affines = {(f, a): f"fuse{f + 1}.affine{a}." for f in range(2) for a in range(2)}
    return [("fc.", "project."), ("to_rgb.1.", "to_image."), *_up_pairs(hparams, "GBlocks.{}.", affines)]


def preprint_prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours, of the one size that the preprint's classes have."""
    _require_variant(hparams, "preprint")
    if hparams["image_size"] != PREPRINT_SIZE:
        raise T2IError(f"found a model with image_size {hparams['image_size']}, expected {PREPRINT_SIZE}")
    if path == "discriminator":
        pairs = [("conv_img.", "trunk.stem."), ("COND_DNET.joint_conv.", "joint.")]
        return pairs + _down_pairs(hparams, "block{}.", "trunk.blocks.{}.")
    affines = {(f, a): f"affine{2 * f + a}." for f in range(2) for a in range(2)}
    return [("fc.", "project."), ("conv_img.1.", "to_image."), *_up_pairs(hparams, "block{}.", affines)]


def unused(path: str, hparams: Mapping[str, Any], *, block: str, cap: int) -> dict[str, tuple[int, ...]]:
    """The shortcut convolutions of blocks that keep their channels: in the files, and without an effect."""
    if path not in ("discriminator", "discriminator.trunk"):
        return {}
    found: dict[str, tuple[int, ...]] = {}
    for i in range(_doublings(hparams)):
        if 2**i >= cap:
            channels = cap * hparams["discriminator_width"]
            found[f"{block.format(i)}conv_s.weight"] = (channels, channels, 1, 1)
            found[f"{block.format(i)}conv_s.bias"] = (channels,)
    return found


def _require_variant(hparams: Mapping[str, Any], variant: str) -> None:
    if hparams["variant"] != variant:
        raise T2IError(f"found a model with variant {hparams['variant']}, expected variant {variant}")


def _doublings(hparams: Mapping[str, Any]) -> int:
    return int(hparams["image_size"]).bit_length() - 3


def _down_pairs(hparams: Mapping[str, Any], theirs: str, ours: str) -> list[tuple[str, str]]:
    inner = {"conv_r.0.": "first.", "conv_r.2.": "second.", "conv_s.": "shortcut.", "gamma": "gamma"}
    return [
        (theirs.format(i) + one, ours.format(i) + other)
        for i in range(_doublings(hparams))
        for one, other in inner.items()
    ]


def _up_pairs(hparams: Mapping[str, Any], theirs: str, affines: Mapping[tuple[int, int], str]) -> list[tuple[str, str]]:
    inner = {"c1.": "first.", "c2.": "second.", "c_sc.": "shortcut.", "gamma": "gamma"}
    for (f, a), name in affines.items():
        for one, other in (("fc_gamma", "scale"), ("fc_beta", "shift")):
            for number, place in (("linear1", 0), ("linear2", 2)):
                inner[f"{name}{one}.{number}."] = f"fusions.{f}.affines.{a}.{other}.{place}."
    return [
        (theirs.format(i) + one, f"blocks.{i}.{other}")
        for i in range(_doublings(hparams) + (hparams["variant"] == "preprint"))
        for one, other in inner.items()
    ]


OFFICIAL = {
    "dfgan": Official(
        "dfgan",
        partial(identify, known=CVPR),
        options,
        prefixes,
        lambda hparams: dict(FILES),
        module_prefix=True,  # as the authors' scripts leave them, which train under DDP on one GPU too
        unused=partial(unused, block="DBlocks.{}.", cap=8),
    ),
    "dfgan_preprint": Official(
        "dfgan",
        partial(identify, known=PREPRINT),
        preprint_options,
        preprint_prefixes,
        lambda hparams: dict(PREPRINT_FILES),
        unused=partial(unused, block="block{}.", cap=16),
    ),
}
