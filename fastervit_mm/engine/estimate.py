"""Estimate of training time."""
from typing import Optional, Sequence, Union

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class EstimateHook(Hook):
    """Log an estimate of the training time on this machine.

    It is logged after the first iterations, and again when they take 1.3 times as long or as short.
    Their times, data loading included, are those of mmengine's ``IterTimerHook``.

    Args:
        skipped: First iterations, left out while memory is allocated and caches fill. Default 10.
        measured: Iterations measured each time, at least 2; the longest is left out, as it may
            follow a validation. A run of at most ``skipped + measured`` iterations gets no
            estimate. Default 30.
    """
    priority = 'LOW'  # after IterTimerHook

    def __init__(self, skipped: int = 10, measured: int = 30):
        self.skipped, self.measured = skipped, measured

    def before_train(self, runner: Runner) -> None:
        self._first = runner.iter  # not 0 in a resumed run
        self._said = None

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: Optional[Union[dict, tuple, list]] = None,
                         outputs: Optional[Union[dict, Sequence]] = None) -> None:
        done, left = runner.iter + 1 - self._first, runner.max_iters - runner.iter - 1
        if done <= self.skipped or (done - self.skipped) % self.measured or not left:
            return
        times, _ = runner.message_hub.get_scalar('train/time').data
        each = float(sum(sorted(times[-self.measured:])[:-1])) / (self.measured - 1)
        if self._said and 1 / 1.3 < each / self._said < 1.3:
            return
        what, iterations = ('left', left) if self._said else ('on this machine', done + left)
        self._said = each
        runner.logger.info(f'About {_duration(each * iterations)} of training {what} ({each:.2g} s '
                           f'an iteration, {iterations} iterations), validation not included')


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f'{seconds:.0f} seconds'
    return f'{minutes} minute{"s" if minutes > 1 else ""}'
