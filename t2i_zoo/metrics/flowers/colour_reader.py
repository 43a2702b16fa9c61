"""Reads the petal colour of a flower from its pixels, by softmax regression on colour histograms.

Fitted to the training photographs and the colours that their own captions name, so that it knows what people call pink
and what purple. It sees how much of each colour there is, in the whole image and towards its centre, but no shapes.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from t2i_zoo.errors import T2IError
from t2i_zoo.metrics.flowers.colour_captions import COLOURS, petal_colour
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.references import ranks, read_cached, write_cached
from t2i_zoo.paths import cache_folder

_FORMAT = 1  # raise it with any change of what is fitted
_SIDE = 32  # larger images are averaged to this side: the noise of single pixels carries no information
_HUES, _STRENGTHS, _LIGHTS = 18, 4, 4  # bins of the histogram
_REGIONS = (math.inf, 0.75, 0.4)  # radii around the centre, in half sides
_DECAY = 0.3  # ridge penalty on the weights, beside a likelihood that is summed over photographs

Array = NDArray[np.float64]


def colour_features(images: Tensor) -> Tensor:
    """Soft colour histograms (B, D) float32, square roots of shares, of images (B, 3, S, S) in [-1, 1].

    Each pixel is divided between neighbouring bins of hue (a circle), of strength (max - min of its channels) and of
    lightness (their mean), for the whole image and for two circles around its centre.
    """
    if images.shape[-1] > _SIDE:
        images = F.interpolate(images, (_SIDE, _SIDE), mode="area")
    pixels = images.float().add(1).div(2).clamp(0, 1).flatten(2)  # (B, 3, P)
    red, green, blue = pixels.unbind(1)
    strength = pixels.amax(1) - pixels.amin(1)
    hue = torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * math.pi) * _HUES
    hues = sum((_soft_bins(hue + turn, _HUES) for turn in (-_HUES, 0, _HUES)), torch.zeros(()))  # a circle
    # the square root, since the eye distinguishes weak colours more finely than strong ones
    strengths = _soft_bins(strength.sqrt() * (_STRENGTHS - 1), _STRENGTHS)
    lights = _soft_bins(pixels.mean(1) * (_LIGHTS - 1), _LIGHTS)
    others = (strengths[..., :, None] * lights[..., None, :]).flatten(2)  # (B, P, 16)
    side = images.shape[-1]
    place = (torch.arange(side, device=images.device) - (side - 1) / 2) / (side / 2)
    radius = (place[:, None] ** 2 + place**2).sqrt().flatten()
    found = []
    for reach in _REGIONS:
        inside = (radius <= reach).float()
        shares = (hues * (inside / inside.sum())[None, :, None]).transpose(1, 2) @ others
        found.append(shares.flatten(1))
    return torch.cat(found, 1).clamp(min=0).sqrt()


def _soft_bins(values: Tensor, bins: int) -> Tensor:
    """Each value divided between the two nearest integers in 0 to ``bins - 1``: (..., bins)."""
    centres = torch.arange(bins, device=values.device)
    return (1 - (values[..., None] - centres).abs()).clamp(min=0)


class ColourReader:
    """Softmax regression from features to the seven colours.

    Args:
        weights: (D + 1, 7) float64, the bias last.
    """

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def read(self, images: Tensor) -> Tensor:
        """Numbers (B,) int64 of ``COLOURS`` for images (B, 3, S, S) in [-1, 1]."""
        weights = self.weights.to(images.device)
        return (colour_features(images).double() @ weights[:-1] + weights[-1]).argmax(1)


def fit_colours(features: Tensor, labels: Tensor, decay: float = _DECAY) -> ColourReader:
    """Fit to features (N, D) and colours (N,) by ridge-penalised likelihood; deterministic to the last digit."""
    x = features.double().numpy()
    mean = x.mean(0)
    x = x - mean
    target = np.eye(len(COLOURS))[labels.numpy()]

    def loss(flat: Array) -> tuple[float, Array]:
        weights = flat.reshape(-1, len(COLOURS))
        scores = x @ weights[:-1] + weights[-1]
        scores -= scores.max(1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(1, keepdims=True))
        away = np.exp(scores) - target
        slope = np.concatenate([x.T @ away + decay * weights[:-1], away.sum(0, keepdims=True)])
        value = -(scores * target).sum() + decay / 2 * (weights[:-1] ** 2).sum()
        return float(value), slope.ravel()

    start = np.zeros((x.shape[1] + 1) * len(COLOURS))
    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "maxfun": 1000})
    weights = found.x.reshape(-1, len(COLOURS))
    weights[-1] -= mean @ weights[:-1]
    return ColourReader(torch.from_numpy(weights))


def colour_of_captions(captions: list[str]) -> int | None:
    """The colour that more than half of the captions of a photograph that name one agree on; None if there is none."""
    named = Counter(colour for caption in captions if (colour := petal_colour(caption)))
    if not named:
        return None
    colour, count = named.most_common(1)[0]
    return COLOURS.index(colour) if 2 * count > named.total() else None


def fitted_reader(photographs: Photographs) -> ColourReader:
    """The reader for a data set at one size, fitted once and cached as ``<cache>/metrics/<hash>.npy``.

    Raises:
        T2IError: if the captions of the training photographs name fewer than two colours.
    """
    words = f"colour reader {_FORMAT} {photographs.key}"
    path = cache_folder() / "metrics" / f"{hashlib.sha256(words.encode()).hexdigest()[:24]}.npy"
    size = 1 + len(_REGIONS) * _HUES * _STRENGTHS * _LIGHTS
    if (cached := read_cached(path, size)) is not None:
        return ColourReader(cached)
    chosen, labels = [], []
    for row in photographs.split("train")[1].tolist():
        first, last = photographs.offsets[row], photographs.offsets[row + 1]
        if (colour := colour_of_captions(photographs.captions[first:last])) is not None:
            chosen.append(row)
            labels.append(colour)
    if len(set(labels)) < 2:
        raise T2IError(
            f"found {len(set(labels))} petal colours in the captions of the training photographs, expected at least 2 "
            f"of {', '.join(COLOURS)}: use a protocol without colour_agreement for these data"
        )
    features = torch.cat([colour_features(photographs.images(part)) for part in torch.split(torch.tensor(chosen), 256)])
    reader = fit_colours(features, torch.tensor(labels))
    if ranks()[0] == 0:  # the other processes have fitted the same
        write_cached(path, reader.weights)
    return reader
