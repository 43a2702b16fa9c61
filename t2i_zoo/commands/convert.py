"""``t2i-zoo convert``: official weight files to a file of the zoo, and a model of the zoo to official files."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

<<<<<<< HEAD
from t2i_zoo.data.packing import progress_bar
=======
from t2i_zoo.commands.official_states import find_format, to_official, to_ours
>>>>>>> main
from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.legacy import AttnGANCaptions, read_attngan_captions
from t2i_zoo.legacy.captions import write_attngan_captions
from t2i_zoo.models import model_class
from t2i_zoo.models.official import Official, read_official
from t2i_zoo.models.state import read_checkpoint, read_weights, read_words
<<<<<<< HEAD
from t2i_zoo.paths import check_new, find_weights

#: each format and the module whose ``OFFICIAL`` describes it
FORMATS = {
    "stackgan_v1": "t2i_zoo.models.stackgan.official",
    "stackgan_v2": "t2i_zoo.models.stackganpp.official",
    "aelnouby_gancls": "t2i_zoo.models.gancls.official",
    "attngan_damsm": "t2i_zoo.models.damsm.official",
    "attngan": "t2i_zoo.models.attngan.official",
    "mirrorgan": "t2i_zoo.models.mirrorgan.official",
    "dfgan": "t2i_zoo.models.dfgan.official",
    "dfgan_preprint": "t2i_zoo.models.dfgan.official",
    "mirrorgan_stream": "t2i_zoo.models.stream.official",
}


def find_format(name: str) -> Official:
    """The description of a format, by its name."""
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, 1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(FORMATS)}"
        raise T2IError(f"found no format {name!r}: {hint}")
    found: Official = importlib.import_module(FORMATS[name]).OFFICIAL[name]
    return found


def to_ours(name: str, files: Mapping[str, State]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert official state dicts to ours.

    Args:
        name: of the format.
        files: the state dict of each file, without ``module.``; file names appear in errors.

    Returns:
        The hyperparameters of a model of that shape, and its weights by their names in its state dict: those of the
        given networks, with zeros for each ``num_batches_tracked`` that is missing.

    Raises:
        T2IError: for a file that belongs to no network of the format, two files of one network, or a weight that is
            missing, unknown or of another shape, with its name and shape on both sides.
    """
    official, networks = find_format(name), dict[str, Weights]()
    for file, state in files.items():
        network = official.identify(state)
        if network is None:
            raise T2IError(f"{file} holds no network of {name}: its first weights are {', '.join(list(state)[:3])}")
        if network in networks:
            raise T2IError(f"{networks[network].file} and {file} both hold the {network}: give one of them")
        networks[network] = Weights(file, state)
    options = _options(name, official, networks)
    if negative := [f"{key} {value}" for key, value in options.items() if isinstance(value, int) and value < 0]:
        raise _misshapen(name, networks, negative[0])
    try:
        with torch.device("meta"):  # shapes alone: nothing is initialised
            model = model_class(official.model)(**options)
    except RuntimeError as error:
        raise _misshapen(name, networks, error) from error
    hparams, own, result = dict(model.hparams), model.state_dict(), dict[str, Tensor]()
    for network, weights in networks.items():
        names = official.names(network, hparams, _below(network, own))
        for key, shape in official.unused(network, hparams).items():
            if key in weights and weights[key].shape == shape:
                del weights[key]
        weights.compare({key: (ours, own[ours]) for key, ours in names.items()})
        for key, ours in names.items():
            value = weights[key] if key in weights else torch.zeros(())  # a counter, as compared
            result[ours] = value.to(own[ours].dtype, copy=True, memory_format=torch.contiguous_format)
    return hparams, result


