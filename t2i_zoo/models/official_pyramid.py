"""The weight files of StackGAN-v2 and of AttnGAN, MirrorGAN and DM-GAN, built on it: what they have in common.

A saved generator holds the moving average of the parameters beside the batch statistics of the live generator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.official import Official, State, count_keys

BASE = 64  #: side of the first branch, for which the authors' networks are written
_CONTEXT = "h_net2.att.conv_context.weight"
_FIRST, _LAST = "img_net1.img.0.weight", "img_net.img.0.weight"  #: of all images, or of the last one only
_ALONE = "UNCOND_DNET.outlogits.0.weight"


def generator_options(state: State, branches: int, *, text: bool) -> dict[str, Any]:
    """Sizes and dimensions of a generator from the shapes of its weights; ``text`` says whether it has a condition."""
    found = {"branches": branches, "noise_dim": state["h_net1.fc.0.weight"].shape[1], "text_dim": 0}
    if text:
        outputs, found["text_dim"] = state["ca_net.fc.weight"].shape
        found["condition_dim"] = outputs // 4  # mean and log-variance, each with its gate
        found["noise_dim"] -= found["condition_dim"]
    if branches > 1:
        found["residual_blocks"] = count_keys(state, "h_net2.residual.{}.block.0.weight", first=0)
    return found


def image_size(branches: int) -> int:
    """Side of the largest images of an official model."""
    return int(BASE * 2 ** (branches - 1))


def downs(state: State) -> int:
    """How many halvings more than at 64 px an official discriminator has, which is its position among them."""
    return sum(f"img_code_s{32 * 2**i}.0.weight" in state for i in range(4))


def generator_pairs(hparams: Mapping[str, Any], stage: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of official prefix and ours for a generator.

    Args:
        hparams: of the model.
        stage: the paper's own parts of a further stage, official prefix to ours.
    """
    branches = hparams["branches"]
    pairs = {"ca_net.": "augment.", "h_net1.fc.": "first.fc."}
    pairs |= {f"h_net1.upsample{i + 1}.": f"first.up.{i}." for i in range(4)}
    if hparams.get("last_only"):
        pairs["img_net.img."] = "pictures.0."
    else:
        pairs |= {f"img_net{i + 1}.img.": f"pictures.{i}." for i in range(branches)}
    for theirs, ours in {**stage, "residual.": "residual.", "upsample.": "up."}.items():
        pairs |= {f"h_net{i + 2}.{theirs}": f"stages.{i}.{ours}" for i in range(branches - 1)}
    return list(pairs.items())


def discriminator_pairs(halvings: int, heads: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of official prefix and ours for a discriminator with ``halvings`` more than at 64 px; heads by prefix."""
    pairs = {"img_code_s16.": "trunk.0."}
    pairs |= {f"img_code_s{16 * 2**i}.": f"trunk.{i}." for i in range(1, halvings + 1)}
    pairs |= {f"img_code_s{16 * 2**halvings}_{i}.": f"trunk.{halvings + i}." for i in range(1, halvings + 1)}
    return list((pairs | {theirs: f"heads.{ours}" for theirs, ours in heads.items()}).items())


def check_first_branch(hparams: Mapping[str, Any]) -> None:
    """Raise where the first branch has another size than the authors' code, whose networks are written for it."""
    if (first := hparams["image_size"] >> (hparams["branches"] - 1)) != BASE:
        raise T2IError(
            f"found a model whose first branch has {first} px, expected {BASE} px as in the authors' files: train one "
            "with image_size 256 and 3 branches, for example"
        )


def files(hparams: Mapping[str, Any], generator: str, most: int) -> dict[str, str]:
    """Official file names; the authors read the number after the last underscore as that of the iteration or epoch.

    Raises:
        T2IError: for a model of more than ``most`` branches, for which the authors' code has no generator.
    """
    if hparams["branches"] > most:
        raise T2IError(f"found a model of {hparams['branches']} branches, expected at most {most} as in their code")
    count = 1 if hparams.get("last_only") else hparams["branches"]
    return {"generator": generator} | {f"discriminator.{i}": f"netD{i}.pth" for i in range(count)}


# AttnGAN and MirrorGAN ----------------------------------------------------------------------------------------------

_COCO_WIDTH = 48  #: ``GF_DIM`` of the authors' COCO configs, by which their ``WORDS_NUM`` in evaluation is told


def attentive(model: str, stage: Mapping[str, str], *, redescribing: bool) -> Official:
    """The format of AttnGAN or MirrorGAN, whose networks differ only in the attention.

    Args:
        model: its name in ``MODELS``.
        stage: the paper's own parts of a further stage, official prefix to ours.
        redescribing: whether it is MirrorGAN, whose generators have one layer more, by which they are told apart.
    """
    # A converted model is no run, so its losses look at no DAMSM and no STREAM.
    unused = {"damsm_weight": 0.0} | ({"stream_weight": 0.0} if redescribing else {})

    def identify(state: State) -> str | None:
        if _CONTEXT in state:
            return "generator" if ("h_net2.att.linear.weight" in state) == redescribing else None
        if "h_net1.upsample4.1.weight" in state and "h_net2.upsample.1.weight" not in state:
            return "generator"  # of one branch, which has no attention and is the same in all papers
        if {"img_code_s16.8.weight", "COND_DNET.outlogits.0.weight"} <= set(state):
            return f"discriminator.{downs(state) if _ALONE in state else 0}"  # the DCGAN variant has only one
        return None

    def options(networks: Mapping[str, State]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, state in networks.items():
            if name != "generator":
                found["branches"] = max(downs(state) + 1, found.get("branches", 1))
                found["last_only"] = _ALONE not in state
                found["discriminator_width"] = state["img_code_s16.0.weight"].shape[0]
                outputs, inputs = state["COND_DNET.jointConv.0.weight"].shape[:2]
                found["text_dim"] = inputs - outputs
        if state := networks.get("generator", {}):
            branches = 1 + count_keys(state, "h_net{}.att.conv_context.weight", first=2)
            last_only = _LAST in state
            found |= {"last_only": last_only, "generator_width": state[_LAST if last_only else _FIRST].shape[1]}
            found |= generator_options(state, branches, text=True)
            found["max_words"] = 20 if found["generator_width"] == _COCO_WIDTH else 25
        return found | {"image_size": image_size(found["branches"]), **unused}

    def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        check_first_branch(hparams)
        if path == "generator":
            return generator_pairs(hparams, stage)
        heads = {"COND_DNET.jointConv.": "joint.", "COND_DNET.outlogits.0.": "conditional."}
        if hparams["last_only"]:
            return discriminator_pairs(hparams["branches"] - 1, heads)
        heads["UNCOND_DNET.outlogits.0."] = "unconditional."
        return discriminator_pairs(int(path.rpartition(".")[2]), heads)

    def named(hparams: Mapping[str, Any]) -> dict[str, str]:
        return files(hparams, "netG_epoch_0.pth", 3)

    return Official(model, identify, options, prefixes, named, loose=("text_encoder", *unused))
