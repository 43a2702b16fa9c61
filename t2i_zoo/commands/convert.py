"""``t2i-zoo convert``: official weight files to a file of the zoo, and a model of the zoo to official files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i_zoo.commands.official_states import find_format, to_official, to_ours
from t2i_zoo.data.packing import progress_bar
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.legacy import AttnGANCaptions, read_attngan_captions
from t2i_zoo.legacy.captions import write_attngan_captions
from t2i_zoo.models import model_class
from t2i_zoo.models.exported import write
from t2i_zoo.models.official import Official, read_official
from t2i_zoo.models.state import read_checkpoint, read_weights, read_words
from t2i_zoo.paths import check_new, find_weights
from t2i_zoo.text import build_text_encoder

_WORDS = "captions.pickle"


def read_ours(path: Path, official: Official) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Hyperparameters and weights of a checkpoint, a run's folder or a converted file, of the format's model."""
    place, cls = find_weights(path), model_class(official.model)
    if place.suffix == ".safetensors":
        state, about = read_weights(place)
        found, expected, hparams = about.get("model"), official.model, about.get("hparams", {})
    else:
        checkpoint = read_checkpoint(place)
        state, hparams = checkpoint["state_dict"], checkpoint["hyper_parameters"]
        found, expected = checkpoint["t2i_zoo"]["model"], f"{cls.__module__}.{cls.__qualname__}"
    if found != expected:
        raise T2IError(f"{place} holds {found or 'weights of a model that it does not name'}, expected {expected}")
    return hparams, state


def words_of_table(path: Path, rows: int) -> list[str]:
    """The words of a ``captions.pickle`` in the order of the rows of a word table, from its second row on.

    Raises:
        T2IError: where the file cannot be read, or belongs to another table.
    """
    found = read_attngan_captions(path).ixtoword
    if sorted(found) != list(range(rows)):
        raise T2IError(
            f"{path} numbers {len(found)} words and the word table has {rows} rows, expected as many: give the file "
            "that the weights were trained with"
        )
    return [found[number] for number in range(1, rows)]


def convert_from(
    name: str,
    sources: Sequence[str | Path],
    out: str | Path,
    legacy_mask: bool = False,
    damsm: str | Path | None = None,
) -> Path:
    """Convert official files to one .safetensors file, for ``load_model``, ``--model.weights`` and ``sample --ckpt``.

    Args:
        name: of the format.
        sources: .pth files, one for each network; some of the networks are enough. A network with a word table also
            needs its ``captions.pickle``.
        out: the .safetensors file.
        legacy_mask: build the model with the authors' order of the masks of words, where its paper has it.
        damsm: a run, checkpoint or converted file of a DAMSM, whose text encoder is stored with the networks.
    """
    path, official = Path(out).expanduser(), find_format(name)
    if path.suffix != ".safetensors":
        raise T2IError(f"found --out {out}, expected a file name that ends in .safetensors")
    if len(set(map(str, sources))) < len(sources):
        raise T2IError("found one file twice: give each file once")
    tables = [Path(source).expanduser() for source in sources if str(source).endswith((".pickle", ".pkl"))]
    networks = [source for source in sources if not str(source).endswith((".pickle", ".pkl"))]
    bar = progress_bar(networks, len(networks), "reading", sys.stderr.isatty())
    found = [read_official(Path(source).expanduser()) for source in bar]
    hparams, state = to_ours(name, {file: state for states in found for file, state in states.items()})
    extra = {}
    rows = hparams.get("vocabulary_size") if official.words else None
    if len(tables) != (rows is not None):
        expected = "one beside a network with a word table" if rows else "none beside these networks"
        raise T2IError(f"found {len(tables)} files of words (captions.pickle), expected {expected}")
    if rows:
        extra["words"] = words_of_table(tables[0], rows)
    masked = "legacy_mask" in hparams
    if legacy_mask and not masked:
        raise T2IError(f"found --legacy-mask, and the networks of {name} do not attend to words: leave it out")
    if masked:
        hparams["legacy_mask"] = legacy_mask
    if damsm is not None:
        hparams["text_encoder"], encoder = _reader(name, hparams.get("text_encoder"), str(damsm))
        state |= {f"text_encoder.{key}": tensor for key, tensor in encoder.items()}
    about = json.dumps({"model": official.model, "hparams": hparams, "from": name, **extra})
    write(state, about, path)
    print(f"{len(state)} weights of a {model_class(official.model).__name__}: {path}")
    if damsm is None and hparams.get("text_encoder", "none") != "none":
        print(
            "note: official files hold no text encoder, and hashed words replace it: for new captions, give generate "
            "the features of the encoder that the weights were trained with, or convert with its --damsm",
            file=sys.stderr,
        )
    if masked and not legacy_mask:
        print(
            "note: in the authors' code the captions of a batch change each other's images, since their masks are mixed"
            " up; this file draws each caption by itself: --legacy-mask draws as their code does",
            file=sys.stderr,
        )
    return path


