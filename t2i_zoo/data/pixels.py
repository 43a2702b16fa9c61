"""The pictures of a store as one uint8 tensor, and how crops are cut out of it, on whichever device it lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from t2i_zoo.data.transforms import Crops


@dataclass
class Pixels:
    """All pictures of a store.

    Attributes:
        data: (N, L, L, 3) uint8 where all are squares of one size, else (bytes,) with one picture after the other.
        shapes: (N, 2) int64 height and width of each.
        starts: (N,) int64 first byte of each in a flat ``data``, else None.
    """

    data: Tensor
    shapes: Tensor
    starts: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the pictures lie."""
        return self.data.device

    def to(self, device: torch.device) -> Pixels:
        """The same pictures on another device."""
        starts = None if self.starts is None else self.starts.to(device)
        return Pixels(self.data.to(device), self.shapes.to(device), starts)

    def gather(self, rows: Tensor, crops: Crops, size: int) -> Tensor:
        """Cut pictures out without copying them whole: (B,) rows to (B, 3, size, size) uint8."""
        if self.starts is None:
            windows = self.data.unfold(1, size, 1).unfold(2, size, 1)  # (N, L - S + 1, L - S + 1, 3, S, S), a view
            return windows[rows, crops.top, crops.left]
        widths = self.shapes[rows, 1]
        first = self.starts[rows] + 3 * (crops.top * widths + crops.left)
        # an index a byte is eight times the pixels: good where thousands of threads follow it, slow on a CPU
        return (copy_windows if self.device.type == "cpu" else index_windows)(self.data, first, widths, size)


def copy_windows(data: Tensor, first: Tensor, widths: Tensor, size: int) -> Tensor:
    """Windows of pictures in a flat array, one copy each: first bytes and widths (B,) to (B, 3, size, size)."""
    out = torch.empty(len(first), 3, size, size, dtype=torch.uint8)
    for picture, start, width in zip(out, first.tolist(), widths.tolist(), strict=True):
        picture.copy_(data.as_strided((3, size, size), (1, 3 * width, 3), start))
    return out


def index_windows(data: Tensor, first: Tensor, widths: Tensor, size: int) -> Tensor:
    """The same by one gather, without asking the host for anything."""
    line = torch.arange(size, device=data.device)
    channels = torch.arange(3, device=data.device)[:, None, None]
    rows = first[:, None] + 3 * widths[:, None] * line  # (B, S) first byte of each row
    return data[rows[:, None, :, None] + 3 * line + channels]
