"""The weight files of MinfengZhu/DM-GAN: ``bird_DMGAN.pth`` or ``netG_epoch_N.pth``, and its discriminators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.models.official import Official, State, count_keys
from t2i_zoo.models.official_pyramid import (
    check_first_branch,
    discriminator_pairs,
    files,
    generator_options,
    generator_pairs,
    image_size,
)

STAGE = {
    "A.": "memory.gate_word.",
    "B.": "memory.gate_image.",
    "M_w.0.": "memory.write_word.",
    "M_r.0.": "memory.write_image.",
    "key.0.": "memory.key.",
    "value.0.": "memory.value.",
    "response_gate.0.": "memory.respond.",
}
#: of a convolution with spectral norm, below its place in a block
SPECTRAL = {
    "bias": "bias",
    "weight_u": "parametrizations.weight.0.u",
    "weight_v": "parametrizations.weight.0.v",
    "weight_bar": "parametrizations.weight.original",
}
_GATE = "h_net2.B.weight"
_FIRST, _JOINT = "img_code_s16.0.module.weight_bar", "COND_DNET.jointConv.0.module.weight_bar"


def _halvings(state: State) -> int:
    """How many halvings more than at 64 px a discriminator has, which is its position among them."""
    return sum(f"img_code_s{32 * 2**i}.0.module.weight_bar" in state for i in range(4))


def identify(state: State) -> str | None:
    """The network of a state dict."""
    if _GATE in state:
        return "generator"
    if "h_net1.upsample4.1.weight" in state and "h_net2.upsample.1.weight" not in state:
        return "generator"  # of one branch, which has no memory and is the same in all papers
    return f"discriminator.{_halvings(state)}" if {_FIRST, _JOINT} <= set(state) else None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Widths, sizes and dimensions from the shapes of the weights."""
    found: dict[str, Any] = {"last_only": False}
    for name, state in networks.items():
        if name != "generator":
            found["branches"] = max(_halvings(state) + 1, found.get("branches", 1))
            found["discriminator_width"] = state[_FIRST].shape[0]
            outputs, inputs = state[_JOINT].shape[:2]
            found["text_dim"] = inputs - outputs
    if state := networks.get("generator", {}):
        found["generator_width"] = state["img_net1.img.0.weight"].shape[1]
        found |= generator_options(state, 1 + count_keys(state, "h_net{}.B.weight", first=2), text=True)
        # Their WORDS_NUM in evaluation, on COCO and on birds: the widths are the same.
        found["max_words"] = 20 if found.get("residual_blocks") == 3 else 25
    # A converted model is no run, so its loss looks at no DAMSM.
    return found | {"image_size": image_size(found["branches"]), "damsm_weight": 0.0}


def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours."""
    check_first_branch(hparams)
    if path == "generator":
        return generator_pairs(hparams, STAGE)
    blocks = discriminator_pairs(int(path.rpartition(".")[2]), {"COND_DNET.jointConv.": "joint."})
    logits = {"conditional.": "COND_DNET.outlogits.0.", "unconditional.": "UNCOND_DNET.outlogits.0."}
    return [
        *((theirs, f"heads.{ours}") for ours, theirs in logits.items()),
        *(
            (f"{theirs}{place}.module.{one}", f"{ours}{place}.{other}")
            for theirs, ours in blocks
            for place in (0, 2, 4, 6)
            for one, other in SPECTRAL.items()
        ),
    ]


OFFICIAL = {
    "dmgan": Official(
        "dmgan",
        identify,
        options,
        prefixes,
        lambda hparams: files(hparams, "netG_epoch_0.pth", 3),
        loose=("text_encoder", "damsm_weight"),
    )
}
