"""How long a training will take, said early."""
from typing import Optional, Sequence, Union

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class EstimateHook(Hook):
    """Say once, after the first iterations, how long the training will take on this machine.

    From the time of each iteration, loading included, that mmengine's ``IterTimerHook`` measures.

    Args:
        skipped: First iterations that do not count: memory is allocated and caches are filled.
        measured: Iterations that count. A run with fewer than both together has no estimate.
    """
    priority = 'LOW'  # after IterTimerHook

    def __init__(self, skipped: int = 10, measured: int = 30):
        self.skipped, self.measured = skipped, measured

    def before_train(self, runner: Runner) -> None:
        self._first = runner.iter  # of a resumed run, another than 0

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
