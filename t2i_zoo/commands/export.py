"""``t2i-zoo export``: the generator of a run as one small file without pickles, and a card that describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from t2i_zoo.commands.pages import FILES, write_page
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing, sha256
from t2i_zoo.metrics.records import FILE, Line, number, read_lines
from t2i_zoo.models import load_model, name_of
from t2i_zoo.models.drawing import Drawing
from t2i_zoo.models.exported import pack, write
from t2i_zoo.models.graphs import SUFFIXES, quantize, write_graph
from t2i_zoo.models.state import model_key
from t2i_zoo.paths import check_new, find_weights
from t2i_zoo.runs import run_of_checkpoint
from t2i_zoo.version import __version__

_PLACES = ("root", "cache_dir", "path", "files", "url")  #: options of data and encoders that belong to one machine
_REAL = Path("runs") / "real" / FILE  #: scores of photographs, as ``evaluate --ckpt real`` writes them
_USE = '```sh\nt2i-zoo sample --ckpt {name} --text "..." --out out.png\n```'
_UNSAID = "Not stated. Write here under which terms data and weights may be passed on, before you share the file."


def export(
    ckpt: str,
    out: str | Path,
    to: Literal["safetensors", "onnx", "torch-export", "web"] = "safetensors",
    int8: bool = False,
    runtime: str | None = None,
    about: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Export the averaged generator of a run as one file, with a card beside it.

    A .safetensors file holds its text encoder too, and is what the other commands read. A graph, ONNX (.onnx) or a
    program of torch.export (.pt2), is for other programs: it reads noise and features of sentences. A web page is a
    folder that any browser draws with, from any file server and without a network.

    Args:
        ckpt: A .ckpt file, or the folder of a run; for a graph also a .safetensors file of a generator, or its name.
        out: The file to write, which ends in .safetensors, .onnx or .pt2. The card of flowers.safetensors is
            flowers.md, that of flowers.onnx is flowers.onnx.md. For the web, the folder.
        to: Format of the file.
        int8: Store the weights of an ONNX file as 8-bit integers, for CPUs.
        runtime: For the web, the folder dist of npm's onnxruntime-web; by default npm is asked for it once.
        about: One line that describes the generator, the first of the card.
        licence: Terms of use of data and weights, for the card.
        overwrite: Replace an existing file and card.

    Returns:
        Path of the file.

    Raises:
        T2IError: where the run is no GAN, cannot be exported, or ``out`` exists.
    """
    path = Path(out).expanduser()
    if path.suffix != (suffix := {"safetensors": ".safetensors", "web": "", **SUFFIXES}[to]):
        expected = f"a file name that ends in {suffix}" if suffix else "a folder"
        other = {".safetensors": "safetensors", **{end: kind for kind, end in SUFFIXES.items()}}.get(path.suffix)
        hint = f": change it, or write --to {other}" if other else ""
        raise T2IError(f"found --out {out}, expected {expected} with --to {to}{hint}")
    if int8 and to != "onnx":
        raise T2IError(f"found --int8 with --to {to}, expected --to onnx: leave it out")
    if runtime and to != "web":
        raise T2IError(f"found --runtime with --to {to}, expected --to web: leave it out")
    page = path if to == "web" else None
    path = path / "generator.onnx" if page else path
    # of a file beside one of another format; a page has a folder of its own
    card = path.with_name(f"{path.name}.md") if to in SUFFIXES else path.with_suffix(".md")
    check_new(*([page / name for name in FILES] if page else [path]), card, overwrite=overwrite)
    source = find_weights(ckpt)
    if source.suffix == ".safetensors" and to == "safetensors":
        raise T2IError(f"{ckpt} is a .safetensors file already, expected a run: copy it, or give a .ckpt file")
    model = load_generator(ckpt, source)
    with _writing(path):
        if to == "safetensors":
            write_weights(model, path)
        elif page:
            write_page(model, page, about or f"{Path(ckpt).stem} in your browser", runtime)
        else:
            write_graph(model, to, path)
            if int8:
                quantize(path)
        precision = "8-bit integers" if int8 else "single precision" if to in SUFFIXES else "half precision"
        text = card_of(source, path, model, about, licence, precision=precision)
        with replacing(card) as partial:
            partial.write_text(text, "utf-8")
    print(f"{path.stat().st_size / 1e6:.2f} MB: {path}\nits card: {card}")
    if page:
        print(f"open it with: python -m http.server --bind 127.0.0.1 --directory {page}")
    return page or path


