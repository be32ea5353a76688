"""Hooks for fine-tuning: gradual unfreezing, early stopping."""
from bisect import bisect
from typing import Optional, Sequence

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.nn.parallel import DistributedDataParallel

from ..config_files import ConfigError
from ..models import find_backbones
from .curves import read_run
from .resuming import last_validation


@HOOKS.register_module()
class UnfreezeHook(Hook):
    """Train the head first, then the backbone stage by stage, from the last.

    Gradual unfreezing (ULMFiT, arXiv 1801.06146, section 3.3). Until the first milestone stem and
    all stages are frozen, as by ``frozen_stages``; at each milestone one stage more is trained, the
    stem with the first. What the backbone's own ``frozen_stages`` freezes stays frozen.

    The optimizer has all parameters from the start, with the rates and weight decay of its
    constructor, and leaves those without a gradient alone; a resumed run continues where it was.

    Args:
        milestones: Ascending epochs, or iterations in training by iterations. Two equal ones
            unfreeze two stages.

    Raises:
        ConfigError: In several processes (DDP) without ``find_unused_parameters=True``, which
            parameters without a gradient need.
        ValueError: For a model without FasterViT.
    """

    def __init__(self, milestones: Sequence[int]):
        self.milestones, self.passed = sorted(milestones), -1

    def before_train(self, runner: Runner) -> None:
        if isinstance(runner.model, DistributedDataParallel) and (
                not runner.model.find_unused_parameters):
            raise ConfigError('UnfreezeHook: training in several processes stops at parameters '
                              'without a gradient. Set find_unused_parameters=True')
        self.least = [backbone.frozen_stages for backbone in find_backbones(runner.model)]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None
                          ) -> None:
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        passed = bisect(self.milestones, runner.epoch if by_epoch else runner.iter)
        if passed == self.passed:
            return
        self.passed = passed
        for backbone, least in zip(find_backbones(runner.model), self.least):
            frozen = backbone.num_stages - passed
            backbone.frozen_stages = max(frozen if frozen > 0 else -1, least)
            backbone.requires_grad_(True).train()  # freezes the others again
            runner.logger.info(f'Frozen: frozen_stages={backbone.frozen_stages}')


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's EarlyStoppingHook, whose count survives a resume.

    Earlier validations are read from the scalars in the work directory. The arguments are
    mmengine's.
    """

    def before_train(self, runner: Runner) -> None:
        now, done = runner.iter, last_validation(runner)
        # MissedValidationHook repeats a validation at `now` that is not done.
        found = [[value for place, value in read_run(runner.work_dir).get(self.monitor, ())
                  if place < now or place == now == done] if is_main_process() else None]
        broadcast_object_list(found)
        for value in found[0]:
            stop, why = self._check_stop_condition(value)
            if stop:
                runner.train_loop.stop_training = True
                runner.logger.info(f'Training had stopped already: {why}')
                return
