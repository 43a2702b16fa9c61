"""The published DAMSM files, with their words, to ours and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from t2i_zoo.__main__ import main
from t2i_zoo.commands.convert import convert_from, convert_to
from t2i_zoo.errors import T2IError
from t2i_zoo.legacy import AttnGANCaptions, read_attngan_captions
from t2i_zoo.legacy.captions import write_attngan_captions
from t2i_zoo.models import load_model
from t2i_zoo.models.damsm import DAMSM
from t2i_zoo.text import build_text_encoder

WORDS = {0: "<end>", 1: "petals", 2: "red", 3: "a", 4: "flower", 5: "blue", 6: "bird's"}


def write_words(path: Path, words: dict[int, str] = WORDS) -> Path:
    captions = AttnGANCaptions([[3, 2, 4]], [[5, 1]], words, {word: number for number, word in words.items()})
    return write_attngan_captions(path, captions)


@pytest.fixture(scope="module")
def model() -> DAMSM:
    torch.manual_seed(0)
    return DAMSM(backbone_weights=None, dim=8, word_dim=5, vocabulary_size=len(WORDS)).eval()


@pytest.fixture(scope="module")
def files(model: DAMSM, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the authors' code writes: with ``module.`` or without, and of PyTorch 0.3, without counters of batches."""
    folder = tmp_path_factory.mktemp("official")
    text = {f"module.{key}": tensor for key, tensor in model.text_network.state_dict().items()}
    image: dict[str, Tensor] = {}
    for key, tensor in model.image_network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            image[key.removeprefix("backbone.net.")] = tensor
    assert len(image) == 473
    torch.save(text, folder / "text_encoder200.pth")
    torch.save(image, folder / "image_encoder200.pth", _use_new_zipfile_serialization=False)
    words = write_words(folder / "captions.pickle")
    return {
        "text": folder / "text_encoder200.pth",
        "image": folder / "image_encoder200.pth",
        "words": words,
    }


def test_there_and_back_again(model: DAMSM, files: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    words = [str(path) for path in files.values()]
    assert main(["convert", "--from", "attngan_damsm", *words, "--out", str(tmp_path / "damsm.safetensors")]) == 0
    assert "weights of a DAMSM" in capsys.readouterr().out
    found = load_model(tmp_path / "damsm.safetensors")
    assert isinstance(found, DAMSM)
    assert found.known.words == [WORDS[number] for number in range(1, 7)]
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], torch.zeros(()) if name.endswith("_tracked") else tensor), name
    assert found.hparams["ascii_words"] is True
    assert found.known.known("re\u00e9d \ufb02flower") == ["red", "flower"]
    captions = ["a red flower", "blue petals"]
    model.know([WORDS[number] for number in range(1, 7)])
    torch.testing.assert_close(found.sentence_codes(captions), model.sentence_codes(captions))
    encoder = build_text_encoder({"kind": "rnn", "path": str(tmp_path / "damsm.safetensors")})
    torch.testing.assert_close(encoder.encode(captions).sentence, model.sentence_codes(captions))
    convert_to("attngan_damsm", tmp_path / "damsm.safetensors", tmp_path / "back", module_prefix=True)
    assert read_attngan_captions(tmp_path / "back" / "captions.pickle") == (
        [],
        [],
        WORDS,
        {v: k for k, v in WORDS.items()},
    )
    for name, file in {"text": "text_encoder.pth", "image": "image_encoder.pth"}.items():
        theirs = torch.load(files[name], weights_only=True)
        again = torch.load(tmp_path / "back" / file, weights_only=True)
        for key, tensor in theirs.items():
            assert torch.equal(again[f"module.{key.removeprefix('module.')}"], tensor), key


def test_each_file_alone(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "text.safetensors"
    convert_from("attngan_damsm", [files["text"], files["words"]], out)
    assert build_text_encoder({"kind": "rnn", "path": str(out)}).dim == 8
    convert_from("attngan_damsm", [files["image"]], tmp_path / "image.safetensors")
    with pytest.raises(T2IError, match=r"image\.safetensors holds no text encoder of DAMSM"):
        build_text_encoder({"kind": "rnn", "path": str(tmp_path / "image.safetensors")})


def test_words_that_do_not_belong(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    with pytest.raises(T2IError, match=r"found 0 files of words \(captions\.pickle\), expected one beside"):
        convert_from("attngan_damsm", [files["text"]], out)
    with pytest.raises(T2IError, match=r"found 1 files of words \(captions\.pickle\), expected none beside"):
        convert_from("attngan_damsm", [files["image"], files["words"]], out)
    other = write_words(tmp_path / "captions.pickle", {**WORDS, 7: "bill"})
    with pytest.raises(T2IError, match=r"captions\.pickle numbers 8 words and the word table has 7 rows"):
        convert_from("attngan_damsm", [files["text"], other], out)
    assert not out.exists()


def test_another_backbone_has_no_official_file(tmp_path: Path, tiny_widths: Any) -> None:
    model = DAMSM(**tiny_widths("damsm"))
    checkpoint: dict[str, Any] = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(T2IError, match=r"found torchvision:shufflenet_v2_x0_5 with regions of stage3, expected"):
        convert_to("attngan_damsm", tmp_path / "a.ckpt", tmp_path / "out")


def test_the_file_of_words_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_words(tmp_path / "captions.pickle")
    before = path.read_bytes()
    captions = read_attngan_captions(path)
    assert captions.train == [[3, 2, 4]]
    with pytest.raises(Exception, match="pickle"):
        write_attngan_captions(path, captions._replace(train=[[lambda: 0]]))  # type: ignore[list-item]
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["captions.pickle"]
