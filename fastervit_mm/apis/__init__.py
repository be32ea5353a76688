"""Training, evaluation and prediction from Python.

mmdet, mmseg and mmpretrain are imported only when needed.
"""
from .inferencer import Inferencer
from .inputs import Failure
from .outputs import Prediction, Results
from .runs import Trained, evaluate, predict, train

__all__ = ['Failure', 'Inferencer', 'Prediction', 'Results', 'Trained', 'evaluate', 'predict',
           'train']
