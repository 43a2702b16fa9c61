"""The loss of char-CNN-RNN (Reed et al. 2016, arXiv 1605.05395) and its measure, as functions of vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i_zoo.nn import class_loss

__all__ = ["class_loss", "class_retrieval", "joint_embedding_loss"]


def joint_embedding_loss(
    images: Tensor, sentences: Tensor, labels: Tensor | None, margin: float = 1.0, symmetric: bool = True
) -> dict[str, Tensor]:
    """Structured joint embedding: each image scores higher with its caption than with those of other classes.

    As in the authors' code, the hinge is summed over all classes of the batch, each of which has one image and one
    caption, and divided by the number of pairs; the paper takes the worst class, and the mean score of its captions.

    Args:
        images: (B, D); row i belongs to row i of ``sentences``. The score of a pair is its dot product.
        sentences: (B, D).
        labels: (B,) int64; other pairs within a class are left out, -1 is no class. None leaves nothing out.
        margin: by which the true pair is to score higher.
        symmetric: also compare each caption with the images of other classes; otherwise ``loss`` is the first term.

    Returns:
        ``loss``, the sum of both terms, ``image_to_text`` and ``text_to_image``, float32 scalars.
    """
    with torch.autocast(images.device.type, enabled=False):
        scores = images.float() @ sentences.float().T
    others = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    if labels is not None:
        others &= (labels != labels[:, None]) | (labels < 0)
    true = scores.diagonal()
    found = {
        "image_to_text": (F.relu(margin + scores - true[:, None]) * others).sum() / scores.numel(),
        "text_to_image": (F.relu(margin + scores - true[None, :]) * others).sum() / scores.numel(),
    }
    return {"loss": sum(found.values()) if symmetric else found["image_to_text"], **found}  # type: ignore[dict-item]


def class_retrieval(images: Tensor, sentences: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """How often a class is found by the mean vector of its captions, and by that of its images.

    This is the zero-shot classification of the paper where the classes are held out. An image without a class is a
    class of its own.

    Args:
        images: (N, D).
        sentences: (N, D), a caption of each.
        labels: (N,) int64 classes, -1 for none.

    Returns:
        Scalars float32: ``class_accuracy``, the share of images whose highest score is with the mean caption of their
        class; ``caption_class_accuracy``, that of captions with the mean image of theirs; both are means over the
        classes, so a guess has ``class_chance``, one over their number. Of k equal highest scores the true one counts
        as a k-th.
    """
    own = torch.arange(len(labels), device=labels.device) + labels.clamp_min(0).max() + 1
    classes, members = torch.unique(torch.where(labels < 0, own, labels), return_inverse=True)
    counts = torch.bincount(members, minlength=len(classes)).to(torch.float32)

    def per_class(values: Tensor) -> Tensor:
        sums = values.new_zeros(len(classes), *values.shape[1:]).index_add_(0, members, values)
        return sums / counts.view(-1, *[1] * (values.dim() - 1))

    def accuracy(queries: Tensor, means: Tensor) -> Tensor:
        scores = queries @ means.T
        best = scores == scores.amax(1, keepdim=True)
        hits = best.gather(1, members[:, None]).squeeze(1).float() / best.sum(1)
        return per_class(hits).mean()

    images, sentences = images.float(), sentences.float()
    return {
        "class_accuracy": accuracy(images, per_class(sentences)),
        "caption_class_accuracy": accuracy(sentences, per_class(images)),
        "class_chance": 1 / counts.new_tensor(len(classes)),
    }
