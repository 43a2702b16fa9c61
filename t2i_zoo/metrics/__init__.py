"""Metrics of generated images. Every number follows a protocol with a name and a hash, the same for all models."""

from t2i_zoo.metrics.base import Score
from t2i_zoo.metrics.evaluation import Report, evaluate
from t2i_zoo.metrics.networks import DualEncoder, Network, build_network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.metrics.protocol import METRICS, Protocol, list_protocols, load_protocol

__all__ = [
    "METRICS",
    "DualEncoder",
    "Network",
    "Photographs",
    "Protocol",
    "Report",
    "Score",
    "build_network",
    "evaluate",
    "list_protocols",
    "load_protocol",
]
