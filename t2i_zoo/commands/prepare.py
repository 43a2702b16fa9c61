"""``t2i-zoo prepare``: pack a data set, and encode its captions, ahead of training."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import jsonargparse
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from t2i_zoo import data
from t2i_zoo.data.module import CaptionDataModule
from t2i_zoo.data.store import open_store
from t2i_zoo.errors import T2IError
from t2i_zoo.models import MODELS
from t2i_zoo.parsing import Parser, expand_configs
from t2i_zoo.text import build_text_encoder


def prepare(
    module: CaptionDataModule,
    text_encoder: str | dict[str, object] | None,
    verify: bool = False,
    words: bool = False,
) -> None:
    """Pack the source of a data module once, encode its captions, and say what the store holds.

    Args:
        module: source, sizes and cache folder.
        text_encoder: encoder whose features are cached; None leaves the text alone.
        verify: read the whole store and compare it with the hashes in its manifest.
        words: cache the features of words beside those of sentences.

    Raises:
        T2IError: for what is wrong with the source, or a damaged store.
    """
    store = open_store(module.spec, module.cache / "stores", progress=True)
    if verify and (damaged := store.damaged_files()):
        raise T2IError(
            f"{', '.join(damaged)} in {store.folder} changed since packing: delete that folder and prepare again"
        )
    if text_encoder is not None:
        encoder = build_text_encoder(text_encoder)
        module.text_cache(encoder, words).ensure(store.captions, progress=True)
    splits = ", ".join(f"{len(store.rows(split))} {split}" for split in ("train", "val", "test"))
    print(f"{store.manifest['pictures']} pictures ({splits}), {store.manifest['captions']} captions, {store.folder}")
    for skipped in store.manifest["skipped"]:
        print(f"skipped: {skipped}")


def main(words: Sequence[str]) -> None:
    """Parse and run: the ``data`` options of ``fit``, from the same configs."""
    for name in data.SOURCES:
        getattr(data, name)
    parser = Parser(prog="t2i-zoo prepare", description="Pack a data set and encode its captions ahead of training.")
    parser.add_argument("-c", "--config", action=ActionConfigFile, help="a config of fit, or its name")
    parser.add_class_arguments(CaptionDataModule, "data")
    parser.add_argument("--model", type=dict, default=None, help="of a config, for its text encoder")
    for unused in ("trainer", "samples", "checkpoint", "seed_everything", "ckpt_path"):
        parser.add_argument(f"--{unused}", type=object, default=None, help=jsonargparse.SUPPRESS)
    parser.add_argument(
        "--text_encoder", type=str | dict[str, Any], default=None, help="by default the config's, else hashing"
    )
    parser.add_argument("--verify", type=bool, default=False, help="compare every byte with the manifest's hashes")
    config = parser.parse_args(expand_configs(words))
    model = config.model or {}
    asked = {**(model.get("init_args") or {}), **model}  # --model.text_encoder on the command line stands beside
    chosen = config.text_encoder or asked.get("text_encoder") or "hashing"
    module = parser.instantiate_classes(config).data
    prepare(module, chosen, config.verify, _needs_words(str(model.get("class_path", ""))))


def _needs_words(class_path: str) -> bool:
    """Whether a config's model reads word features; a class of one's own, by its short name, may encode them later."""
    place = next((entry.path for entry in MODELS.values() if entry.path.endswith(f".{class_path}")), class_path)
    module, _, name = place.rpartition(".")
    if not module or name == "":
        return False
    try:
        return bool(getattr(getattr(importlib.import_module(module), name), "needs_words", False))
    except (ImportError, AttributeError) as error:
        raise T2IError(f"found no model class {class_path!r}: correct class_path in the config") from error
