"""Callbacks of a run: sample grids, predictions as files, a clean stop."""

from t2i_zoo.callbacks.samples import PredictionWriter, SampleGrid
from t2i_zoo.callbacks.stop import GracefulStop

__all__ = ["GracefulStop", "PredictionWriter", "SampleGrid"]
