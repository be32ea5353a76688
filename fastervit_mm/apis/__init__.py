"""Prediction from Python; imports mmdet or mmseg only when needed."""
from .inferencer import Inferencer
from .inputs import Failure
from .outputs import Prediction, Results

__all__ = ['Failure', 'Inferencer', 'Prediction', 'Results']
