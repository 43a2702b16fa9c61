"""Rows of generated images: one caption each, or a path between two captions; and how to draw many of them fast."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i_zoo.models.drawing import Drawing
from t2i_zoo.text import TextFeatures

See = Callable[[int, int, Tensor], None]
_MOST = {"cuda": 256, "cpu": 16}  #: images at once; a CPU is slower with more


def for_drawing(model: Drawing) -> Drawing:
    """Let a model draw with the channels of a place together in memory on a CPU, where that is as fast or faster."""
    if model.device.type == "cpu":
        for network in (model.generator_ema, getattr(model, "generator", None)):
            if network is not None:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


@torch.no_grad()
def images_at_once(model: Drawing, caption: str) -> int:
    """How many images a quarter of the free memory holds, by the outputs of all layers for one of them, or fewer."""
    sizes: list[int] = []

    def note(module: nn.Module, given: Any, out: Any) -> None:
        parts = out if isinstance(out, (tuple, list)) else [out]
        sizes.extend(part.nbytes for part in parts if isinstance(part, Tensor))

    layers = [m for m in model.generator_ema.modules() if not [*m.children()]]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        model.generate([caption])
    finally:
        for hook in hooks:
            hook.remove()
    context = getattr(model, "has_context", None)  # each batch computes it too, so that few large ones are faster
    most = 64 if context is not None and context() else _MOST.get(model.device.type, 64)
    return max(min(free_memory(model.device) // 4 // max(sum(sizes), 1), most), 1)


def free_memory(device: torch.device) -> int:
    """Bytes that a device has left; 4 GiB where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return 1024 * int(found[1]) if found else 4 * 2**30


@torch.no_grad()
def draw_rows(
    model: Drawing,
    captions: Sequence[str],
    noise: Tensor | Sequence[Tensor],
    *,
    ema: bool = True,
    batch_size: int = 64,
    see: See = lambda row, column, images: None,
    page: tuple[int, int] | None = None,
) -> list[Tensor]:
    """Draw one row of images for each caption.

    Args:
        model: its device is used.
        captions: one for each row; empty strings for a model without text.
        noise: (n, ``total_noise_dim``) for all rows, which then differ by their words alone, or one such tensor per
            row. ``model.noise(n, rng)`` draws it.
        ema: use the moving average of the weights; False uses the last weights.
        batch_size: images drawn at once.
        see: is shown each batch as it is drawn: row, column of its first image, images. With it, a large number of
            images need not be in memory at once.
        page: rows and columns that are returned; all by default.

    Returns:
        For each caption (n, 3, S, S) in [-1, 1], float32, on the CPU.
    """
    noises = [noise] * len(captions) if isinstance(noise, Tensor) else noise
    rows = []
    for row, (caption, own) in enumerate(zip(captions, noises, strict=True)):
        text = model.encode([caption])
        repeated = TextFeatures(*(None if part is None else part.expand(len(own), *part.shape[1:]) for part in text))  # type: ignore[arg-type]
        rows += _draw(model, repeated, own, ema, batch_size, row, see, page)
    return rows


@torch.no_grad()
def draw_between(
    model: Drawing,
    captions: tuple[str, str],
    columns: int,
    noise: Tensor,
    *,
    ema: bool = True,
    batch_size: int = 64,
    see: See = lambda row, column, images: None,
    page: tuple[int, int] | None = None,
) -> list[Tensor]:
    """Draw the path from one caption to another, once for each noise vector.

    Sentence embeddings are interpolated linearly, both ends included, and so are the embeddings of words at the same
    position.

    Args:
        model: its device is used.
        captions: both ends.
        columns: images of each path.
        noise: (rows, ``total_noise_dim``), constant along each path.
        ema: use the moving average of the weights; False uses the last weights.
        batch_size: images drawn at once.
        see: is shown each batch as it is drawn: row, column of its first image, images. With it, a large number of
            images need not be in memory at once.
        page: rows and columns that are returned; all by default.

    Returns:
        For each noise vector (columns, 3, S, S) in [-1, 1], float32, on the CPU.
    """
    first, second = (model.encode([caption]) for caption in captions)
    along = torch.linspace(0, 1, columns, device=first.sentence.device)[:, None]
    path = TextFeatures(torch.lerp(first.sentence, second.sentence, along))
    if model.needs.words:
        path = path._replace(**_between_words(first, second, along))
    rows = []
    for row, one in enumerate(noise):
        rows += _draw(model, path, one.expand(columns, -1), ema, batch_size, row, see, page)
    return rows


def _between_words(first: TextFeatures, second: TextFeatures, along: Tensor) -> dict[str, Tensor]:
    """Words (n, T, W) and mask (n, T) along a path; at its ends the other caption's words are masked."""
    parts = [(end.words, end.mask) for end in (first, second) if end.words is not None and end.mask is not None]
    longest = max(mask.shape[1] for _, mask in parts)
    words = [F.pad(word, (0, 0, 0, longest - word.shape[1])) for word, _ in parts]
    masks = [F.pad(mask, (0, longest - mask.shape[1])) for _, mask in parts]
    mask = (masks[0] & (along < 1)) | (masks[1] & (along > 0))
    return {"words": torch.lerp(words[0], words[1], along[:, :, None]), "mask": mask}


def _draw(
    model: Drawing,
    text: TextFeatures,
    noise: Tensor,
    ema: bool,
    batch_size: int,
    row: int,
    see: See,
    page: tuple[int, int] | None,
) -> list[Tensor]:
    """One row, or none where the page is full."""
    rows, columns = page or (row + 1, len(noise))
    parts = []
    for start in range(0, len(noise), batch_size):
        cut = slice(start, start + batch_size)
        some = TextFeatures(*(None if part is None else part[cut] for part in text))  # type: ignore[arg-type]
        images = model.generate(some, noise=noise[cut], ema=ema).cpu()
        see(row, start, images)
        if row < rows and start < columns:
            parts.append(images[: columns - start])
    return [torch.cat(parts)] if parts else []
