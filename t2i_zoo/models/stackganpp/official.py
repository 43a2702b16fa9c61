"""The weight files of hanzhanggit/StackGAN-v2: ``netG_210000.pth`` and ``netD0.pth`` to ``netD2.pth``.

A saved generator holds the moving average of the parameters beside the batch statistics of the live generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.official import Official, State, count_keys, first_stage_pairs, trunk_pairs

BASE = 64  #: side of the first branch, for which the authors' networks are written


def identify(state: State) -> str | None:
    """``"generator"``, ``"discriminator.0"`` and so on, or None for another paper's file."""
    # AttnGAN's generator has all names of the first branch too, but attention in the next ones
    if {"h_net1.upsample4.1.weight", "img_net1.img.0.weight"} <= set(state):
        return None if any(".att." in key for key in state) else "generator"
    if {"img_code_s16.8.weight", "logits.0.weight"} <= set(state):
        return f"discriminator.{sum(f'img_code_s{32 * 2**i}.0.weight' in state for i in range(4))}"
    return None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Branches, sizes and widths, from the shapes of the weights; the generator's where one is given."""
    found: dict[str, Any] = {}
    for name, state in networks.items():
        if name != "generator":
            found["branches"] = max(int(name.rpartition(".")[2]) + 1, found.get("branches", 1))
            found["discriminator_width"] = state["img_code_s16.0.weight"].shape[0]
            if "jointConv.0.weight" in state:
                outputs, inputs = state["jointConv.0.weight"].shape[:2]
                found["condition_dim"] = inputs - outputs
            else:
                found["text_dim"] = 0
    if state := networks.get("generator", {}):
        found["branches"] = count_keys(state, "img_net{}.img.0.weight")
        found["generator_width"] = state["img_net1.img.0.weight"].shape[1]
        found["noise_dim"], found["text_dim"] = state["h_net1.fc.0.weight"].shape[1], 0
        if "ca_net.fc.weight" in state:
            outputs, found["text_dim"] = state["ca_net.fc.weight"].shape
            found["condition_dim"] = outputs // 4  # mean and log-variance, each with its gate
            found["noise_dim"] -= found["condition_dim"]
        if found["branches"] > 1:
            found["residual_blocks"] = count_keys(state, "h_net2.residual.{}.block.0.weight", first=0)
    return found | {"image_size": BASE * 2 ** (found["branches"] - 1)}


def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours, for the generator or one of the discriminators."""
    branches = hparams["branches"]
    if (first := hparams["image_size"] >> (branches - 1)) != BASE:
        raise T2IError(
            f"found a StackGAN++ whose first branch has {first} px, expected {BASE} px as in the authors' files: "
            "train one of image_size 256 with 3 branches, for example"
        )
    if path == "generator":
        pairs = [("ca_net.", "augment."), *first_stage_pairs()]
        pairs += [(f"img_net{i + 1}.img.", f"pictures.{i}.") for i in range(branches)]
        inner = {"jointConv": "joint", "residual": "residual", "upsample": "up"}
        return pairs + [
            (f"h_net{i + 2}.{theirs}.", f"stages.{i}.{ours}.")
            for i in range(branches - 1)
            for theirs, ours in inner.items()
        ]
    pairs = trunk_pairs(int(path.rpartition(".")[2]))
    spec = hparams["text_encoder"]
    if (spec["kind"] if isinstance(spec, dict) else spec) == "none":
        return [*pairs, ("logits.0.", "heads.unconditional.")]
    heads = {"jointConv.": "joint.", "logits.0.": "conditional.", "uncond_logits.0.": "unconditional."}
    return pairs + [(theirs, f"heads.{ours}") for theirs, ours in heads.items()]


def files(hparams: Mapping[str, Any]) -> dict[str, str]:
    """The authors' code reads the number behind the last underscore of the generator's file as its iteration."""
    return {"generator": "netG_0.pth"} | {f"discriminator.{i}": f"netD{i}.pth" for i in range(hparams["branches"])}


OFFICIAL = {"stackgan_v2": Official("stackganpp", identify, options, prefixes, files, module_prefix=True)}
