"""A classifier of a data set's own classes, which metrics can look at generated images with."""

from t2i_zoo.models.classifier.module import Classifier

__all__ = ["Classifier"]