def load_generator(ckpt: str, source: Path) -> Drawing:
    """The model in the file ``source`` that ``ckpt`` names, which must be one that draws."""
    model = load_model(source)
    if not isinstance(model, Drawing):
        raise T2IError(f"{ckpt} holds a {type(model).__name__}, which draws no images: give a run of a GAN")
    return model


def write_weights(model: Drawing, path: Path) -> None:
    """Write the averaged generator and its text encoder as a .safetensors file."""
    tensors, header = pack(model, name_of(model) or model_key(model))  # type: ignore[arg-type]
    try:
        text = json.dumps(header)
    except TypeError as error:
        raise T2IError(
            f"found an option that is no plain value ({error}): export a model with plain options"
        ) from error
    write(tensors, text, path)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise T2IError(f"cannot write {error.filename or path} ({error.strerror}): give another --out") from error


def card_of(
    source: Path,
    path: Path,
    model: Drawing,
    about: str | None,
    licence: str | None,
    address: str | None = None,
    precision: str = "half precision",
) -> str:
    """The card of a file that was made from ``source``, with what the folder of its run tells; see ``describe``."""
    folder = run_of_checkpoint(source) or source.parent
    config = _read_config(folder / "config.yaml")
    digits = sha256(source)[:16]
    lines = [line for line in read_lines(folder / FILE) if line.get("checkpoint_sha256") == digits]
    scores = [line for line in lines if line["protocol_content"]["ema"]]  # of what is exported
    return describe(path, model, config, scores, about, licence, _card_beside(source), address, precision)


def describe(
    path: Path,
    model: Drawing,
    config: Mapping[str, Any],
    scores: Sequence[Line],
    about: str | None = None,
    licence: str | None = None,
    origin: str | None = None,
    address: str | None = None,
    precision: str = "half precision",
) -> str:
    """The card of an exported file as Markdown: description, data, licence, recipe and scores.

    Args:
        path: of the file.
        model: as it was trained.
        config: of its run; empty if there is none.
        scores: lines of ``metrics.jsonl`` of its checkpoint.
        about: one line that describes it.
        licence: terms of use of data and weights.
        origin: card of the file that it was made from, which has the data, the recipe and the scores.
        address: under which it can be drawn with; by default its name.
        precision: of its weights.
    """
    size, kind, graph = model.hparams["image_size"], type(model).__name__, path.suffix != ".safetensors"
    origins = (origin or "").partition("\n")[0].partition(": ")[2]
    about = about or origins or f"{kind}, {size} px, trained on {_name_of_data(config)}"
    lines = [
        f"# {(address or path.stem).rpartition('/')[2]}: {about}",
        "",
        f"The averaged generator of {'an' if kind.startswith('A') else 'a'} {kind}"
        f"{'' if graph else ' with its text encoder'}, exported by t2i-zoo {__version__}: "
        f"{path.stat().st_size / 1e6:.2f} MB, weights in {precision}, "
        f"images of {size} px.",
        "",
        f"SHA-256 `{sha256(path)}`",
        "",
        *(_graph_use(path, model) if graph else _USE.format(name=address or path.name).splitlines()),
    ]
    terms = ["", "## Licence", "", licence or _UNSAID]
    if origin is not None:
        return "\n".join([*lines, *(terms if licence else ()), "", "The card of what it was made from:", "", origin])
    lines += ["", "## Data", "", *_data(config), *terms]
    lines += ["", "## Recipe", "", *_recipe(model, config)]
    lines += ["", "## Scores", "", *_scores(scores, None if graph else address or path.name, precision)]
    return "\n".join(lines) + "\n"


def _card_beside(source: Path) -> str | None:
    card = source.with_suffix(".md")
    return card.read_text("utf-8") if source.suffix == ".safetensors" and card.is_file() else None


def _graph_use(path: Path, model: Drawing) -> list[str]:
    """What the graph reads, and how to run it."""
    sentence, words = model.text_encoder.dim, model.needs.words
    reads = [f"`noise` (B, {model.total_noise_dim})", f"`sentence` (B, {sentence})"]
    reads += [f"`words` (B, T, {model.text_encoder.word_dim})", "`mask` (B, T) bool, true at words"] if words else []
    names = "noise=noise, sentence=text.sentence" + (", words=text.words, mask=text.mask" if words else "")
    run = {
        ".onnx": [
            "import onnxruntime",
            f'session = onnxruntime.InferenceSession("{path.name}")',
            f"(images,) = session.run(None, {{k: v.numpy() for k, v in dict({names}).items()}})",
        ],
        ".pt2": ["import torch", f'images = torch.export.load("{path.name}").module()({names})'],
    }[path.suffix]
    noise = "standard normal" if model.noise_is_normal else "uniform in [-1, 1]"
    return [
        f"It reads {', '.join(reads)} and gives `images` (B, 3, S, S) in [-1, 1]. The noise is {noise}. Options of the "
        "text encoder, words of the training captions and more are in the file's metadata `t2i_zoo`.",
        "",
        "```python",
        "from t2i_zoo import load_model",
        "",
        'model = load_model("...")  # what this file was made from, for its text encoder',
        'noise, text = model.noise(1), model.encode(["..."])',
        *run,
        "```",
    ]


