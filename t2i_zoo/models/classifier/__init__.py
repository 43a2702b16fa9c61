"""A classifier of a data set's own classes, with which metrics judge generated images."""

from t2i_zoo.models.classifier.module import Classifier

__all__ = ["Classifier"]
