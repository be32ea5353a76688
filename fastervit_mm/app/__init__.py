"""A page in the browser to try trained checkpoints."""
from .finding import Trained, find_trained, pairs
from .predicting import Predictor

__all__ = ['Predictor', 'Trained', 'find_trained', 'pairs']
