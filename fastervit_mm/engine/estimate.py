"""An early estimate of how long training will take."""
from typing import Optional, Sequence, Union

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class EstimateHook(Hook):
    """Log once, after the first iterations, how long training will take on this machine.

    The estimate uses the time of each iteration, data loading included, from mmengine's
    ``IterTimerHook``.

    Args:
        skipped: First iterations that do not count, because memory is still being allocated and
            caches are being filled. Default 10.
        measured: Iterations that count. A run shorter than both together gets no estimate.
            Default 30.
    """
    priority = 'LOW'  # after IterTimerHook

    def __init__(self, skipped: int = 10, measured: int = 30):
        self.skipped, self.measured = skipped, measured

    def before_train(self, runner: Runner) -> None:
        self._first = runner.iter  # not 0 in a resumed run

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: Optional[Union[dict, tuple, list]] = None,
                         outputs: Optional[Union[dict, Sequence]] = None) -> None:
        if runner.iter + 1 - self._first != self.skipped + self.measured:
            return
        each = float(runner.message_hub.get_scalar('train/time').mean(self.measured))
        iterations = runner.max_iters - self._first
        runner.logger.info(f'About {_duration(each * iterations)} of training on this machine '
                           f'({each:.2g} s an iteration, {iterations} iterations), validation '
                           'not included')


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f'{seconds:.0f} seconds'
    return f'{minutes} minute{"s" if minutes > 1 else ""}'
