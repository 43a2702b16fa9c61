"""``t2i-zoo prepare``: pack a data set and encode its captions ahead of training."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from t2i_zoo import data
from t2i_zoo.commands.understood import explained, left_out, preview_of_shards, preview_of_store
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.data.packing import writing
from t2i_zoo.data.shard_writer import PER_SHARD, write_shards
from t2i_zoo.data.shards import ShardIndex
from t2i_zoo.data.store import open_store
from t2i_zoo.data.stream import StreamDataModule
from t2i_zoo.data.usable import SPLITS
from t2i_zoo.data.webdataset import WebDataset
from t2i_zoo.errors import MistakesError, T2IError
from t2i_zoo.files import sha256
from t2i_zoo.models.base import TextToImageGAN
from t2i_zoo.models.companions import reader
from t2i_zoo.models.zoo import ZooModule
from t2i_zoo.overview import CALLBACKS, one_size
from t2i_zoo.parsing import Parser, named_model
from t2i_zoo.text import TextEncoder, build_text_encoder


def prepare(
    words: Sequence[str],
    text_encoder: str | dict[str, Any] | None = None,
    verify: bool = False,
    to: Literal["store", "webdataset"] = "store",
    out: str | None = None,
    per_shard: int = 1000,
) -> None:
    """Pack a data set and encode its captions ahead of training, and say what the store holds.

    Args:
        words: options of the data, and the config of a model that reads the captions.
        text_encoder: Encoder of the captions, as ``--model.text_encoder``; by default that of the config's model.
        verify: Read the whole store and compare it with the hashes in its manifest.
        to: Pack for training on this machine, or write shards that are streamed.
        out: New folder of the shards.
        per_shard: Images in each shard.

    Raises:
        T2IError: for mistakes in the data, each of which is printed, or a damaged store.
    """
    try:
        _prepare(words, text_encoder, verify, to, out, per_shard)
    except MistakesError as error:
        print("\n".join(error.sentences), file=sys.stderr)
        raise T2IError(f"found {len(error.sentences)} mistakes in the data: mend them and prepare again") from error


def _prepare(
    words: Sequence[str],
    text_encoder: str | dict[str, Any] | None,
    verify: bool,
    to: Literal["store", "webdataset"],
    out: str | None,
    per_shard: int,
) -> None:
    if to == "webdataset" and out is None:
        raise T2IError("found --to webdataset without --out: give the new folder of the shards")
    if to == "webdataset" and verify:
        raise T2IError("found --verify true with --to webdataset: leave it out, and verify the shards later")
    if to == "store" and out is not None:
        raise T2IError("found --out without --to webdataset: add that, or choose the store's place by --data.cache_dir")
    if to == "store" and per_shard != PER_SHARD:
        raise T2IError("found --per_shard without --to webdataset: add that, or leave it out")
    parser = data_parser("prepare")
    config = parser.parse_args(one_size(words))
    model = config.model or {}
    options = {**(model.get("init_args") or {}), **model}  # --model.text_encoder has no init_args above it
    kind = named_model(model["class_path"]) if model.get("class_path") else None
    module: CaptionDataModule = parser.instantiate_classes(config).data
    if isinstance(module, StreamDataModule) and text_encoder and out is None:
        raise T2IError(
            "found --text_encoder with streamed shards, of which nothing is encoded: add --to webdataset, which writes "
            "them with features, or leave it out"
        )
    encoder = _built(text_encoder or _own_encoder(kind, options))
    reads_words = kind is not None and issubclass(kind, ZooModule) and kind.needs.words
    if out is not None:
        _write_shards(module, encoder, reads_words, out, per_shard)
    elif isinstance(module, StreamDataModule):
        _describe_shards(module, verify)
    else:
        _pack(module, encoder, reads_words, verify)


def _pack(module: CaptionDataModule, encoder: TextEncoder | None, reads_words: bool, verify: bool) -> None:
    store = open_store(module.spec, module.cache / "stores", progress=True)
    if verify and (damaged := store.damaged_files()):
        raise T2IError(
            f"{', '.join(damaged)} in {store.folder} changed since packing: move that folder away and prepare again"
        )
    if encoder is not None:
        module.text_cache(encoder, reads_words).ensure(store.captions, progress=True)
    counts = {split: len(store.rows(split)) for split in SPLITS}
    print(_summary(counts, f"{store.manifest['captions']} captions", store.folder))
    kept = store.manifest
    for line in explained(kept["understood"], np.diff(store.offsets).tolist(), store.captions):
        print(line)
    for line in [*kept["remarks"], *store.remarks(), *left_out([*kept["skipped"], *kept["uncaptioned"]])]:
        print(line)
    with writing(store.folder):
        print(f"preview: {preview_of_store(store)}")


def _built(text_encoder: str | dict[str, object] | None) -> TextEncoder | None:
    """The encoder, or None where there is none or it reads no text."""
    encoder = build_text_encoder(text_encoder) if text_encoder is not None else None
    return encoder if encoder is not None and encoder.dim else None


def _write_shards(
    module: CaptionDataModule, encoder: TextEncoder | None, reads_words: bool, out: str, per_shard: int
) -> None:
    folder = Path(out).expanduser().absolute()
    index, skipped = write_shards(module.spec, folder, encoder, reads_words, per_shard, progress=True)
    _say(index, folder)
    for line in left_out(skipped):
        print(line)
    _preview(WebDataset(str(folder)), index, module, folder)


def _describe_shards(module: StreamDataModule, verify: bool) -> None:
    """Say what shards hold; there is nothing to prepare in them."""
    index, source = module.index, module.source
    for shard in index.shards if verify else ():
        if shard.hash is None or source.remote:
            raise T2IError(
                f"the shards of {source.root} cannot be verified: copy them here, with the index.json of ours"
            )
        if f"sha256:{sha256(Path(source.place(shard.name)))}" != shard.hash:
            raise T2IError(f"{source.place(shard.name)} changed since it was written: copy or write it again")
    _say(index, source.root)
    name = hashlib.blake2b(source.place("").encode(), digest_size=8).hexdigest()
    _preview(source, index, module, module.cache / "shards" / name)


def _say(index: ShardIndex, place: object) -> None:
    """What shards hold and how they were understood."""
    counts = {split: index.pictures(split) for split in SPLITS}
    shards = len({shard.name for shard in index.shards})
    print(_summary(counts, f"{index.captions} captions, {shards} shards", place))
    mean = index.captions / max(sum(counts.values()), 1)
    for line in [*explained(index.understood, [round(mean, 1)], [*index.vocabulary, *index.examples]), *index.remarks]:
        print(line)
    if index.lacking:
        print(f"{index.lacking:,} images have no caption, such as: {index.lacks[0]}")


def _preview(source: WebDataset, index: ShardIndex, module: Any, folder: Path) -> None:
    with writing(folder):
        if path := preview_of_shards(source, index, module.spec, folder / "preview.png"):
            print(f"preview: {path}")


def _summary(counts: Mapping[str, int], others: str, place: object) -> str:
    splits = ", ".join(f"{count} {split}" for split, count in counts.items())
    return f"{sum(counts.values())} images ({splits}), {others}, {place}"


def data_parser(command: str) -> Parser:
    """The ``data`` options of ``fit``, from the same configs; all other parts of a config are read over."""
    for name in data.SOURCES:
        getattr(data, name)  # imported, so that a config may use its bare name
    parser = Parser(prog=f"t2i-zoo {command}", usage=argparse.SUPPRESS, add_help=False)
    parser.add_argument(
        "-c", "--config", action=ActionConfigFile, help="a config of fit, or the name of a packaged one"
    )
    parser.add_class_arguments(CaptionDataModule, "data")
    parser.add_argument("--model", type=dict, default=None, help="the model of that config, for its text encoder")
    for unused in ("trainer", "logger", "seed_everything", "ckpt_path", "weights_only", *CALLBACKS):
        parser.add_argument(f"--{unused}", type=object, default=None, help=argparse.SUPPRESS)
    return parser


def _own_encoder(kind: type | None, options: dict[str, Any]) -> Any:
    """What a model reads captions with; None where that is nothing but itself, or not there yet."""
    if kind is not None and not issubclass(kind, TextToImageGAN):
        return None
    if not (damsm := options.get("damsm")):
        return options.get("text_encoder") or "hashing"
    if Path(damsm).expanduser().exists():
        return reader(options.get("text_encoder"), damsm)
    print(
        f"note: the captions are not encoded, for --model.damsm {damsm} is not there yet: prepare again once it is, or "
        "leave it to fit",
        file=sys.stderr,
    )
    return None
