"""The weight files of taoxugit/AttnGAN's DAMSM: ``text_encoder200.pth`` and ``image_encoder200.pth``.

MirrorGAN's STEM, DM-GAN and DF-GAN read the same two files. The word table's rows mean nothing without the
``captions.pickle`` that it was trained with, since the authors' order of words cannot be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.models.official import Official, State

INCEPTION, REGIONS = "torchvision:inception_v3", "Mixed_6e"  #: the authors' only image network
TEXT, IMAGE = "text_network", "image_network"


def identify(found: State) -> str | None:
    """``TEXT`` or ``IMAGE``, the encoder whose weights these are; None for other weights."""
    if {"encoder.weight", "rnn.weight_hh_l0_reverse"} <= found.keys():
        return TEXT
    return IMAGE if {"emb_features.weight", "emb_cnn_code.weight"} <= found.keys() else None


def options(networks: Mapping[str, State]) -> dict[str, Any]:
    """Widths, the kind of the recurrent layer and the number of words, from the shapes of the weights."""
    found: dict[str, Any] = {"backbone_weights": None}
    if state := networks.get(IMAGE):
        found["dim"] = state["emb_features.weight"].shape[0]
    if state := networks.get(TEXT):
        gates, units = state["rnn.weight_hh_l0"].shape
        found["vocabulary_size"], found["word_dim"] = state["encoder.weight"].shape
        found["ascii_words"] = True
        found |= {"dim": 2 * units, "rnn": "lstm" if gates == 4 * units else "gru"}
    return found


def prefixes(path: str, hparams: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Pairs of official prefix and ours."""
    if path == TEXT:
        return [("encoder.", "encoder."), ("rnn.", "rnn.")]
    if hparams["backbone"] != INCEPTION or hparams["layer"] not in (None, REGIONS):
        found = f"{hparams['backbone']} with regions of {hparams['layer'] or 'its last map'}"
        raise T2IError(f"found {found}, expected {INCEPTION} with {REGIONS}, the authors' only image network")
    pairs = [(block, f"backbone.net.{block}") for block in ("Conv2d_", "Mixed_")]
    return [*pairs, ("emb_features.", "emb_features."), ("emb_cnn_code.", "emb_cnn_code.")]


def files(hparams: Mapping[str, Any]) -> dict[str, str]:
    """The authors' files have the number of their epoch before the dot; the names must differ by these words alone."""
    return {TEXT: "text_encoder.pth", IMAGE: "image_encoder.pth"}


LOOSE = ("vocabulary_size", "backbone_weights", "ascii_words")
OFFICIAL = {"attngan_damsm": Official("damsm", identify, options, prefixes, files, loose=LOOSE, words=True)}
