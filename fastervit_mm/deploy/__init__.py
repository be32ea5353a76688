"""Export to ONNX and ``torch.export``, the check of what was exported, int8.

Importing this registers the hook that tests a network by its exported file.
"""
from .check import check, evaluate, print_checks
from .export import ExportError, choose_part, export, load_model
from .hook import ExportedHook
from .quantize import quantize
from .running import ExportedFile

__all__ = ['ExportError', 'ExportedFile', 'ExportedHook', 'check', 'choose_part', 'evaluate',
           'export', 'load_model', 'print_checks', 'quantize']
