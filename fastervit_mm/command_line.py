"""Settings and errors of the programs in tools/."""
import argparse
import contextlib
import re
import sys
import traceback
from typing import Iterator, Optional

from mmengine.config import DictAction

from .compat import ignore_pkg_resources
from .config_files import typed
from .operators import broken_mmcv

_OURS = (__package__, '__main__')  # a program's own code is `__main__`


class Settings(DictAction):
    """mmengine's ``KEY=VALUE`` settings, with errors in one line."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values,
                 option_string: Optional[str] = None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError, SyntaxError) as error:
            raise argparse.ArgumentError(
                self, f'give KEY=VALUE, each; got {" ".join(values)!r} ({error})') from error


@contextlib.contextmanager
def errors_in_one_line(tool: str, go_on: str = '') -> Iterator[None]:
    """Report errors that users can fix in one line.

    They are this package's own exceptions, system errors such as a missing file, images that mmcv
    cannot read, ValueErrors, and errors from building a part of a config; the line names file and
    line of those raised elsewhere. In a running training or test, and under ``python -X dev``,
    errors keep their traceback. Ctrl-C ends the program with a line too, and status 130.

    Args:
        tool: The program's name.
        go_on: How to go on after Ctrl-C. Default nothing.

    Raises:
        SystemExit: Instead of those errors.
    """
    ignore_pkg_resources()
    try:
        yield
    except KeyboardInterrupt as error:
        if sys.flags.dev_mode:
            raise
        said = str(error) or 'stopped'
        print(f'{tool}: {said}' + f'; {go_on}' * bool(go_on), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = None if sys.flags.dev_mode else _message(error)
        if message is None:
            raise
        sys.exit(f'{tool}: {message}')


def _message(error: Exception) -> Optional[str]:
    if remedy := broken_mmcv(error):
        return remedy
    unreadable = re.search('failed to load image: (.+)', str(error))
    if isinstance(error, AssertionError) and unreadable:  # mmcv's; the file is at fault
        return (f'{unreadable[1]}: not an image that OpenCV can read. '
                f'"{typed("prepare_data.py")} check" finds every such file')
    if _package(type(error).__module__) == __package__ or isinstance(error, OSError):
        # A message from a data loader's process contains the traceback.
        return str(error).strip().rpartition('\n')[2] if 'DataLoader worker' in str(error) else (
            str(error))
    frames = list(traceback.walk_tb(error.__traceback__))
    modules = [frame.f_globals.get('__name__', '') for frame, _ in frames]
    if isinstance(error, (ImportError, ValueError)) and _package(modules[-1]) in _OURS:
        return str(error)
    if isinstance(error, AssertionError) and 'is used but incompatible' in str(error):
        return f'{error} In a clone of fastervit_mm: pip install \'.[openmmlab]\''
    names = list(zip(modules, (frame.f_code.co_name for frame, _ in frames)))
    if ('mmengine.runner.loops', 'run') in names:
        return None
    frame, line = frames[-1]
    place = f'({frame.f_code.co_filename}, line {line})'
    if ('mmengine.registry.build_functions', 'build_from_cfg') in names:
        # The innermost part of the config that was being built.
        part = [frame for name, (frame, _) in zip(names, frames) if name[1] == 'build_from_cfg'][-1]
        kind = getattr(part.f_locals['cfg'], 'get', dict().get)('type')
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        return f'type={kind!r}: cannot be built: {type(error).__name__}: {reason} {place}'
    return f'{error} {place}' if isinstance(error, ValueError) else None


def _package(module: str) -> str:
    return module.partition('.')[0]
