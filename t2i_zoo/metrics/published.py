"""Numbers from papers and READMEs, with their source, and why they are not comparable with ours."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml  # type: ignore[import-untyped]

MARKS = {
    "verified": "read in code, a README or a stored page",
    "recalled": "recalled from the paper, not read again",
}
#: published names of the data sets of our sources
DATA = {"Flowers102": "oxford102", "CUB200": "cub", "COCOCaptions": "coco"}


class Published(NamedTuple):
    """One published number.

    Attributes:
        model: key in ``MODELS``, or another model's name.
        data: cub, oxford102 or coco.
        metric: key of a score, such as ``frechet_distance`` or ``r_precision.1``.
        value, error: as published; shares as shares.
        source: where it was published.
        read: key of ``MARKS``.
        note: what else is known about it.
        network: the network that a Frechet distance or Inception Score was measured with.
    """

    model: str
    data: str
    metric: str
    value: float
    source: str
    read: str
    error: float | None = None
    note: str = ""
    network: str = "inception_v3_tf"


def published(model: str | None = None, data: str | None = None, metric: str | None = None) -> list[Published]:
    """All published numbers, or those of one model, data set or metric."""
    rows = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text("utf-8"))
    found = [Published(**row) for row in rows]
    wanted = {"model": model, "data": data, "metric": metric}
    return [row for row in found if all(v is None or getattr(row, name) == v for name, v in wanted.items())]


def comparable(row: Published, data: str | None, network: str | None, images: int) -> str:
    """Whether our number is comparable with a published one, in words that begin with "no" or "roughly"."""
    if data != row.data:
        return f"no: {row.data}, other data"
    if row.metric.startswith("r_precision"):
        return "no: another DAMSM was trained for it"
    if row.metric == "msssim_class":
        return "roughly: other images and a corrected script"
    if network != row.network:
        return "no: other network"
    if row.metric == "inception_score" and row.model != "tacgan" and row.data != "coco":
        return "no: the published network is fine-tuned on the test classes"
    return "roughly: splits, captions, sizes and crops may differ" if images >= 30000 else "no: fewer images"
