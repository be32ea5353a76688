"""What the programs in tools/ have in common."""
import contextlib
import sys
import traceback
from typing import Iterator, Optional

_OURS = (__package__, '__main__')  # a program's own code is `__main__`


@contextlib.contextmanager
def errors_in_one_line(tool: str) -> Iterator[None]:
    """End a program with ``tool: message`` and exit status 1 where its user can put things right.

    That is for this package's own exceptions (some of which list several problems), for errors of
    the system such as a missing file, and for a ValueError. A ValueError of other code has its file
    and line too; once a training or a test runs, it keeps its traceback, as every other exception
    does.

    Args:
        tool: The program's name.

    Raises:
        SystemExit: Instead of those errors.
    """
    try:
        yield
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        sys.exit(f'{tool}: {message}')


def _message(error: Exception) -> Optional[str]:
    if _package(type(error).__module__) == __package__ or isinstance(error, OSError):
        return str(error)
    if not isinstance(error, ValueError):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))
    modules = [frame.f_globals.get('__name__', '') for frame, _ in frames]
    if _package(modules[-1]) in _OURS:
        return str(error)
    if any(module == 'mmengine.runner.loops' and frame.f_code.co_name == 'run'
           for module, (frame, _) in zip(modules, frames)):
        return None
    frame, line = frames[-1]
    return f'{error} ({frame.f_code.co_filename}, line {line})'


def _package(module: str) -> str:
    return module.partition('.')[0]
