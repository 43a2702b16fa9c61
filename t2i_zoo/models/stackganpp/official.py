"""The weight files of hanzhanggit/StackGAN-v2: ``netG_210000.pth`` and ``netD0.pth`` to ``netD2.pth``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models import official_pyramid as pyramid
from t2i_zoo.models.official import Official, State, count_keys


def identify(state: State) -> str | None:
    """``"generator"``, ``"discriminator.0"`` and so on, or None for another paper's file."""
    # AttnGAN's and DM-GAN's generators have all names of the first branch too, but attention or a memory in the next.
    if {"h_net1.upsample4.1.weight", "img_net1.img.0.weight"} <= set(state):
        return None if any(".att." in key or ".response_gate." in key for key in state) else "generator"
    if {"img_code_s16.8.weight", "logits.0.weight"} <= set(state):
        return f"discriminator.{pyramid.downs(state)}"
    return None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Branches, sizes and widths from the shapes of the weights; the generator's if it is given."""
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
        branches = count_keys(state, "img_net{}.img.0.weight")
        found["generator_width"] = state["img_net1.img.0.weight"].shape[1]
        found |= pyramid.generator_options(state, branches, text="ca_net.fc.weight" in state)
        late = count_keys(state, "h_net4.residual.{}.block.0.weight", first=0)
        if branches > 3 and late != found["residual_blocks"]:
            found["late_residual_blocks"] = late
    return found | {"image_size": pyramid.image_size(found["branches"])}


def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours, for the generator or one of the discriminators."""
    pyramid.check_first_branch(hparams)
    if path == "generator":
        return pyramid.generator_pairs(hparams, {"jointConv.": "joint."})
    spec = hparams["text_encoder"]
    if (spec["kind"] if isinstance(spec, dict) else spec) == "none":
        heads = {"logits.0.": "unconditional."}
    else:
        heads = {"jointConv.": "joint.", "logits.0.": "conditional.", "uncond_logits.0.": "unconditional."}
    return pyramid.discriminator_pairs(int(path.rpartition(".")[2]), heads)


def files(hparams: Mapping[str, Any]) -> dict[str, str]:
    """As the authors name them.

    Raises:
        T2IError: for a fifth branch, which overwrites the fourth in the authors' code, or for a fourth of other depth.
    """
    late = hparams.get("late_residual_blocks")
    late = hparams["residual_blocks"] if late is None else late
    if hparams["branches"] > 3 and late != 1:
        raise T2IError(
            f"found a model with {late} residual blocks in its fourth branch, expected 1 as in the authors' code: "
            "train one with late_residual_blocks 1"
        )
    return pyramid.files(hparams, "netG_0.pth", 4)


OFFICIAL = {"stackgan_v2": Official("stackganpp", identify, options, prefixes, files, module_prefix=True)}
