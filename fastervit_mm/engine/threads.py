"""Fewer threads when other programs use the processors."""
import time
from statistics import median
from typing import Any, Callable, Generator

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


def thread_counts(most: int, say: Callable[[str], Any]) -> Generator[int, float, None]:
    """Choose threads for each step; send the step's seconds.

    Another number is tried for three steps: half as many soon after the start and when steps slow
    down, and more again from time to time, at growing intervals while it does not help. The smaller
    number is kept only if the larger takes 1.5 times as long, so that varying image sizes do not
    decide.
    """
    threads, wait = most, 5
    while True:
        times, fastest, slow = [], float('inf'), False
        while len(times) < wait and not slow:
            times.append((yield threads))
            fastest = min(fastest, now := median(times[-3:]))
            slow = now > 2.5 * fastest
        other = (max(1, threads // 2) if slow or threads == most
                 else min(most, threads + (threads + 3) // 4))
        times = []
        while len(times) < 3 and max(times, default=0) < 3 * now:
            times.append((yield other))
        (fewer, less), (more, longer) = sorted([(threads, now), (other, median(times))])
        kept = fewer if longer > 1.5 * less else more
        wait = min(4 * wait, 400) if kept == threads else 50
        if kept != threads:
            say(f'A step takes {less:.2g} s with {fewer} of {most} threads and {longer:.2g} s with '
                f'{more}: training goes on with {kept}')
        threads = kept


@HOOKS.register_module()
class ThreadsHook(Hook):
    """Choose the number of threads in CPU training (:func:`thread_counts`).

    OpenMP's threads wait for each other by spinning: if one shares its processor with another
    program, all wait for it, and a step can take ten times as long.
    """
    priority = 'VERY_HIGH'  # before what other hooks do after a step

    def before_train(self, runner: Runner) -> None:
        self.most = torch.get_num_threads()
        self.counts = thread_counts(self.most, runner.logger.info)
        next(self.counts)

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.perf_counter()

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        torch.set_num_threads(self.counts.send(time.perf_counter() - self.began))

    def after_train(self, runner: Runner) -> None:
        torch.set_num_threads(self.most)
