"""What each batch is made of, decided ahead of any pixel: a pure function of seed, epoch, rank and batch number.

So a resumed run meets the very batches that it would have met, and two ranks never meet the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from t2i_zoo.data.mismatch import MismatchSampler
from t2i_zoo.data.transforms import Crops, centre_crops, place_crops
from t2i_zoo.seeds import stable_seed

Order = Literal["shuffle", "class_balanced"]
_TOGETHER = 32  # batches that are planned at once


@dataclass(frozen=True)
class Plan:
    """One batch before its pixels are read, as one tensor: its parts are views, and one copy brings it to a device.

    Attributes:
        packed: (B, 11 + 2 K) int64, each column what a property says.
    """

    packed: Tensor

    def to(self, device: torch.device) -> Plan:
        """The same plan elsewhere; the host does not wait for a GPU."""
        if device.type != "cuda" or self.packed.is_cuda:
            return Plan(self.packed.to(device))
        return Plan(self.packed.pin_memory().to(device, non_blocking=True))

    @property
    def positions(self) -> Tensor:
        """(B,) of the images in the split."""
        return self.packed[:, 0]

    @property
    def rows(self) -> Tensor:
        """(B,) of the images in the store."""
        return self.packed[:, 1]

    @property
    def labels(self) -> Tensor:
        """(B,) classes of the images, -1 for none."""
        return self.packed[:, 2]

    @property
    def crops(self) -> Crops:
        """Where the images are cut."""
        return Crops(self.packed[:, 3], self.packed[:, 4], self.packed[:, 5].bool())

    @property
    def wrong_rows(self) -> Tensor:
        """(B,) of the mismatched images in the store."""
        return self.packed[:, 6]

    @property
    def wrong_labels(self) -> Tensor:
        """(B,) classes of the mismatched images."""
        return self.packed[:, 7]

    @property
    def wrong_crops(self) -> Crops:
        """Where the mismatched images are cut."""
        return Crops(self.packed[:, 8], self.packed[:, 9], self.packed[:, 10].bool())

    @property
    def captions(self) -> Tensor:
        """(B, K) caption numbers; the features of K captions are averaged."""
        return self.packed[:, 11:].chunk(2, 1)[0]

    @property
    def wrong_captions(self) -> Tensor:
        """(B, K) caption numbers of the mismatched images."""
        return self.packed[:, 11:].chunk(2, 1)[1]


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
        groups: (N,) images of one number are not mismatched with each other; by default their classes.
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
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        self.mismatch = MismatchSampler(self.labels if self.groups is None else self.groups)
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
        return self._some(epoch, range(batch, batch + 1), order)[0]

    def plans(self, epoch: int, first: int = 0) -> Iterator[Plan]:
        """The plans of an epoch from batch number ``first`` on."""
        order, count = self.epoch_order(epoch), len(self)
        for start in range(first, count, _TOGETHER):
            yield from self._some(epoch, range(start, min(start + _TOGETHER, count)), order)

    def _some(self, epoch: int, batches: range, order: Tensor) -> list[Plan]:
        """Consecutive plans: numbers are drawn batch by batch, and what follows from them is worked out at once."""
        size, balanced = self.batch_size, self.train and self.order == "class_balanced"
        index = order[batches.start * size : batches.stop * size]
        count = len(batches) * size if balanced else len(index)
        classes, within = torch.empty(count, dtype=torch.int64), torch.empty(count)
        other = torch.empty(count, dtype=torch.float64)
        texts = [torch.empty(count, self.captions_averaged) for _ in range(2)]
        offsets = [torch.empty(count, 2, dtype=torch.float64) for _ in range(2)]
        coins = [torch.empty(count) for _ in range(2)]
        uniform = [*([within] if balanced else []), *([other] if len(self.rows) > 1 else []), *texts]
        if augment := self.augment and self.train:
            uniform += [offsets[0], coins[0], offsets[1], coins[1]]
        for number, of_class, *parts in zip(
            batches, *(torch.split(each, size) for each in (classes, *uniform)), strict=True
        ):
            # a generator of its own: what a batch is must not depend on where its run was stopped
            moment = (epoch, self.rank, number) if self.train else (-1, self.rank, number)
            rng = torch.Generator().manual_seed(stable_seed(self.seed, *moment))
            if balanced:
                of_class.random_(len(self.classes), generator=rng)
            for part in parts:
                part.uniform_(generator=rng)
        if balanced:
            place = torch.minimum((within * self.sizes[classes]).long(), self.sizes[classes] - 1)
            index = self.by_class[self.starts[classes] + place]
        wrong = self.mismatch.pick(index, other) if len(self.rows) > 1 else index
        columns = [index[:, None]]
        for positions, offset, coin in zip((index, wrong), offsets, coins, strict=True):
            room = self.room[rows := self.rows[positions]]
            crops = place_crops(room, offset, coin) if augment else centre_crops(room)
            columns.append(torch.stack([rows, self.labels[positions], *crops], 1))
        columns += [self._captions(self.rows[of], text) for of, text in zip((index, wrong), texts, strict=True)]
        return [Plan(packed) for packed in torch.split(torch.cat(columns, 1), size)]

    def _captions(self, rows: Tensor, drawn: Tensor) -> Tensor:
        """Caption numbers (B, K) of draws with replacement among each image's own, as the authors do.

        Where images have no captions the numbers mean nothing, and are never looked up.
        """
        first, amount = self.offsets[rows][:, None], (self.offsets[rows + 1] - self.offsets[rows])[:, None]
        return first + torch.minimum((drawn * amount).long(), amount - 1)


class Plans:
    """One epoch of batches after another, which Lightning iterates over in place of a torch ``DataLoader``.

    A thread plans and gathers the next batch while the last one is in use; nothing is decoded, so worker processes
    would cost more than they bring. ``state_dict`` makes it resumable in the middle of an epoch.

    Args:
        planner: of the split.
        epoch: asked at the first batch of each iteration.
        gather: makes a batch of its plan.
    """

    def __init__(
        self, planner: Planner, epoch: Callable[[], int], gather: Callable[[Plan], Any] = lambda plan: plan
    ) -> None:
        self.planner, self.epoch, self.gather = planner, epoch, gather
        self._done = self._first = 0

    def __len__(self) -> int:
        return len(self.planner)

    def __iter__(self) -> Iterator[Any]:
        # A generator asks for the epoch at its first step: Lightning calls iter() before it knows the epoch it resumes.
        epoch, first, self._first = self.epoch(), self._first, 0
        self._done = first
        gathered = map(self.gather, self.planner.plans(epoch, first))
        with ThreadPoolExecutor(1) as beside:
            begun = beside.submit(next, gathered, None)
            while (batch := begun.result()) is not None:
                begun = beside.submit(next, gathered, None)
                self._done += 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        """How many batches of the running epoch were handed out."""
        return {"batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch behind the batches that were handed out already."""
        self._first = self._done = state["batches"] % max(len(self), 1)
