"""Prediction from Python. Neither mmdet nor mmseg is imported before a config needs it."""
from .inferencer import Inferencer
from .inputs import Failure
from .outputs import Prediction, Results

__all__ = ['Failure', 'Inferencer', 'Prediction', 'Results']