def _reader(name: str, stand_in: Any, damsm: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The specification of a DAMSM's text encoder with all that rebuilds it, and its weights.

    Args:
        name: of the format.
        stand_in: the text encoder that would replace it.
        damsm: its run or file.
    """
    if not isinstance(stand_in, dict):
        raise T2IError(f"found --damsm, and the networks of {name} read no sentences: leave it out")
    read = {key: stand_in[key] for key in ("max_words",) if key in stand_in}
    encoder = build_text_encoder({"kind": "rnn", "path": damsm, **read})
    if encoder.dim != stand_in["dim"]:
        raise T2IError(
            f"found --damsm {damsm} with sentences of dimension {encoder.dim}, expected {stand_in['dim']}, which the "
            "networks read: give the text encoder that they were trained with"
        )
    return {"kind": "rnn", "path": Path(damsm).name, **read, "assets": encoder.assets()}, encoder.state_dict()


def convert_to(
    name: str,
    source: str | Path,
    out: str | Path,
    ema: bool = True,
    module_prefix: bool | None = None,
    overwrite: bool = True,
) -> list[Path]:
    """Convert a model of the zoo to official .pth files.

    Args:
        name: of the format.
        source: a checkpoint, a run's folder, or a .safetensors file of ``convert_from``.
        out: the folder; files are named as in the official code.
        ema: use the moving average of the generator's weights, if there is one.
        module_prefix: put ``module.`` before each key; by default as the official code does.
        overwrite: replace existing files of these names.

    Raises:
        T2IError: where the format cannot hold the model, or a file is there that may not be replaced.
    """
    folder, official = Path(out).expanduser(), find_format(name)
    if folder.is_file() or folder.suffix in (".pth", ".safetensors"):
        raise T2IError(f"found --out {out}, expected a folder: official files get the names of the official code")
    hparams, state = read_ours(Path(source).expanduser(), official)
    prefix = "module." if (official.module_prefix if module_prefix is None else module_prefix) else ""
    paths, contents = list[Path](), dict[str, dict[str, Any]]()
    found, words = (
        to_official(name, hparams, state, ema),
        read_words(Path(source).expanduser()) if official.words else [],
    )
    files = [*(place.partition(":")[0] for place in found), *([_WORDS] if words else [])]
    check_new(*(folder / file for file in dict.fromkeys(files)), overwrite=overwrite)
    for place, weights in found.items():
        named = {prefix + key: tensor.clone() for key, tensor in weights.items()}  # not the storage of a larger one
        file, _, network = place.partition(":")
        if network:
            contents.setdefault(file, {"model": {}})["model"][network] = named
        else:
            contents[file] = named
        print(f"{len(named)} weights: {folder / place}")
    for file, content in contents.items():
        with replacing(folder / file) as partial:  # in the format of before PyTorch 1.6, for the official code
            torch.save(content, partial, _use_new_zipfile_serialization=False)
        paths.append(folder / file)
    if words:
        ixtoword = dict(enumerate(["<end>", *words]))
        table = AttnGANCaptions([], [], ixtoword, {word: number for number, word in ixtoword.items()})
        paths.append(write_attngan_captions(folder / _WORDS, table))
        print(f"{len(ixtoword)} words, without captions: {paths[-1]}")
    return paths


def convert(
    *src: str,
    out: str,
    from_: str | None = None,
    to: str | None = None,
    legacy_mask: bool = False,
    damsm: str | None = None,
    live: bool = False,
    module_prefix: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Convert official weight files to a file of the zoo, or a model of the zoo to official files.

    Formats: stackgan_v1, stackgan_v2, aelnouby_gancls, attngan_damsm, attngan, mirrorgan, dmgan, dfgan,
    dfgan_preprint and mirrorgan_stream.

    Args:
        src: With --from, .pth files and captions.pickle; with --to, a checkpoint, run or .safetensors file.
        out: With --from, the .safetensors file to write; with --to, a folder.
        from_: Convert files of this format.
        to: Write files of this format.
        legacy_mask: With --from, draw as the authors' code does, which gives captions of a batch each other's masks.
        damsm: With --from, store the text encoder of this run or converted file of a DAMSM with the networks.
        live: With --to, use the last weights and not their moving average.
        module_prefix: With --to, put ``module.`` before each key; by default as the official code does.
        overwrite: Replace existing files.

    Raises:
        T2IError: for options that do not go together, or files that are not of the format.
    """
    if (from_ is None) == (to is None):
        raise T2IError(f"found {'both' if to else 'neither'} --from {'and' if to else 'nor'} --to: give one")
    if to is not None:
        if legacy_mask or damsm is not None:
            raise T2IError("found --legacy-mask or --damsm beside --to: they belong to --from")
        if len(src) != 1:
            raise T2IError(f"found {len(src)} things to convert, expected one checkpoint, run or .safetensors file")
        convert_to(to, src[0], out, not live, module_prefix, overwrite)
        return
    if live or module_prefix is not None:
        raise T2IError("found --live or --module-prefix beside --from: they belong to --to")
    if not src:
        raise T2IError(f"found no file to convert: give the .pth files of {from_}")
    check_new(Path(out).expanduser(), overwrite=overwrite)
    convert_from(str(from_), src, out, legacy_mask, damsm)
