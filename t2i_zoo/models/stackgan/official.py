"""The weight files of hanzhanggit/StackGAN-Pytorch: ``netG_epoch_90.pth`` and ``netD_epoch_last.pth`` of either stage.

Files of the TensorFlow code, hanzhanggit/StackGAN, hold other networks and do not load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.official import Official, State, count_keys

LEAST = 4  #: default of ``least_channels``; the authors halve the channels without a floor
SIZES = {1: 64, 2: 256}  #: of each stage's images, for which the authors' networks are written
MATCHED, ALONE = "get_cond_logits.outlogits.", "get_uncond_logits.outlogits."  #: the heads with and without text


def identify(found: State) -> str | None:
    """Either stage's generator or discriminator."""
    if "ca_net.fc.weight" in found and ("fc.0.weight" in found or "STAGE1_G.fc.0.weight" in found):
        return "generator"
    return "discriminator" if {"encode_img.0.weight", f"{MATCHED}0.weight"} <= set(found) else None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Stage and widths from the shapes of the weights; the generator's if it is given."""
    found: dict[str, Any] = {"ca_activation": "relu"}
    if state := networks.get("discriminator", {}):
        outputs, inputs = state[f"{MATCHED}0.weight"].shape[:2]
        found |= {"stage": 2 if f"{ALONE}0.weight" in state else 1, "condition_dim": inputs - outputs}
        found["discriminator_width"] = state["encode_img.0.weight"].shape[0]
    if state := networks.get("generator", {}):
        first = "STAGE1_G." if "STAGE1_G.fc.0.weight" in state else ""
        outputs, found["text_dim"] = state["ca_net.fc.weight"].shape
        found |= {"stage": 2 if first else 1, "condition_dim": outputs // 2}  # mean and log-variance
        outputs, inputs = state[f"{first}fc.0.weight"].shape
        found |= {"generator_width": outputs // (8 * 4 * 4), "noise_dim": inputs - found["condition_dim"]}
        if state["img.0.weight"].shape[1] < LEAST:  # of the narrowest map
            found["least_channels"] = 1
        if first:
            found["residual_blocks"] = count_keys(state, "residual.{}.block.0.weight", first=0)
    return found | {"image_size": SIZES[found["stage"]]}


def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours, for the generator or the discriminator of either stage."""
    stage, size = hparams["stage"], hparams["image_size"]
    if size != SIZES[stage]:
        raise T2IError(f"found a stage {stage} of {size} px, expected {SIZES[stage]} px, the authors' only size")
    if path == "discriminator":
        return [("encode_img.", "encode."), (MATCHED, "joint."), (ALONE, "alone.")]
    pairs = {"ca_net.": "ca.", "fc.": "fc.", "img.": "image."} | {f"upsample{i + 1}.": f"ups.{i}." for i in range(4)}
    if stage == 1:
        return list(pairs.items())
    nested = [(f"STAGE1_G.{theirs}", f"stage1.{ours}") for theirs, ours in pairs.items()]
    del pairs["fc."]
    pairs |= {"encoder.": "encoder.", "hr_joint.": "joint."}
    pairs |= {f"residual.{i}.block.": f"residual.{i}.layers." for i in range(hparams["residual_blocks"])}
    return nested + list(pairs.items())


def files(hparams: Mapping[str, Any]) -> dict[str, str]:
    """The authors' generators have the number of the epoch instead of ``last``.

    Raises:
        T2IError: for a narrow generator whose channels do not fall as low as the authors'.
    """
    narrowest = hparams["generator_width"] // (2 * hparams["stage"])
    if (least := hparams.get("least_channels", LEAST)) > max(narrowest, 1):
        raise T2IError(
            f"found a generator of width {hparams['generator_width']} with at least {least} channels, expected "
            f"{narrowest} at its end as in the authors' code: train one with least_channels 1"
        )
    return {"generator": "netG_epoch_last.pth", "discriminator": "netD_epoch_last.pth"}


OFFICIAL = {"stackgan_v1": Official("stackgan", identify, options, prefixes, files)}
