"""Every GAN of the zoo becomes a graph for other programs, which draws what ``generate`` draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from t2i_zoo.errors import T2IError
from t2i_zoo.models.graphs import inputs, write_graph
from t2i_zoo.text import TextFeatures

SIZES = ((1, 2), (5, 6))  #: samples and words, both unlike those of the trace


@pytest.fixture
def model(build: Any) -> Any:
    model = build().eval()
    with torch.no_grad():
        for tensor in model.generator_ema.state_dict().values():  # unlike the live weights
            if tensor.is_floating_point():
                tensor.mul_(0.9).add_(0.01)
        if getattr(model, "context_sentence", None) is not None:  # as after training
            model.context_sentence.normal_()
    return model


def drawn(model: Any, example: dict[str, torch.Tensor]) -> torch.Tensor:
    text = TextFeatures(example["sentence"], example.get("words"), example.get("mask"))
    return model.generate(text, noise=example["noise"])


def test_a_program_of_torch_export(model: Any, tmp_path: Path) -> None:
    path, extra = tmp_path / "small.pt2", {"t2i_zoo": ""}
    wanted = [(example := inputs(model, *size), drawn(model, example)) for size in SIZES]
    write_graph(model, "torch-export", path)
    program = torch.export.load(path, extra_files=extra).module()
    for example, images in wanted:
        torch.testing.assert_close(program(**example), images, rtol=0, atol=1e-4)
    about = json.loads(extra["t2i_zoo"])
    assert (about["model"], about["noise"]["dim"]) == (type(model).__name__, model.total_noise_dim)
    assert about["noise"]["kind"] == ("normal" if model.noise_is_normal else "uniform in [-1, 1]")


def test_onnx(model: Any, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 't2i-zoo[onnx]'")
    path = tmp_path / "small.onnx"
    wanted = [(example := inputs(model, *size), drawn(model, example)) for size in SIZES]
    write_graph(model, "onnx", path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    for example, images in wanted:
        (found,) = session.run(None, {name: example[name].numpy() for name in names})
        torch.testing.assert_close(torch.from_numpy(found), images, rtol=0, atol=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["t2i_zoo"])
    assert about["image_size"] == model.hparams["image_size"]
    assert [file.name for file in tmp_path.iterdir()] == ["small.onnx"]


def test_onnx_without_its_libraries(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name != "gancls":
        pytest.skip("one model is enough")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(T2IError, match=r"found no onnxscript, which writes ONNX: pip install 't2i-zoo\[onnx\]', or"):
        write_graph(model, "onnx", tmp_path / "small.onnx")
    assert not list(tmp_path.iterdir())
