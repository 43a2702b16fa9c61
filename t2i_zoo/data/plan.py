"""What each batch is made of, decided ahead of any pixel: a pure function of seed, epoch, rank and batch number.

So a resumed run meets the very batches that it would have met, and two ranks never meet the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from t2i_zoo.data.mismatch import MismatchSampler
from t2i_zoo.data.transforms import Crops, centre_crops, draw_crops
from t2i_zoo.seeds import stable_seed

Order = Literal["shuffle", "class_balanced"]


class Plan(NamedTuple):
    """One batch before its pixels are read.

    Attributes:
        positions: (B,) of the images in the split.
        rows: (B,) of the images in the store.
        captions: (B, K) caption numbers; the features of K captions are averaged.
        crops: where the images are cut.
        wrong_rows, wrong_captions, wrong_crops: the same for the mismatched images.
    """

    positions: Tensor
    rows: Tensor
    captions: Tensor
    crops: Crops
    wrong_rows: Tensor
    wrong_captions: Tensor
    wrong_crops: Crops


@dataclass
class Planner:
    """Draws the plans of one split.

    Args:
        rows: (N,) store positions of the split's images.
        labels: (N,) their classes, -1 for none.
        offsets: (M + 1,) caption offsets of the whole store of M images.
        batch_size: B, of each rank.
        captions_averaged: K.
        room: (M, 2) rows and columns by which each image of the store exceeds the crop, in pixels.
        order: every image once an epoch, or a class drawn uniformly and then one of its images (the authors' way).
        augment: random crops and mirrors; without it the centre.
        train: whether this is the training split; others keep their order and are not augmented.
        seed: of all draws.
        rank, world: number of this process and of all processes.
    """

    rows: Tensor
    labels: Tensor
    offsets: Tensor
    batch_size: int
    captions_averaged: int
    room: Tensor
    order: Order
    augment: bool
    train: bool
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        self.mismatch = MismatchSampler(self.labels)
        self.classes, self.group, self.sizes = torch.unique(self.labels, return_inverse=True, return_counts=True)
        self.by_class = torch.argsort(self.group, stable=True)
        self.starts = torch.cumsum(self.sizes, 0) - self.sizes

    def __len__(self) -> int:
        """Batches of this rank an epoch; training drops the ragged one, evaluation wraps so that ranks stay level."""
        share = len(self.rows) // self.world if self.train else -(-len(self.rows) // self.world)
        return share // self.batch_size if self.train else -(-share // self.batch_size)

    def epoch_order(self, epoch: int) -> Tensor:
        """This rank's positions in the split for one epoch."""
        count = len(self.rows)
        if not self.train:
            padded = -(-count // self.world) * self.world
            return (torch.arange(padded) % max(count, 1))[self.rank :: self.world]
        rng = torch.Generator().manual_seed(stable_seed(self.seed, epoch))
        return torch.randperm(count, generator=rng)[self.rank :: self.world]

    def plan(self, epoch: int, batch: int, order: Tensor) -> Plan:
        """The plan of batch number ``batch``; evaluation repeats the same plans in every epoch."""
        moment = (epoch, self.rank, batch) if self.train else (-1, self.rank, batch)
        rng = torch.Generator().manual_seed(stable_seed(self.seed, *moment))
        index = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        if self.train and self.order == "class_balanced":
            drawn = torch.randint(len(self.classes), (self.batch_size,), generator=rng)
            within = (torch.rand(self.batch_size, generator=rng) * self.sizes[drawn]).long()
            index = self.by_class[self.starts[drawn] + torch.minimum(within, self.sizes[drawn] - 1)]
        wrong = self.mismatch.draw(index, rng) if len(self.rows) > 1 else index
        rows, wrong_rows = self.rows[index], self.rows[wrong]
        captions, wrong_captions = self._captions(rows, rng), self._captions(wrong_rows, rng)
        if self.augment and self.train:
            crops, wrong_crops = (draw_crops(self.room[cut], True, rng) for cut in (rows, wrong_rows))
        else:
            crops, wrong_crops = (centre_crops(self.room[cut]) for cut in (rows, wrong_rows))
        return Plan(index, rows, captions, crops, wrong_rows, wrong_captions, wrong_crops)

    def _captions(self, rows: Tensor, rng: torch.Generator) -> Tensor:
        """Caption numbers (B, K), drawn with replacement among each image's own, as the authors do.

        Where images have no captions the numbers mean nothing, and are never looked up.
        """
        first, amount = self.offsets[rows][:, None], (self.offsets[rows + 1] - self.offsets[rows])[:, None]
        drawn = (torch.rand(len(rows), self.captions_averaged, generator=rng) * amount).long()
        return first + torch.minimum(drawn, amount - 1)


class Plans:
    """One epoch of plans after another, which Lightning iterates over in place of a torch ``DataLoader``.

    Only small index tensors pass through here (pixels are read where they are needed), so worker processes would cost
    more than they bring. ``state_dict`` makes it resumable in the middle of an epoch.
    """

    def __init__(self, planner: Planner, epoch: Callable[[], int]) -> None:
        self.planner, self.epoch = planner, epoch
        self._done = self._first = 0

    def __len__(self) -> int:
        return len(self.planner)

    def __iter__(self) -> Iterator[Plan]:
        # A generator asks for the epoch at its first step: Lightning calls iter() before it knows the epoch it resumes.
        epoch, first, self._first = self.epoch(), self._first, 0
        order, self._done = self.planner.epoch_order(epoch), first
        for batch in range(first, len(self)):
            self._done = batch + 1
            yield self.planner.plan(epoch, batch, order)

    def state_dict(self) -> dict[str, int]:
        """How many batches of the running epoch were handed out."""
        return {"batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch behind the batches that were handed out already."""
        self._first = self._done = state["batches"] % max(len(self), 1)
