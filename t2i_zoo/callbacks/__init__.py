"""Callbacks of a run: checkpoints, sample grids, predictions as files, a clean stop."""

from t2i_zoo.callbacks.resume import FurtherCheckpoints, ResumePoint, further_checkpoints
from t2i_zoo.callbacks.samples import PredictionWriter, SampleGrid
from t2i_zoo.callbacks.stop import GracefulStop
from t2i_zoo.callbacks.watch import Watch

__all__ = [
    "FurtherCheckpoints",
    "GracefulStop",
    "PredictionWriter",
    "ResumePoint",
    "SampleGrid",
    "Watch",
    "further_checkpoints",
]