def _name_of_data(config: Mapping[str, Any]) -> str:
    source = (config.get("data") or {}).get("source")
    found = source.get("class_path") if isinstance(source, Mapping) else source
    return str(found).rpartition(".")[2] if found else "data that no config names"


def _data(config: Mapping[str, Any]) -> list[str]:
    data = dict(config.get("data") or {})
    if not data:
        return ["The run has no config.yaml that names its data. Write here what it was trained on."]
    source = data.pop("source", None)
    options = dict((source.get("init_args") or {}) if isinstance(source, Mapping) else {})
    return [f"{_name_of_data(config)}, {_listed(options)}.", "", f"As the model saw them: {_listed(data)}."]


def _recipe(model: Drawing, config: Mapping[str, Any]) -> list[str]:
    batch = (config.get("data") or {}).get("batch_size")
    unneeded = (*getattr(model, "starting_points", ()), *getattr(model, "builds_on", ()))
    options = {k: v for k, v in model.hparams.items() if k not in unneeded}
    if isinstance(encoder := options.pop("text_encoder"), Mapping):
        encoder = {k: v for k, v in encoder.items() if k != "assets"}
    else:
        encoder = {"kind": encoder}
    return [
        f"{type(model).__name__}, {model.clock} batches" + (f" of {batch} images." if batch else "."),
        "",
        f"- text encoder: {_listed(encoder)}",
        *(f"- `{name}`: {value}" for name, value in options.items()),
    ]


def _scores(scores: Sequence[Line], name: str | None, precision: str) -> list[str]:
    """The table of scores, or what measures them: a file by its ``name``, or the run where only that can be drawn."""
    if not scores:
        command = f"t2i-zoo evaluate --ckpt {name} --config CONFIG --protocol NAME"
        measured = f"`{command}` measures them" if name else "`t2i-zoo evaluate` measures the run"
        return [f"None were measured before the export; {measured}."]
    rows = ["| protocol | metric | value | error | images | chance | photographs |", "|---|---|---|---|---|---|---|"]
    real = {_key(line): line for line in read_lines(_REAL)}
    latest = {_key(line)[:-1]: line for line in scores}  # of a network that was trained again, the last
    for line in latest.values():
        network = line["network"] if line["network"] and line["network"] not in line["label"] else ""
        label = f"{line['label']} ({network})" if network else line["label"]
        beside = real.get(_key(line))
        error, chance = ("" if x is None else number(x) for x in (line["error"], line["chance"]))
        reached = "" if beside is None else f"{_noted(beside)}, of {beside['images']} images"
        rows.append(
            f"| {line['protocol']} {line['protocol_hash']} | {label} | {_noted(line)} | {error} | {line['images']} | "
            f"{chance} | {reached} |"
        )
    exact = precision == "single precision"
    said = "Of the checkpoint" + ("" if exact else f", before its weights were rounded to {precision}")
    return [
        f"{said}; beside them what guessing reaches, and what photographs reach where `t2i-zoo evaluate --ckpt real` "
        "measured it.",
        "",
        *rows,
    ]


def _noted(line: Line) -> str:
    """A value with its bias or limit in words."""
    return number(line["value"]) + (f" ({line['note']})" if line["note"] else "")


def _key(line: Line) -> tuple[Any, ...]:
    """What two scores that may be compared have in common."""
    return tuple(line.get(key) for key in ("protocol_hash", "label", "network", "data", "network_fingerprint"))


def _listed(options: Mapping[str, Any]) -> str:
    """Options in words, without those of one machine."""
    kept = {k: v for k, v in options.items() if v is not None and k not in _PLACES}
    return ", ".join(f"{k} {v}" for k, v in kept.items()) or "no options"


def _read_config(path: Path) -> Mapping[str, Any]:
    """A run's config; empty if it is missing."""
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise T2IError(f"cannot read {path}: correct it, or move it away to export without its data") from None
    return found if isinstance(found, dict) else {}
