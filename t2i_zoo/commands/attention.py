"""``t2i-zoo attention``: an image for a caption, and which of its regions attended to which words."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from t2i_zoo.commands.captions import check_caption, notes_on_words
from t2i_zoo.commands.sample import check_at_least, check_fits, check_live, image_path, pick_device
from t2i_zoo.errors import T2IError
from t2i_zoo.fonts import Letters
from t2i_zoo.models import load_model
from t2i_zoo.models.drawing import AttentiveDrawing
from t2i_zoo.paths import check_new
from t2i_zoo.pictures import attention_page, save_beside


def attention(
    ckpt: str,
    text: str,
    out: str = "attention.png",
    seed: int = 0,
    words: int = 8,
    live: bool = False,
    device: str = "auto",
    font: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw an image and show which of its regions attended to which words, stage by stage.

    Args:
        ckpt: A model that attends to words: the folder of a run, a .ckpt file, or an exported generator by its file or
            name (mirrorgan_flowers64).
        text: The caption.
        out: Image file to write.
        seed: Seed of the noise.
        words: Largest number of words shown; those with the largest attention come first.
        live: Use the last weights and not their moving average.
        device: Device such as cpu, cuda, cuda:1 or mps; auto uses the GPU if there is one.
        font: Font file for the caption; by default each script is drawn with a font that this machine has.
        overwrite: Replace an existing file.

    Raises:
        T2IError: for a blank caption, a model without attention, or a file name that is no image's.
    """
    path = image_path(out)
    check_new(path, overwrite=overwrite)
    check_caption(text)
    Letters(1, font)  # raises for a file that is no font
    check_at_least(1, words=words)
    check_at_least(0, seed=seed)
    check_live(ckpt, live)
    model = load_model(ckpt, pick_device(device))
    if not isinstance(model, AttentiveDrawing):
        raise T2IError(
            f"{ckpt} holds a {type(model).__name__}, which attends to no words: give a run of AttnGAN, MirrorGAN or "
            "DM-GAN"
        )
    for note in notes_on_words(model, [text]):
        print(f"note: {note}", file=sys.stderr)
    noise = model.noise(1, torch.Generator().manual_seed(seed))
    fakes = model.sampled([text], noise=noise, ema=not live)
    images, maps = fakes.images[-1].float(), fakes.attention
    if not maps:
        raise T2IError(f"{ckpt} has one branch, and only further ones attend to words: give a run with more branches")
    tokens = model.text_encoder.tokens(text)
    page = attention_page(images[0], [one[0] for one in maps], tokens, text, words, font=font)
    check_fits(path, *page.size)
    save_beside(page, path)
    print(f"{len(maps)} stages, {min(words, len(tokens))} of {len(tokens)} words: {path}")
    return path
