"""The key maps of official weights, at the published widths: every weight has one place, shapes tell the options."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from t2i_zoo.commands.official_states import FORMATS, find_format, to_official, to_ours
from t2i_zoo.errors import T2IError
from t2i_zoo.models import model_class
from t2i_zoo.models.official import Official, Weights

COCO = {"generator_width": 192, "discriminator_width": 96}
WORDS: dict[str, Any] = {"text_encoder": {"kind": "hashing", "dim": 256}}
NO_TEXT = {"text_encoder": "none", "branches": 3}

#: format, options of a published model, and of each of its networks the parameters and the keys of its state dict
PUBLISHED: list[tuple[str, dict[str, Any], list[tuple[int, int]]]] = [
    (
        "aelnouby_gancls",
        {"architecture": "dcgan", "generator_width": 64, "discriminator_width": 64},
        [(4_756_736, 32), (2_899_072, 27)],
    ),
    ("stackgan_v1", {"stage": 1, **COCO}, [(20_020_832, 33), (12_407_425, 27)]),
    (
        "stackgan_v1",
        {"stage": 2, "image_size": 256, "residual_blocks": 2, **COCO},
        [(57_151_312, 103), (159_889_538, 53)],
    ),
    ("stackgan_v1", {"stage": 2, "image_size": 256}, [(36_591_328, 127), (71_269_122, 53)]),
    (
        "stackgan_v2",
        {"branches": 3},
        [(21_239_696, 107), (5_723_906, 29), (18_834_178, 41), (71_269_122, 53)],
    ),
    (
        "attngan_damsm",
        {"vocabulary_size": 5450, "backbone_weights": None},
        [(2_075_320, 9), (22_506_720, 567)],
    ),
    (
        "attngan",
        {**WORDS, "damsm_weight": 0.0},
        [(7_084_592, 97), (6_313_730, 29), (19_424_002, 41), (71_858_946, 53)],
    ),
    ("attngan", {**WORDS, "last_only": True, "residual_blocks": 0}, [(6_638_960, 47), (71_850_753, 51)]),
    (
        "mirrorgan",
        {**WORDS, "stream_weight": 0.0},
        [(7_105_392, 105), (6_313_730, 29), (19_424_002, 41), (71_858_946, 53)],
    ),
    (
        "dmgan",
        {**WORDS, "damsm_weight": 0.0},
        [(21_449_042, 119), (1_887_218, 24), (5_174_258, 32), (18_301_938, 40)],
    ),
    ("dfgan", WORDS, [(9_744_131, 226), (6_619_206, 32), (295_936, 2)]),
    ("dfgan_preprint", {**WORDS, "variant": "preprint"}, [(12_240_010, 269), (20_170_566, 34)]),
    ("mirrorgan_stream", {"vocabulary_size": 5450, "backbone_weights": None}, [(58_668_864, 937), (5_768_010, 7)]),
    ("stackgan_v2", NO_TEXT, [(16_472_208, 105), (2_765_569, 21), (15_875_841, 33), (68_310_785, 45)]),
]


def blueprint(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Hyperparameters and state dict, without memory behind it."""
    with torch.device("meta"):
        model = model_class(find_format(name).model)(**options)
    return dict(model.hparams), model.state_dict()


def parameters(state: dict[str, Tensor]) -> int:
    return sum(t.numel() for key, t in state.items() if not key.endswith(("running_mean", "running_var", "_tracked")))


def test_each_format_is_described_where_it_is_listed() -> None:
    for name, module in FORMATS.items():
        assert name in importlib.import_module(module).OFFICIAL
    assert {name for name, _, _ in PUBLISHED} == set(FORMATS)


