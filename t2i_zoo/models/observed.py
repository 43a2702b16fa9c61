"""Images as a model's discriminators see them: the only way from a loss to a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from t2i_zoo.nn import ConditionalDiscriminator, Logits


class Observed:
    """Images of every size with their features, which are computed once and judged with any number of conditions.

    Args:
        discriminators: one per size, smallest first.
        images: pyramid of (B, 3, S, S) in [-1, 1], smallest first, already augmented.
        note: called with the logits of each judgement.
        alone: whether unconditional logits are wanted where a discriminator has them.
    """

    def __init__(
        self,
        discriminators: Sequence[ConditionalDiscriminator],
        images: Sequence[Tensor],
        note: Callable[[list[Logits]], Any] = lambda logits: None,
        alone: bool = True,
    ) -> None:
        self.discriminators, self._note = discriminators, note
        pairs = zip(discriminators, images[-len(discriminators) :], strict=True)
        self.features = [discriminator.features(x) for discriminator, x in pairs]
        self._alone: list[Tensor | None] | None = None if alone else [None] * len(discriminators)

    def judge(self, condition: Tensor | None, rows: Tensor | slice | None = None) -> list[Logits]:
        """Logits of each size.

        Args:
            condition: (B, C), or (P, C) for P ``rows``; None without text.
            rows: the images to judge, all by default. Unconditional logits are computed once for all images.
        """
        if self._alone is None:
            pairs = zip(self.discriminators, self.features, strict=True)
            self._alone = [discriminator.judge_alone(features) for discriminator, features in pairs]
        found = []
        for discriminator, features, alone in zip(self.discriminators, self.features, self._alone, strict=True):
            logits = Logits()
            if condition is not None:
                logits = discriminator.judge(features if rows is None else _select(features, rows), condition)
            if alone is not None:
                logits = logits._replace(unconditional=alone if rows is None else alone[rows])
            found.append(logits)
        self._note(found)
        return found

    def maps(self) -> list[Tensor]:
        """All feature maps, (B, ...) each."""
        return [x for found in self.features for x in ([found] if isinstance(found, Tensor) else found)]


def _select(features: Any, rows: Tensor | slice) -> Any:
    return features[rows] if isinstance(features, Tensor) else [x[rows] for x in features]
