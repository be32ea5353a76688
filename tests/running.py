"""This repository's tools as processes of their own, without the seconds that imports take.

A server process imports torch, mmdet and mmseg once for all tests of a worker; each tool is a fork
of it (multiprocessing's forkserver). It has its own arguments, folder, environment and output, and
ends with its own exit status, as if it had been typed. For what the import itself does, and where
a process has to be killed, tests start Python anew.
"""
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import traceback
import warnings
from multiprocessing import reduction
from pathlib import Path
from typing import Mapping, NamedTuple, Optional, Sequence, Union

from mmengine.config import config

from tests.conftest import REPO

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['tests.preloaded'])


class Done(NamedTuple):
    """A process that has ended: its exit status, and what it printed."""
    returncode: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run_tool(name: str, *arguments, cwd: Union[str, Path],
             environment: Optional[Mapping[str, str]] = None, without: Sequence[str] = (),
             warn: bool = False, layout: bool = False) -> Done:
    """Run one of the tools as ``python -W ignore tools/NAME ARGUMENTS`` does.

    Args:
        name: Such as ``'train.py'``, or a module of the laboratory, such as ``'benchmarks.demo'``.
        *arguments: What follows it.
        cwd: Working folder.
        environment: Variables beside those of this process.
        without: Modules that it cannot import.
        warn: Leave ``-W ignore`` out.
        layout: Let yapf lay out the config each time that it is printed or saved, which takes
            half a second each of some seven times; else it is one long line.
    """
    with tempfile.TemporaryFile('w+') as stdout, tempfile.TemporaryFile('w+') as stderr:
        streams = [reduction.DupFd(stream.fileno()) for stream in (stdout, stderr)]
        process = _CONTEXT.Process(target=_run, args=(
            str(REPO / 'tools' / name), [str(a) for a in arguments], str(cwd),
            {**os.environ, **(environment or {})}, streams, without, warn, layout))
        process.start()
        process.join()
        stdout.seek(0)
        stderr.seek(0)
        return Done(process.exitcode, stdout.read(), stderr.read())


class Started:
    """A tool that runs, with a process group of its own; what it prints goes to a file.

    Args:
        log: The file, which grows.
        name, *arguments, cwd, environment: As those of :func:`run_tool`.
    """

    def __init__(self, log: Path, name: str, *arguments, cwd: Union[str, Path],
                 environment: Optional[Mapping[str, str]] = None):
        with log.open('a') as file:
            streams = [reduction.DupFd(file.fileno()) for _ in range(2)]
            self._process = _CONTEXT.Process(target=_run, args=(
                str(REPO / 'tools' / name), [str(a) for a in arguments], str(cwd),
                {**os.environ, **(environment or {})}, streams, (), False, False, True))
            self._process.start()
        self.pid = self._process.pid

    def poll(self) -> Optional[int]:
        """Its exit status, or None while it runs; minus the signal that killed it."""
        self._process.join(0)
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode


def _run(script: str, arguments: list, cwd: str, environment: dict, streams: list,
         without: Sequence[str], warn: bool, layout: bool, own_group: bool = False) -> None:
    if own_group:
        os.setsid()
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.detach(), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = [script, *arguments]
    sys.path[:1] = [os.path.dirname(script), str(REPO)]
    sys.modules.update(dict.fromkeys(without))
    multiprocessing.set_start_method(None, force=True)  # not the one by which this began
    # The server has the options of the process that started it, maybe -W ignore.
    warnings.filters[:] = [f for f in warnings.filters if f[:4] != ('ignore', None, Warning, None)]
    warnings.simplefilter('default' if warn else 'ignore', append=warn)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run with `&`
    if not layout:
        config.FormatCode = lambda text, **_: (text, False)
    status = 0
    try:
        if Path(script).name.startswith('benchmarks.'):
            runpy.run_module(Path(script).name, run_name='__main__', alter_sys=True)
        else:
            runpy.run_path(script, run_name='__main__')
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(status)
