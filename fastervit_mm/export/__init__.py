"""Export to ONNX and ``torch.export``, checks of the file, int8, float16.

Importing this registers the hook that tests a network by its exported file.
"""
from . import runtime  # sets what onnxruntime reads when it is imported
from .check import check, check_preprocessing, evaluate, print_checks
from .errors import ExportError
from .half import halve
from .hook import ExportedHook
from .parts import choose_part
from .quantize import quantize
from .running import ExportedFile
from .writing import export

__all__ = ['ExportError', 'ExportedFile', 'ExportedHook', 'check', 'check_preprocessing',
           'choose_part', 'evaluate', 'export', 'halve', 'print_checks', 'quantize', 'runtime']
