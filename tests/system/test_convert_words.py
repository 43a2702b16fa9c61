"""t2i-zoo convert of models that attend to words: masks, text encoder, number of words, and unusual shapes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from t2i_zoo.__main__ import main
from t2i_zoo.commands.official_states import find_format, to_official
from t2i_zoo.legacy import AttnGANCaptions
from t2i_zoo.legacy.captions import write_attngan_captions
from t2i_zoo.models import load_model, model_class
from t2i_zoo.models.official import Official
from t2i_zoo.text.rnn import RNNNetwork

SCRIPT = Path(__file__).parents[2] / "docs" / "check_attngan.py"
WORDS = ["a", "bird", "with", "red", "wings", "and", "long", "tail"]
#: of unequal length, unsorted, one with an unknown word
CAPTIONS = ["a bird", "a red bird with long wings and a tail", "red zebra", "a bird with red wings"]
DIM = 6  # below the 16 of hashed words
TINY = {
    **{"image_size": 128, "branches": 2, "condition_dim": 3, "noise_dim": 5, "residual_blocks": 1},
    **{"generator_width": 4, "discriminator_width": 2, "text_encoder": {"kind": "hashing", "dim": DIM}},
}


@pytest.fixture(scope="module")
def script() -> Any:
    """The page's script, which holds a second implementation of the generator."""
    spec = importlib.util.spec_from_file_location("check_attngan", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_files(name: str, folder: Path, **options: Any) -> list[Path]:
    """The files of an untrained tiny model whose numbers are all different."""
    model = filled(name, **options)
    folder.mkdir()
    files = to_official(name, model.hparams, model.state_dict())
    for file, state in files.items():
        torch.save(state, folder / file)
    return [folder / file for file in files]


def filled(name: str, **options: Any) -> Any:
    torch.manual_seed(3)
    unused = {"stream_weight": 0.0} if name == "mirrorgan" else {"damsm_weight": 0.0}
    model: Any = model_class(find_format(name).model)(**{**TINY, **unused, **options})
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_().mul_(0.3).add_(1.0 if key.endswith("running_var") else 0.0)
            if key.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return model


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A text encoder and its words as published, and converted."""
    folder = tmp_path_factory.mktemp("damsm")
    torch.manual_seed(1)
    network = RNNNetwork(1 + len(WORDS), 5, DIM)
    for tensor in network.state_dict().values():
        tensor.normal_()
    torch.save(network.state_dict(), folder / "text_encoder200.pth")
    ixtoword = dict(enumerate(["<end>", *WORDS]))
    table = AttnGANCaptions([], [], ixtoword, {word: number for number, word in ixtoword.items()})
    write_attngan_captions(folder / "captions.pickle", table)
    files = [folder / "text_encoder200.pth", folder / "captions.pickle"]
    out = folder / "damsm.safetensors"
    assert main(["convert", "--from", "attngan_damsm", *map(str, files), "--out", str(out)]) == 0
    return {"text": files[0], "words": files[1], "converted": out}


def convert(name: str, files: list[Path], out: Path, *more: str) -> Any:
    assert main(["convert", "--from", name, *map(str, files), "--out", str(out), *more]) == 0
    return load_model(out)


# Masks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["legacy", "mended"])
def test_a_converted_generator_draws_what_the_authors_files_say(
    mask: str, encoder: dict[str, Path], script: Any, tmp_path: Path, capsys: Any
) -> None:
    files = official_files("attngan", tmp_path / "official")
    flags = ["--legacy_mask"] if mask == "legacy" else []
    out = tmp_path / "own.safetensors"
    model = convert("attngan", files, out, "--damsm", str(encoder["converted"]), *flags)
    said = capsys.readouterr().err
    assert ("--legacy-mask draws as their code does" in said) == (mask == "mended")
    assert "hashed words" not in said
    text, weights = torch.load(encoder["text"]), torch.load(files[0])
    rows = [[1 + WORDS.index(word) for word in caption.split() if word in WORDS] for caption in CAPTIONS]
    noise = model.noise(4, torch.Generator().manual_seed(2))
    drawn = model.sampled(CAPTIONS, noise=noise)
    with torch.no_grad():
        expected = script.draw(weights, [script.read_caption(text, row) for row in rows], noise, mask)
    assert [image.shape[-1] for image in expected] == [64, 128]
    for image, wanted in zip(drawn.images, expected, strict=True):
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-5)
    alone = torch.cat([model.generate([CAPTIONS[i]], noise=noise[i : i + 1]) for i in range(4)])
    assert torch.allclose(alone, drawn.images[-1], atol=1e-5) == (mask == "mended")


@pytest.mark.parametrize("name", ["mirrorgan", "dmgan"])
@pytest.mark.parametrize("flag", [False, True])
def test_the_mask_of_other_papers(name: str, flag: bool, encoder: dict[str, Path], tmp_path: Path) -> None:
    files = official_files(name, tmp_path / "official")
    flags = ["--damsm", str(encoder["converted"]), *(["--legacy-mask"] if flag else [])]
    model = convert(name, files, tmp_path / "own.safetensors", *flags)
    assert model.hparams["legacy_mask"] is flag
    noise = model.noise(4, torch.Generator().manual_seed(2))
    drawn = model.generate(CAPTIONS, noise=noise)
    alone = torch.cat([model.generate([CAPTIONS[i]], noise=noise[i : i + 1]) for i in range(4)])
    assert torch.allclose(alone, drawn, atol=1e-5) == (not flag)
    source = filled(name, legacy_mask=flag)
    torch.testing.assert_close(source.generate(model.encode(CAPTIONS), noise=noise), drawn)


def test_the_script_of_the_page(
    encoder: dict[str, Path], script: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = official_files("attngan", tmp_path / "official")
    (tmp_path / "captions.txt").write_text("\n".join([*CAPTIONS, "", "?!"]), "utf-8")
    words = ["--text-encoder", encoder["text"], "--words", encoder["words"], "--captions", tmp_path / "captions.txt"]
    script.main([*map(str, [*words, "--out", tmp_path / "out", "--generator", *files])])
    said = capsys.readouterr().out
    assert said.count("git blob") == len(files) + 2
    assert "legacy: largest difference" in said
    assert (tmp_path / "out" / "captions.png").is_file()
    state = torch.load(files[0])
    state["h_net2.residual.0.block.0.weight"].neg_()
    other = {files[0]: state, encoder["text"]: torch.load(encoder["text"])}  # of what the twin alone reads
    monkeypatch.setattr(script, "read_official", lambda path: {str(path): other[path]})
    with pytest.raises(SystemExit, match="legacy: the images differ by"):
        script.main([*map(str, [*words, "--out", tmp_path / "out", "--generator", *files])])


def test_the_numbers_of_the_script_are_those_of_the_authors_classes(script: Any) -> None:
    with torch.device("meta"):
        model: Any = model_class("attngan")(text_encoder={"kind": "hashing", "dim": 256}, damsm_weight=0.0)
    official: Official = find_format("attngan")
    own = {key: x for key, x in model.state_dict().items() if key.startswith("generator.")}
    names = official.names("generator", model.hparams, own)
    counters = {key for key in names if key.endswith("num_batches_tracked")}
    assert {key: tuple(own[names[key]].shape) for key in names.keys() - counters} == script.shapes_of_birds()
    from golden import recipe

    shapes = {"a.weight": (3,), "a.running_var": (4,), "b.weight": (2, 3, 1, 1), "b.bias": (2,)}
    for key, value in script.recipe(shapes).items():
        assert torch.equal(value, recipe(key, shapes[key]))


# The text encoder ---------------------------------------------------------------------------------------------------


ONE_BRANCH = {"branches": 1, "image_size": 64}


@pytest.mark.parametrize(("name", "options", "count"), [
    ("attngan", {**ONE_BRANCH, "generator_width": 32}, 25), ("attngan", {**ONE_BRANCH, "generator_width": 48}, 20),
    ("dmgan", {"residual_blocks": 2}, 25), ("dmgan", {"residual_blocks": 3}, 20),
])  # fmt: skip
def test_words_of_the_authors_evaluation(
    name: str, options: dict[str, Any], count: int, encoder: dict[str, Path], tmp_path: Path
) -> None:
    files = official_files(name, tmp_path / "official", **options)
    assert main(["convert", "--from", name, str(files[0]), "--out", str(tmp_path / "a.safetensors")]) == 0
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        spec = json.loads(file.metadata()["t2i_zoo"])["hparams"]["text_encoder"]
    assert spec == {"kind": "hashing", "dim": DIM, "max_words": count}
    model = convert(name, files, tmp_path / "b.safetensors", "--damsm", str(encoder["converted"]))
    assert model.text_encoder.max_words == count
    long = " ".join(["red"] * 30)
    assert model.encode([long]).mask.sum() == count


def test_only_files_of_the_format_are_in_the_way(encoder: dict[str, Path], tmp_path: Path, mistake: Any) -> None:
    words = ["convert", "--to", "attngan_damsm", str(encoder["converted"]), "--out", str(tmp_path)]
    (tmp_path / "other.pth").write_text("mine")
    for name in ("captions.pickle", "text_encoder.pth"):
        own = tmp_path / name
        own.write_text("mine")
        assert mistake(*words).startswith(f"found {own} already, expected a new name")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["other.pth", name])
        own.unlink()
    assert main(words) == 0
    assert (tmp_path / "other.pth").read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0


def test_a_converted_file_reads_sentences_by_itself(encoder: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    moved = encoder["converted"].rename(tmp_path / "moved.safetensors")
    out = tmp_path / "own.safetensors"
    model = convert("attngan", official_files("attngan", tmp_path / "official"), out, "--damsm", str(moved))
    moved.rename(encoder["converted"])  # the file is not needed again
    assert model.unknown_words("a zebra") == ["zebra"]
    place = ["--n", "1", "--out", str(tmp_path / "grid.png")]
    assert main(["sample", "--ckpt", str(out), "--text", CAPTIONS[1], *place]) == 0
    assert main(["convert", "--to", "attngan", str(out), "--out", str(tmp_path / "again")]) == 0
    for file in (tmp_path / "official").iterdir():
        first, second = torch.load(file), torch.load(tmp_path / "again" / file.name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_mistakes(encoder: dict[str, Path], tmp_path: Path, mistake: Any) -> None:
    out = str(tmp_path / "x.safetensors")
    files = [
        str(path) for path in official_files("attngan", tmp_path / "a", text_encoder={"kind": "hashing", "dim": 8})
    ]
    damsm = str(encoder["converted"])
    said = mistake("convert", "--from", "attngan", *files, "--out", out, "--damsm", damsm)
    assert "with sentences of dimension 6, expected 8, which the networks read" in said
    own = ["convert", "--from", "attngan_damsm", str(encoder["text"]), str(encoder["words"]), "--out", out]
    said = mistake(*own, "--legacy-mask")
    assert said == "found --legacy-mask, and the networks of attngan_damsm do not attend to words: leave it out"
    assert mistake(*own, "--damsm", damsm).endswith("the networks of attngan_damsm read no sentences: leave it out")
    for more in (["--legacy-mask"], ["--damsm", damsm]):
        said = mistake("convert", "--to", "attngan", "a.ckpt", "--out", "x", *more)
        assert said == "found --legacy-mask or --damsm beside --to: they belong to --from"
    assert not Path(out).exists()
