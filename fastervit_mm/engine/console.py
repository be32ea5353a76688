"""Console filter for messages that need no action."""
import logging
import os
import re
import sys
import warnings
from contextlib import contextmanager
from typing import Iterator

from mmengine.logging import MMLogger
from pycocotools import coco, cocoeval

# Messages of mmengine, mmdet, mmseg and torch in every run, by their first words.
_FILE_ONLY = re.compile('|'.join((
    'Config:', 'Hooks will be executed', 'paramwise_options', '-+\nSystem environment:',
    'Distributed training is not used, all SyncBatchNorm',
    '"FileClient" will be deprecated', '"HardDiskBackend" is the alias of',
    'The prefix is not set in metric class',
    '`(save|resume)_param_scheduler` is True but', '`reduce_zero_label` will be deprecated',
    'Default ``avg_non_ignore`` is False', 'To copy construct from a tensor',
    'The draw is False, it means that the hook', 'The show is True, it means that only',
    'Warning: The (text|bbox|polygon) is out of bounds', '<class .* instance named of',
    '``build_loss`` would be deprecated', 'Exp name: ', r'\w+_mAP_copypaste: ')))

_DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
# Modules that print their progress, and the first words of what they print.
_PRINTING = (coco, cocoeval, sys.modules['mmengine.logging.logger'])
_STEPS = re.compile('(?i)' + '|'.join((
    'loads checkpoint by', 'loading annotations into', r'done \(t=', 'creating index',
    'index created', 'loading and preparing', 'running per image', 'evaluate annotation',
    'accumulating eval')))


def file_only(message: str) -> bool:
    """Whether a message belongs only in the log file."""
    return _FILE_ONLY.match(message.lstrip()) is not None


def quiet(logger: MMLogger) -> None:
    """Filter a logger's console; its log file keeps everything."""
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:  # the log file's handler is a subclass
            handler.addFilter(lambda record: not file_only(record.getMessage()))


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Redirect messages that need no action to the log file.

    These are deprecation warnings, those of :func:`file_only`, and the progress that pycocotools
    and mmengine print. Other warnings go where they went before, and tables are still printed.
    """
    def show(message, category, filename, lineno, file=None, line=None):
        if issubclass(category, _DEPRECATIONS) or file_only(str(message)):
            _to_file(warnings.formatwarning(message, category, filename, lineno, line).rstrip(),
                     logging.WARNING)
        else:
            before(message, category, filename, lineno, file, line)

    def say(*words, **settings):
        text = ' '.join(map(str, words))
        _to_file(text) if _STEPS.match(text) else print(*words, **settings)

    before = warnings.showwarning
    warnings.showwarning = show
    for module in _PRINTING:
        module.print = say  # shadows Python's own
    try:
        yield
    finally:
        warnings.showwarning = before
        for module in _PRINTING:
            vars(module).pop('print', None)


@contextmanager
def quiet_children() -> Iterator[None]:
    """Silence stderr of this process and its children."""
    terminal = os.dup(2)
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _to_file(text: str, level: int = logging.INFO) -> None:
    logger = MMLogger.get_current_instance()
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logger.makeRecord(logger.name, level, __file__, 0, text, (), None))
