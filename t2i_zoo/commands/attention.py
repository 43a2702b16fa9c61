"""``t2i-zoo attention``: a picture of a sentence, and where each of its words was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from t2i_zoo.commands.sample import SUFFIXES, pick_device
from t2i_zoo.errors import T2IError
from t2i_zoo.models import load_model
from t2i_zoo.models.attentive import AttentiveGAN
from t2i_zoo.parsing import call
from t2i_zoo.pictures import attention_page, save_beside


def attention(
    ckpt: str,
    text: str,
    out: str = "attention.png",
    seed: int = 0,
    words: int = 8,
    live: bool = False,
    device: str = "auto",
) -> Path:
    """Draw one picture, and below each other, for each stage, what it is made of word by word.

    Args:
        ckpt: a .ckpt file, or the folder of a run, of a model that attends to words.
        text: the caption.
        out: the file.
        seed: of the noise.
        words: the most words shown, those with the largest attention first.
        live: the last weights in place of their moving average.
        device: ``auto`` is the GPU where there is one.

    Raises:
        T2IError: for a blank caption, a model without attention, or a file name that is no picture.
    """
    path = Path(out).expanduser()
    if not text.strip():
        raise T2IError(f"found a blank caption {text!r}: write what the picture should show")
    if words < 1:
        raise T2IError(f"found --words {words}, expected at least 1")
    if not 0 <= seed < 2**63:
        raise T2IError(f"found --seed {seed}, expected an integer from 0")
    if path.suffix.lower() not in SUFFIXES:
        raise T2IError(f"found --out {out}, expected a file name that ends in {', '.join(SUFFIXES)}")
    model = load_model(ckpt, pick_device(device))
    if not isinstance(model, AttentiveGAN):
        raise T2IError(
            f"{ckpt} holds a {type(model).__name__}, which attends to no words: give a run of AttnGAN or MirrorGAN"
        )
    noise = model.noise(1, torch.Generator().manual_seed(seed))
    fakes = model.sampled([text], noise=noise, ema=not live)
    images, maps = fakes.images[-1].float(), fakes.attention
    if not maps:
        raise T2IError(f"{ckpt} has one branch, and only further ones attend to words: give a run with more branches")
    tokens = model.text_encoder.tokens(text)
    save_beside(attention_page(images[0], [one[0] for one in maps], tokens, text, words), path)
    print(f"{len(maps)} stages, {min(words, len(tokens))} of {len(tokens)} words: {path}")
    return path


def main(words: Sequence[str]) -> None:
    """Parse and run."""
    call(attention, words)
