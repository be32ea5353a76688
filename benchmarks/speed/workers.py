"""Process for each case, so that none affects another."""
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any, Callable, Dict, List

import torch

from .cases import settle
from .measure import NotMeasured, turns


class Worker:
    """Process that builds an object and answers questions about it.

    Args:
        build: A function or class of a module, called in the process.
        args: Its arguments.

    Attributes:
        settings: Settings made by :func:`~benchmarks.speed.cases.settle` in the process.

    Raises:
        NotMeasured: For an error in ``build`` or, later, in an answer.
    """

    def __init__(self, build: Callable, *args):
        context = _context()
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, torch.get_num_threads(), build, args), daemon=True)
        self._process.start()
        other.close()
        self.settings: Dict[str, object] = self._answer()

    def ask(self, name: str, *args) -> Any:
        """Value of an attribute, or result of a method."""
        self._connection.send((name, args))
        return self._answer()

    def _answer(self) -> Any:
        try:
            good, answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            good, answer = False, f'its process ended with code {self._process.exitcode}'
        if not good:
            self.close()
            raise NotMeasured(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()


def in_turns(workers: Dict[Any, Worker], rounds: int, burn_in: float,
             refuse: Callable[[Any, NotMeasured], None], show: Callable[[], None] = lambda: None
             ) -> Dict[Any, List[float]]:
    """Let cases take turns, so that noise affects all alike.

    Args:
        workers: Cases and products, by a key. Each has one lap per round; each round starts one
            later. Refused ones are removed.
        rounds: Number of rounds.
        burn_in: Seconds of calls before a lap.
        refuse: Called with the key and the reason of a case that could not be measured.
        show: Called after each round.

    Returns:
        Seconds of a step in each lap, by key.
    """
    seconds: Dict[Any, List[float]] = {key: [] for key in workers}

    def ask(key: Any, name: str, *args) -> Any:
        try:
            return workers[key].ask(name, *args)
        except NotMeasured as reason:
            del workers[key]
            refuse(key, reason)
    for turn in turns(list(workers), rounds):
        for key in turn:
            if key in workers and (lap := ask(key, 'lap', burn_in)) is not None:
                seconds[key].append(lap)
        show()
    for key in list(workers):
        ask(key, 'verify')
    return seconds


def _context():
    """Context of processes, forked from one with PyTorch if possible."""
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # silences the profiler's lines on stderr
    if 'forkserver' not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    return context


def _serve(connection: Connection, threads: int, build: Callable, args: tuple) -> None:
    try:
        settings = settle(threads)
        built = build(*args)
        connection.send((True, settings))
        while True:
            name, arguments = connection.recv()
            value = getattr(built, name)
            connection.send((True, value(*arguments) if callable(value) else value))
    except (EOFError, KeyboardInterrupt):  # no more questions
        pass
    except Exception as error:  # noqa: BLE001  a failing network is a result too
        kind = '' if isinstance(error, NotMeasured) else f'{type(error).__name__}: '
        reason = f'{kind}{error}'
        connection.send((False, reason.strip().split('\n')[0][:300]))
