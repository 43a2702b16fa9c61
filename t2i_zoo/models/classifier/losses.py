"""The loss of a classifier, and how often it is right on held-out pictures."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_loss(logits: Tensor, rows: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, a float32 mean over the pictures that have a class; 0 where none has.

    Args:
        logits: (B, K).
        rows: (B,) int64, the true class of each picture; -1 is none.
        smoothing: share of the target that is spread evenly over all classes (Szegedy et al. 2016, section 7).
    """
    count = (rows >= 0).sum().clamp_min(1)
    total = F.cross_entropy(logits.float(), rows, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
    return total / count


def ranks(logits: Tensor, rows: Tensor) -> Tensor:
    """How many other classes score as high as the true one or higher, (B,) int64; 0 is right.

    Ties and NaN count against the classifier, so that one which always says the same is not right.
    """
    true = logits.gather(1, rows.clamp_min(0)[:, None])
    return (~(logits < true)).sum(1) - 1


def summary(index: Tensor, rows: Tensor, rank: Tensor, loss: Tensor, classes: int) -> dict[str, Tensor]:
    """Numbers of a whole split.

    Args:
        index: (N,) of the pictures; one that comes twice, as in evaluation by several processes, counts once.
        rows: (N,) true classes; pictures with -1 are left out.
        rank: (N,) of ``ranks``.
        loss: (N,) cross-entropy of each.
        classes: K.

    Returns:
        ``loss``; ``accuracy`` and ``accuracy_top5``, of the best class and of the five best; ``accuracy_chance`` and
        ``accuracy_top5_chance``, what always saying the commonest classes of this split would reach; ``pictures``.
    """
    order = index.argsort(stable=True)
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = index[order][1:] != index[order][:-1]
    kept = order[first & (rows[order] >= 0)]
    common = rows[kept].bincount(minlength=classes).sort(descending=True).values / len(kept)
    return {
        "loss": loss[kept].mean(),
        "accuracy": (rank[kept] < 1).float().mean(),
        "accuracy_chance": common[:1].sum(),
        "accuracy_top5": (rank[kept] < 5).float().mean(),
        "accuracy_top5_chance": common[:5].sum(),
        "pictures": torch.tensor(float(len(kept)), device=loss.device),
    }
