"""A page in the browser to try trained checkpoints and exported files."""
from .finding import Trained, find_trained, pairs
from .predicting import FilePredictor, Predictor, predictor_of

__all__ = ['FilePredictor', 'Predictor', 'Trained', 'find_trained', 'pairs', 'predictor_of']
