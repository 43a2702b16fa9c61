"""The images of a store as one uint8 tensor, and how crops are cut out of it, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from t2i_zoo.data.transforms import Crops


@dataclass
class StoreImages:
    """All images of a store.

    Attributes:
        data: (N, L, L, 3) uint8 where all are squares of one size, else (bytes,) with one image after the other.
        shapes: (N, 2) int64 height and width of each.
        starts: (N,) int64 first byte of each in a flat ``data``, else None.
    """

    data: Tensor
    shapes: Tensor
    starts: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.data.device

    def to(self, device: torch.device) -> StoreImages:
        """The same images on another device."""
        starts = None if self.starts is None else self.starts.to(device)
        return StoreImages(self.data.to(device), self.shapes.to(device), starts)

    def gather(self, rows: Tensor, crops: Crops, size: int) -> Tensor:
        """Cut images out and mirror them, without copying them whole: (B,) rows to (B, 3, size, size) uint8.

        On a CPU the three colours of a pixel stay together (``channels_last``), so that whole rows are copied.
        """
        widths = self.shapes[rows, 1]
        starts = rows * self.data[0].numel() if self.starts is None else self.starts[rows]
        first = starts + 3 * (crops.top * widths + crops.left)
        # an index for each byte takes eight times the memory of the pixels: fast on a GPU, slow on a CPU
        cut = copy_windows if self.device.type == "cpu" else index_windows
        return cut(self.data.view(-1), first, widths, crops.flip, size)


def copy_windows(data: Tensor, first: Tensor, widths: Tensor, flip: Tensor, size: int) -> Tensor:
    """Windows of images in a flat array, one copy each.

    Args:
        data: (bytes,) uint8, rows of pixels of three bytes.
        first: (B,) int64 first byte of each window.
        widths: (B,) int64 width of each image in pixels.
        flip: (B,) bool, which windows are mirrored.
        size: side of the windows.

    Returns:
        (B, 3, size, size) uint8, ``channels_last``.
    """
    out = torch.empty(len(first), size, size, 3, dtype=torch.uint8)
    for image, start, width, mirrored in zip(out, first.tolist(), widths.tolist(), flip.tolist(), strict=True):
        window = data.as_strided((size, size, 3), (3 * width, 3, 1), start)
        image.copy_(window.flip(1) if mirrored else window)
    return out.permute(0, 3, 1, 2)


def index_windows(data: Tensor, first: Tensor, widths: Tensor, flip: Tensor, size: int) -> Tensor:
    """The same by one gather, without asking the host for anything; contiguous."""
    line = torch.arange(size, device=data.device)
    channels = torch.arange(3, device=data.device)[:, None, None]
    rows = first[:, None] + 3 * widths[:, None] * line  # (B, S) first byte of each row
    columns = torch.where(flip[:, None], line.flip(0), line)  # (B, S)
    return data[rows[:, None, :, None] + 3 * columns[:, None, None, :] + channels]