@pytest.mark.parametrize(("name", "options", "sizes"), PUBLISHED)
def test_every_weight_has_one_place(name: str, options: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    hparams, state = blueprint(name, options)
    files = to_official(name, hparams, state)
    assert [(parameters(found), len(found)) for found in files.values()] == sizes
    read, again = to_ours(name, files)
    assert {key: t.shape for key, t in again.items()} == {
        key: t.shape for key, t in state.items() if not key.startswith("generator_ema.")
    }
    assert {key: t.shape for key, t in blueprint(name, read)[1].items()} == {k: t.shape for k, t in state.items()}


@pytest.mark.parametrize(("name", "options", "sizes"), PUBLISHED)
def test_each_network_is_known_alone(name: str, options: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    official, (hparams, state) = find_format(name), blueprint(name, options)
    paths = list(official.files(hparams))
    for path, (file, found) in zip(paths, to_official(name, hparams, state).items(), strict=True):
        assert official.identify(found) == path
        _, alone = to_ours(name, {file: found})
        assert alone.keys() == {key for key in state if key.startswith(f"{path}.")}


def test_no_format_takes_the_network_of_another() -> None:
    alike = {"attngan": "mirrorgan", "mirrorgan": "attngan"}  # in their discriminators
    for name, options, _ in PUBLISHED:
        files = to_official(name, *blueprint(name, options))
        for other in FORMATS.keys() - {name}:
            taken = [find_format(other).identify(found) for found in files.values()]
            if other == alike.get(name):
                assert taken == [None, *list(find_format(name).files(blueprint(name, options)[0]))[1:]]
            else:
                assert taken == [None] * len(files)


def test_the_fourth_branch_has_one_residual_block() -> None:
    options = {"branches": 4, "image_size": 512, "late_residual_blocks": 1}
    found = to_official("stackgan_v2", *blueprint("stackgan_v2", options))["netG_0.pth"]
    blocks = {stage: sum(f"h_net{stage}.residual.{i}.block.0.weight" in found for i in range(3)) for stage in (2, 3, 4)}
    assert blocks == {2: 2, 3: 2, 4: 1}
    assert found["h_net4.upsample.1.weight"].shape == (16, 16, 3, 3)
    read = to_ours("stackgan_v2", {"netG.pth": found})[0]
    assert (read["residual_blocks"], read["late_residual_blocks"], read["image_size"]) == (2, 1, 512)


def test_a_narrow_generator_has_no_floor_of_channels() -> None:
    """Shapes of the authors' classes for ``GF_DIM`` 4."""
    ends = {1: [(16, 32), (8, 16), (4, 8), (2, 4)], 2: [(8, 16), (4, 8), (2, 4), (1, 2)]}
    for stage, widths in ends.items():
        options = {"stage": stage, "image_size": 64 * 4 ** (stage - 1), "generator_width": 4, "least_channels": 1}
        found = next(iter(to_official("stackgan_v1", *blueprint("stackgan_v1", options)).values()))
        assert [found[f"upsample{i}.1.weight"].shape[:2] for i in range(1, 5)] == widths
        assert to_ours("stackgan_v1", {"netG.pth": found})[0]["least_channels"] == 1


# The description's own checks -----------------------------------------------------------------------------------------


def described(*pairs: tuple[str, str]) -> Official:
    return Official("gancls", lambda state: None, lambda networks: {}, lambda path, hparams: pairs, lambda hparams: {})


def test_a_name_is_its_prefix_exchanged() -> None:
    own = {"generator.project.0.bias": torch.zeros(2), "generator.layers.1.weight": torch.zeros(1)}
    names = described(("text.", "project."), ("netG.", "layers.")).names("generator", {}, own)
    assert names == {"text.0.bias": "generator.project.0.bias", "netG.1.weight": "generator.layers.1.weight"}


def test_what_fits_no_prefix_is_named() -> None:
    with pytest.raises(T2IError, match=r"no place for generator\.layers\.0 of shape \(2, 3\)"):
        described(("a.", "project.")).names("generator", {}, {"generator.layers.0": torch.zeros(2, 3)})


def test_a_description_must_be_unambiguous() -> None:
    own = {"generator.layers.0": torch.zeros(1), "generator.project.0": torch.zeros(1)}
    with pytest.raises(AssertionError, match="is named"):
        described(("a.", "layers."), ("b.", "layers.0"), ("c.", "project.")).names("generator", {}, own)
    with pytest.raises(AssertionError, match="are both named"):
        described(("a.", "layers."), ("a.", "project.")).names("generator", {}, own)


def test_a_key_that_a_description_asks_for() -> None:
    weights = Weights("gen.pth", {"netG.00.weight": torch.zeros(2, 3)})
    with pytest.raises(
        T2IError, match=r"gen\.pth lacks netG\.0\.weight, .*is netG\.00\.weight of shape \(2, 3\) meant"
    ):
        _ = weights["netG.0.weight"]
    assert "netG.0.weight" not in weights
