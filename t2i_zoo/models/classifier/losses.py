"""The loss of a classifier, and how often it is right on held-out images."""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.nn import class_loss

__all__ = ["class_loss", "ranks", "summary"]


def ranks(logits: Tensor, rows: Tensor) -> Tensor:
    """How many other classes score as high as the true one or higher, (B,) int64; 0 is right.

    Ties and NaN count against the classifier, so that one which always says the same is not right.
    """
    true = logits.gather(1, rows.clamp_min(0)[:, None])
    return (~(logits < true)).sum(1) - 1


def summary(rows: Tensor, rank: Tensor, loss: Tensor, classes: int) -> dict[str, Tensor]:
    """Measures of a whole split.

    Args:
        rows: (N,) true class of each image; images with -1 are left out.
        rank: (N,) of ``ranks``.
        loss: (N,) cross-entropy of each.
        classes: K.

    Returns:
        ``loss``; ``accuracy`` and ``accuracy_top5``, of the best class and of the five best; ``accuracy_chance`` and
        ``accuracy_top5_chance``, what always saying the commonest classes of this split would reach; ``pictures``, the
        number of images that count.
    """
    kept = rows >= 0
    count = kept.sum()
    common = rows[kept].bincount(minlength=classes).sort(descending=True).values / count
    return {
        "loss": loss[kept].mean(),
        "accuracy": (rank[kept] < 1).float().mean(),
        "accuracy_chance": common[:1].sum(),
        "accuracy_top5": (rank[kept] < 5).float().mean(),
        "accuracy_top5_chance": common[:5].sum(),
        "pictures": count.float(),
    }
