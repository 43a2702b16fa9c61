"""A generator as a graph for other programs: ONNX, or a program of ``torch.export``.

The graph reads noise and features of sentences, and gives images; captions are encoded outside of it. What a reader
must know is in the file, as one JSON under the key ``t2i_zoo``.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.text import TextFeatures
from t2i_zoo.version import __version__

SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}


class Graph(nn.Module):
    """Noise (B, Z), sentences (B, D) and, where the model reads words, words (B, T, W) and mask (B, T) to images.

    Args:
        model: whose averaged generator draws.
    """

    def __init__(self, model: Drawing) -> None:
        super().__init__()
        self.generator = model.generator_ema
        self._draw = model.draw
        if (ask := getattr(model, "has_context", None)) is not None:  # decided now: a graph has no branches
            known = ask()
            model.has_context = lambda: known  # type: ignore[attr-defined]

    def forward(
        self, noise: Tensor, sentence: Tensor, words: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1]."""
        return self._draw(self.generator, noise, TextFeatures(sentence, words, mask)).images[-1]


def inputs(model: Drawing, count: int = 2, length: int = 3) -> dict[str, Tensor]:
    """An example of what the graph of a model reads, by name: ``count`` samples and ``length`` words."""
    found = {"noise": model.noise(count), "sentence": torch.randn(count, model.text_encoder.dim)}
    if model.needs.words:
        found["words"] = torch.randn(count, length, model.text_encoder.word_dim)
        found["mask"] = torch.arange(length) < torch.arange(count)[:, None] + length - 1
    return found


def about(model: Drawing) -> dict[str, Any]:
    """What a program that runs the graph must know, as plain values."""
    spec = model.hparams["text_encoder"]
    return {
        "version": __version__,
        "model": type(model).__name__,
        "image_size": model.hparams["image_size"],
        "range": [-1, 1],
        "noise": {"dim": model.total_noise_dim, "kind": "normal" if model.noise_is_normal else "uniform in [-1, 1]"},
        "text_encoder": {k: v for k, v in spec.items() if k != "assets"} if isinstance(spec, dict) else spec,
        "sentence_dim": model.text_encoder.dim,
        "word_dim": model.text_encoder.word_dim if model.needs.words else 0,
        "vocabulary": sorted(model.vocabulary),
    }


def write_graph(model: Drawing, kind: str, path: Path) -> None:
    """Write the averaged generator of a model on the CPU, for any number of samples and words.

    Args:
        model: in eval mode.
        kind: ``onnx`` or ``torch-export``.
        path: of the file.

    Raises:
        T2IError: if the libraries for ONNX are missing.
    """
    example = inputs(model)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = {name: {0: batch, 1: length} if name in ("words", "mask") else {0: batch} for name in example}
    header, graph = json.dumps(about(model)), Graph(model).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        program = torch.export.export(graph, (), example, dynamic_shapes=shapes)
        with replacing(path) as partial:
            if kind == "onnx":
                _write_onnx(program, [*example], header, partial)
            else:
                torch.export.save(program, partial, extra_files={"t2i_zoo": header})


def _write_onnx(program: torch.export.ExportedProgram, names: list[str], header: str, path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise T2IError(
            f"found no {error.name}, which writes ONNX: pip install 't2i-zoo[onnx]', or export --to torch-export"
        ) from error
    found: Any = torch.onnx.export(
        program, input_names=names, output_names=["images"], dynamo=True, verbose=False, external_data=False
    )
    found.model.metadata_props["t2i_zoo"] = header
    found.save(path, external_data=False)


def quantize(path: Path) -> None:
    """Store the weights of an ONNX file as 8-bit integers, and quantise what they are multiplied with as it comes.

    For CPUs: the file is a quarter as large, and images are coarser.

    Raises:
        T2IError: without onnxruntime, which does it.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise T2IError("found no onnxruntime, which quantises: pip install 't2i-zoo[onnx]'") from None
    with replacing(path) as partial:
        logging.disable(logging.WARNING)  # it recommends a preparation that changes nothing here
        try:
            # unsigned: CPUs have a convolution of 8-bit integers for unsigned weights alone
            quantize_dynamic(path, partial, weight_type=QuantType.QUInt8)
        finally:
            logging.disable(logging.NOTSET)
