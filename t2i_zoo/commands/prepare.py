"""``t2i-zoo prepare``: pack a data set, and encode its captions, ahead of training."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jsonargparse
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from t2i_zoo import data
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.data.packing import SPLITS
from t2i_zoo.data.shard_writer import PER_SHARD, write_shards
from t2i_zoo.data.store import open_store
from t2i_zoo.data.stream import StreamDataModule
from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256
from t2i_zoo.models import MODELS
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.parsing import Parser, expand_configs
from t2i_zoo.text import TextEncoder, build_text_encoder


def prepare(
    module: CaptionDataModule,
    text_encoder: str | dict[str, object] | None,
    verify: bool = False,
    words: bool = False,
    to: str = "store",
    out: str | None = None,
    per_shard: int = PER_SHARD,
) -> None:
    """Pack the source of a data module once, encode its captions, and say what the store holds.

    Args:
        module: source, sizes and cache folder.
        text_encoder: encoder whose features are cached; None leaves the text alone.
        verify: read the whole store and compare it with the hashes in its manifest.
        words: cache the features of words beside those of sentences.
        to: "store" packs for training on this machine; "webdataset" writes shards that are streamed.
        out: new folder of the shards.
        per_shard: pictures of each.

    Raises:
        T2IError: for what is wrong with the source, or a damaged store.
    """
    if to == "webdataset":
        _write_shards(module, _built(text_encoder), words, out, per_shard)
        return
    if out is not None:
        raise T2IError("found --out without --to webdataset: add that, or choose the store's place by --data.cache_dir")
    if isinstance(module, StreamDataModule):
        _describe_shards(module, verify)
        return
    store = open_store(module.spec, module.cache / "stores", progress=True)
    if verify and (damaged := store.damaged_files()):
        raise T2IError(
            f"{', '.join(damaged)} in {store.folder} changed since packing: delete that folder and prepare again"
        )
    if (encoder := _built(text_encoder)) is not None:
        module.text_cache(encoder, words).ensure(store.captions, progress=True)
    splits = ", ".join(f"{len(store.rows(split))} {split}" for split in ("train", "val", "test"))
    print(f"{store.manifest['pictures']} pictures ({splits}), {store.manifest['captions']} captions, {store.folder}")
    for remark in store.remarks():
        print(remark)
    for skipped in store.manifest["skipped"]:
        print(f"skipped: {skipped}")


def _built(text_encoder: str | dict[str, object] | None) -> TextEncoder | None:
    """The encoder, or None where there is none or it reads no text."""
    encoder = build_text_encoder(text_encoder) if text_encoder is not None else None
    return encoder if encoder is not None and encoder.dim else None


def _write_shards(
    module: CaptionDataModule, encoder: TextEncoder | None, words: bool, out: str | None, per_shard: int
) -> None:
    if out is None:
        raise T2IError("found --to webdataset without --out: give the new folder of the shards")
    folder = Path(out).expanduser().absolute()
    index, skipped = write_shards(module.spec, folder, encoder, words, per_shard, progress=True)
    splits = ", ".join(f"{index.pictures(split)} {split}" for split in SPLITS)
    total = sum(index.pictures(split) for split in SPLITS)
    print(f"{total} pictures ({splits}), {index.captions} captions, {len(index.shards)} shards, {folder}")
    for sentence in skipped:
        print(f"skipped: {sentence}")


def _describe_shards(module: StreamDataModule, verify: bool) -> None:
    """Say what shards hold, which have nothing to prepare."""
    index, source = module.index, module.source
    for shard in index.shards if verify else ():
        if shard.hash is None or source.remote:
            raise T2IError(
                f"the shards of {source.root} cannot be verified: copy them here, with the index.json of ours"
            )
        if f"sha256:{sha256(Path(source.place(shard.name)))}" != shard.hash:
            raise T2IError(f"{source.place(shard.name)} changed since it was written: copy or write it again")
    splits = ", ".join(f"{index.pictures(split)} {split}" for split in SPLITS)
    total = sum(index.pictures(split) for split in SPLITS)
    print(f"{total} pictures ({splits}), {index.captions} captions, {len(index.shards)} shards, {source.root}")


def data_parser(command: str, description: str) -> Parser:
    """A parser of the ``data`` options of ``fit``, from the same configs."""
    for name in data.SOURCES:
        getattr(data, name)
    parser = Parser(prog=f"t2i-zoo {command}", description=description)
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a config of fit, or its name")
    parser.add_class_arguments(CaptionDataModule, "data")
    parser.add_argument("--model", type=dict, default=None, help="of a config, for its text encoder")
    for unused in ("trainer", "samples", "checkpoint", "seed_everything", "ckpt_path"):
        parser.add_argument(f"--{unused}", type=object, default=None, help=jsonargparse.SUPPRESS)
    return parser


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    parser = data_parser("prepare", "Pack a data set and encode its captions ahead of training.")
    parser.add_argument(
        "--text_encoder", type=str | dict[str, Any], default=None, help="by default what the config's model reads with"
    )
    parser.add_argument("--verify", type=bool, default=False, help="compare every byte with the manifest's hashes")
    parser.add_argument(
        "--to", type=Literal["store", "webdataset"], default="store", help="pack for this machine, or write shards"
    )
    parser.add_argument("--out", type=str | None, default=None, help="new folder of the shards")
    parser.add_argument("--per_shard", type=int, default=PER_SHARD, help="pictures of each shard")
    config = parser.parse_args(expand_configs(words))
    model = config.model or {}
    asked = {**(model.get("init_args") or {}), **model}  # --model.text_encoder on the command line stands beside
    kind = _model_class(str(model.get("class_path", "")))
    module = parser.instantiate_classes(config).data
    words_too = kind is not None and issubclass(kind, ZooModule) and kind.needs.words
    chosen = config.text_encoder or _own_encoder(kind, asked)
    prepare(module, chosen, config.verify, words_too, config.to, config.out, config.per_shard)


def _own_encoder(kind: type | None, options: dict[str, Any]) -> Any:
    """What a model reads captions with; None where that is nothing but itself, or not there yet."""
    if kind is not None and not issubclass(kind, TextToImageGAN):
        return None
    if options.get("text_encoder"):
        return options["text_encoder"]
    if not (damsm := options.get("damsm")):
        return "hashing"
    if Path(damsm).expanduser().exists():
        return {"kind": "rnn", "path": damsm}  # its text encoder reads for AttnGAN and MirrorGAN
    print(
        f"note: the captions are not encoded, for --model.damsm {damsm} is not there yet: prepare again once it is, or "
        "leave it to fit",
        file=sys.stderr,
    )
    return None


def _model_class(class_path: str) -> Any:
    """A config's model; None without one, and for a class of one's own by its short name."""
    place = next((entry.path for entry in MODELS.values() if entry.path.endswith(f".{class_path}")), class_path)
    module, _, name = place.rpartition(".")
    if not module or name == "":
        return None
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise T2IError(f"found no model class {class_path!r}: correct class_path in the config") from error
