"""Milliseconds of DAMSM's word loss beside those of loops over captions: ``python tests/models/matching_speed.py``.

Not a test, since a time is none. All take turns on the same tensors, with one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from t2i_zoo.nn.damsm import PairLosses, pair_losses, words_loss

GAMMAS = (4.0, 5.0, 10.0)


def in_the_authors_order(grids: Tensor, caption: Tensor) -> Tensor:
    """Cosines (B, T) of one caption (T, D) and pictures (B, D, R): regions by words, each layout copied in turn."""
    own = caption.T.repeat(len(grids), 1, 1)  # (B, D, T)
    over_words = torch.bmm(grids.mT.contiguous(), own).softmax(2)
    attention = (GAMMAS[0] * over_words.mT.contiguous()).softmax(2)
    context = torch.bmm(grids, attention.mT.contiguous())
    return cosine_similarity(own.mT.contiguous(), context.mT.contiguous(), dim=2, eps=1e-8)


def leaner(grids: Tensor, caption: Tensor) -> Tensor:
    """The same with words by regions and no copies."""
    own = caption.expand(len(grids), -1, -1)  # (B, T, D)
    attention = (GAMMAS[0] * torch.bmm(own, grids).softmax(1)).softmax(2)
    return cosine_similarity(own, torch.bmm(attention, grids.mT), dim=2, eps=1e-8)


def loop(
    cosines: Callable[[Tensor, Tensor], Tensor], regions: Tensor, words: Tensor, lengths: list[int], classes: Tensor
) -> PairLosses:
    """Each caption, without its padding, against all pictures of the batch, one after the other."""
    grids = regions.flatten(2)
    columns = [
        (GAMMAS[1] * cosines(grids, caption[:length])).exp().sum(1).log()
        for caption, length in zip(words, lengths, strict=True)
    ]
    return pair_losses(GAMMAS[2] * torch.stack(columns, 1), classes)


def main(batch: int = 48, rounds: int = 5) -> None:
    """Print both medians, forward and backward together, and their ratio."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    regions = torch.randn(batch, 256, 17, 17, device=device, requires_grad=True)
    words = torch.randn(batch, 18, 256, device=device, requires_grad=True)
    lengths = (torch.randn(batch) * 3 + 11).round().clamp(4, 18).long()
    classes = torch.randint(0, 40, (batch,), device=device)
    counts, kept = lengths.tolist(), lengths.to(device)
    ways: dict[str, Callable[[], PairLosses]] = {
        "loop, authors' order": lambda: loop(in_the_authors_order, regions, words, counts, classes),
        "loop, leaner": lambda: loop(leaner, regions, words, counts, classes),
        "words_loss": lambda: words_loss(regions, words, kept, classes, *GAMMAS),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, Tensor] = {}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            loss = sum(way())
            assert isinstance(loss, Tensor)
            loss.backward()
            losses[name] = loss.detach().cpu()  # waits for the device
            times[name].append(time.perf_counter() - start)
    for loss in losses.values():
        torch.testing.assert_close(loss, losses["words_loss"])
    found = {name: 1000 * median(seconds[1:]) for name, seconds in times.items()}  # the first round warms up
    print(f"batch {batch}, captions of {lengths.float().mean():.1f} words in the mean, {device}, medians")
    for name, ms in found.items():
        print(f"{name:20} {ms:8.1f} ms, {ms / found['words_loss']:.1f} times words_loss")


if __name__ == "__main__":
    main()
