"""The weight files of taoxugit/AttnGAN and qiaott/MirrorGAN, whose networks differ in the attention alone.

A saved generator holds the moving average of the parameters beside the batch statistics of the live generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.official import State, count_keys, first_stage_pairs, trunk_pairs

BASE = 64  #: side of the first branch, for which the authors' networks are written
LOOSE = ("text_encoder", "damsm_weight")
_CONTEXT = "h_net2.att.conv_context.weight"


def identify(state: State, *, redescribing: bool) -> str | None:
    """``"generator"``, ``"discriminator.0"`` and so on, or None for another paper's file.

    Args:
        state: of one file.
        redescribing: whether generators of MirrorGAN are looked for, or those of AttnGAN; discriminators are alike.
    """
    if _CONTEXT in state:
        return "generator" if ("h_net2.att.linear.weight" in state) == redescribing else None
    if {"img_code_s16.8.weight", "COND_DNET.outlogits.0.weight"} <= set(state):
        if "UNCOND_DNET.outlogits.0.weight" not in state:
            return "discriminator.0"  # the DCGAN variant has one
        return f"discriminator.{_downs(state)}"
    return None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Branches, sizes and widths, from the shapes of the weights; the generator's where one is given."""
    found: dict[str, Any] = {}
    for name, state in networks.items():
        if name != "generator":
            found["branches"] = max(_downs(state) + 1, found.get("branches", 1))
            found["last_only"] = "UNCOND_DNET.outlogits.0.weight" not in state
            found["discriminator_width"] = state["img_code_s16.0.weight"].shape[0]
            outputs, inputs = state["COND_DNET.jointConv.0.weight"].shape[:2]
            found["text_dim"] = inputs - outputs
    if state := networks.get("generator", {}):
        found["branches"] = 1 + count_keys(state, "h_net{}.att.conv_context.weight", first=2)
        found["last_only"] = "img_net.img.0.weight" in state
        found["generator_width"] = state[_CONTEXT].shape[0]
        outputs, found["text_dim"] = state["ca_net.fc.weight"].shape
        found["condition_dim"] = outputs // 4  # mean and log-variance, each with its gate
        found["noise_dim"] = state["h_net1.fc.0.weight"].shape[1] - found["condition_dim"]
        found["residual_blocks"] = count_keys(state, "h_net2.residual.{}.block.0.weight", first=0)
    return found | {"image_size": BASE * 2 ** (found["branches"] - 1), "damsm_weight": 0.0}


def prefixes(path: str, hparams: Mapping[str, Any], stage: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours, for the generator or one of the discriminators.

    Args:
        path: of the network.
        hparams: of the model.
        stage: the paper's own parts of a further stage, official prefix to ours.
    """
    branches, last_only = hparams["branches"], hparams["last_only"]
    if (first := hparams["image_size"] >> (branches - 1)) != BASE:
        raise T2IError(
            f"found a first branch of {first} px, expected {BASE} px as in the authors' files: train one of image_size "
            "256 with 3 branches, for example"
        )
    if path == "generator":
        pairs = [("ca_net.", "augment."), *first_stage_pairs()]
        shown = [("img_net.img.", "pictures.0.")]
        pairs += shown if last_only else [(f"img_net{i + 1}.img.", f"pictures.{i}.") for i in range(branches)]
        parts = {**stage, "residual.": "residual.", "upsample.": "up."}
        return pairs + [
            (f"h_net{i + 2}.{theirs}", f"stages.{i}.{ours}")
            for i in range(branches - 1)
            for theirs, ours in parts.items()
        ]
    downs = branches - 1 if last_only else int(path.rpartition(".")[2])
    heads = {"COND_DNET.jointConv.": "joint.", "COND_DNET.outlogits.0.": "conditional."}
    if not last_only:
        heads["UNCOND_DNET.outlogits.0."] = "unconditional."
    return [*trunk_pairs(downs), *((theirs, f"heads.{ours}") for theirs, ours in heads.items())]


def files(hparams: Mapping[str, Any]) -> dict[str, str]:
    """As the authors name them; their code reads the number behind the last underscore as the epoch."""
    count = 1 if hparams["last_only"] else hparams["branches"]
    return {"generator": "netG_epoch_0.pth"} | {f"discriminator.{i}": f"netD{i}.pth" for i in range(count)}


def _downs(state: State) -> int:
    return sum(f"img_code_s{32 * 2**i}.0.weight" in state for i in range(4))
