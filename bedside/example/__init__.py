"""The breast-cancer example: real data, a small model, and the people it is asked about."""

from bedside.example.data import FEATURES, Cohorts, Patient, matrix, split
from bedside.example.training import EXAMPLE_MODEL, THRESHOLD, Classifier, train

__all__ = [
    "EXAMPLE_MODEL",
    "FEATURES",
    "THRESHOLD",
    "Classifier",
    "Cohorts",
    "Patient",
    "matrix",
    "split",
    "train",
]
