"""Prediction from Python. Neither mmdet nor mmseg is imported before a config needs it."""
from .inferencer import Inferencer, Prediction, Results
from .inputs import Failure

__all__ = ['Failure', 'Inferencer', 'Prediction', 'Results']