def to_official(name: str, hparams: Mapping[str, Any], state: State, ema: bool = True) -> dict[str, dict[str, Tensor]]:
    """Convert our weights to official state dicts, without ``module.``, by the name of the official file.

    Args:
        name: of the format.
        hparams: of the model.
        state: its state dict, or that of some of its networks.
        ema: use the moving average of the generator's weights, if there is one.

    Raises:
        T2IError: where the format cannot hold a weight of the model, or would be read as another model.
    """
    official, result = find_format(name), dict[str, dict[str, Tensor]]()
    left: dict[str, Tensor] = {}
    for root in dict.fromkeys(network.partition(".")[0] for network in official.files(hparams)):
        left |= _below(root, state)
    if ema:
        left |= {f"generator.{key[14:]}": tensor for key, tensor in _below("generator_ema", state).items()}
    networks: dict[str, Weights] = {}
    try:
        for network, file in official.files(hparams).items():
            if own := {key: left.pop(key) for key in _below(network, left)}:
                names = official.names(network, hparams, own)
                result[file] = {key: own[ours] for key, ours in names.items()}
                some = next(iter(result[file].values()))
                for key, shape in official.unused(network, hparams).items():
                    result[file][key] = some.new_zeros(shape)
                networks[network] = Weights(file, result[file])
        if left:
            raise no_place(*next(iter(left.items())))
        if not result:
            raise T2IError(f"it holds none of {', '.join(official.files(hparams))}")
        for option, value in _options(name, official, networks).items():
            if option not in official.loose and hparams.get(option, value) != value:
                raise T2IError(f"found {option} {hparams[option]!r}, and the official code has {value!r}")
        to_ours(name, result)
    except T2IError as error:
        raise T2IError(f"{name} cannot hold this model: {error}") from error
    return result


def _options(name: str, official: Official, networks: Mapping[str, Weights]) -> dict[str, Any]:
    """The options of a model of the networks' shapes; hashed words replace the text encoder."""
    try:
        options = dict(official.options(networks))
    except (IndexError, ValueError, ArithmeticError) as error:
        raise _misshapen(name, networks, error) from error
    if (dim := options.pop("text_dim", None)) is not None:
        options["text_encoder"] = {"kind": "hashing", "dim": dim} if dim else "none"
    return options


def _misshapen(name: str, networks: Mapping[str, Weights], reason: object) -> T2IError:
    files = " and ".join(weights.file for weights in networks.values())
    return T2IError(f"{files}: found shapes that no network of {name} has ({reason})")


def _below(network: str, state: State) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key.startswith(f"{network}.")}
=======
from t2i_zoo.parsing import call
from t2i_zoo.paths import find_weights
from t2i_zoo.text import build_text_encoder
>>>>>>> main


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
    from safetensors.torch import save_file

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
    with replacing(path) as partial:
        save_file(state, partial, {"t2i_zoo": about})
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
    name: str, source: str | Path, out: str | Path, ema: bool = True, module_prefix: bool | None = None
) -> list[Path]:
    """Convert a model of the zoo to official .pth files.

    Args:
        name: of the format.
        source: a checkpoint, a run's folder, or a .safetensors file of ``convert_from``.
        out: the folder; files are named as in the official code.
        ema: use the moving average of the generator's weights, if there is one.
        module_prefix: put ``module.`` before each key; by default as the official code does.
    """
    folder, official = Path(out).expanduser(), find_format(name)
    if folder.is_file() or folder.suffix in (".pth", ".safetensors"):
        raise T2IError(f"found --out {out}, expected a folder: official files get the names of the official code")
    hparams, state = read_ours(Path(source).expanduser(), official)
    prefix = "module." if (official.module_prefix if module_prefix is None else module_prefix) else ""
    paths, contents = list[Path](), dict[str, dict[str, Any]]()
    for place, weights in to_official(name, hparams, state, ema).items():
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
    if official.words and (words := read_words(Path(source).expanduser())):
        ixtoword = dict(enumerate(["<end>", *words]))
        table = AttnGANCaptions([], [], ixtoword, {word: number for number, word in ixtoword.items()})
        paths.append(write_attngan_captions(folder / "captions.pickle", table))
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
        folder = Path(out).expanduser()
        check_new(*(sorted(folder.glob("*.pth")) if folder.is_dir() else ()), overwrite=overwrite)
        convert_to(to, src[0], out, not live, module_prefix)
        return
    if live or module_prefix is not None:
        raise T2IError("found --live or --module-prefix beside --from: they belong to --to")
    if not src:
        raise T2IError(f"found no file to convert: give the .pth files of {from_}")
<<<<<<< HEAD
    check_new(Path(out).expanduser(), overwrite=overwrite)
    convert_from(str(from_), src, out)
=======
    convert_from(str(from_), src, out, legacy_mask, damsm)


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    call(convert, words)
>>>>>>> main
