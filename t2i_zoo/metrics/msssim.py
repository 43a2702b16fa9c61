"""Multi-scale structural similarity (Wang et al. 2003) of images of any size, as in TAC-GAN's evaluation.

The one of torchmetrics refuses images below 176 px at five scales; the published code shrinks the window instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA, _K1, _K2 = 11, 1.5, 0.01, 0.03


def ms_ssim(first: Tensor, second: Tensor, data_range: float = 255.0) -> Tensor:
    """Similarity (B,) of images (B, 3, S, S) and (B, 3, S, S) with values from 0 to ``data_range``.

    Windows are 11 pixels wide with a standard deviation of 1.5. Where the image of a scale is smaller than that, both
    shrink to its width. Negative contrast counts as zero; the published code yields NaN.
    """
    result = torch.ones(len(first), dtype=first.dtype, device=first.device)
    for scale, weight in enumerate(WEIGHTS):
        similarity, contrast = _one_scale(first, second, data_range)
        last = scale == len(WEIGHTS) - 1
        result = result * (similarity if last else contrast).clamp(min=0) ** weight
        if not last:  # an odd last row or column is averaged with itself
            first, second = (F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (first, second))
    return result


def _one_scale(x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Similarity and contrast term (B,), averaged over positions and channels."""
    size = min(_WINDOW, *x.shape[-2:])
    place = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
    window = torch.exp(-(place**2) / (2 * (size * _SIGMA / _WINDOW) ** 2))
    window = (window / window.sum()).expand(x.shape[1], 1, 1, size)

    def blur(values: Tensor) -> Tensor:
        across = F.conv2d(values, window, groups=values.shape[1])
        return F.conv2d(across, window.transpose(2, 3), groups=values.shape[1])

    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    contrast = (2 * (blur(x * y) - mean_x * mean_y) + c2) / (var_x + var_y + c2)
    light = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (light * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))
