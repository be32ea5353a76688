"""MESA: distillation from the averaged network (arXiv 2205.14083)."""
from typing import Any, Dict, Optional, Tuple

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional as F

from ..config_files import ConfigError
from ..models import unwrapped

_SCALE, _TEMPERATURE = 50., 3.  # the authors', for all variants


def mesa_loss(student: Tensor, teacher: Tensor, weight: float) -> Tensor:
    """Compute the MESA loss, as FasterViT's authors use it.

    ``weight * 50 * KL(softmax(teacher / 3) || softmax(student / 3))``, the mean over the batch.

    Args:
        student: (N, classes), logits.
        teacher: (N, classes), logits; no gradient flows into them.
        weight: Factor, a setting of each variant.

    Returns:
        A scalar in float32.
    """
    log_student = F.log_softmax(student.float() / _TEMPERATURE, dim=-1)
    log_teacher = F.log_softmax(teacher.detach().float() / _TEMPERATURE, dim=-1)
    return weight * _SCALE * F.kl_div(log_student, log_teacher, reduction='batchmean',
                                      log_target=True)


@HOOKS.register_module()
class MESAHook(Hook):
    """Add :func:`mesa_loss` to an mmpretrain classifier's losses, as ``loss_mesa``.

    The teacher is the averaged network of the run's ``EMAHook``, in evaluation mode. It gets the
    student's batch, augmented and mixed. Checkpoints hold nothing extra: a resumed run reads the
    averaged network from ``EMAHook``'s.

    Args:
        weight: Factor of the loss, above 0.
        begin: Share of the training without it, from 0 up to, not including, 1. Default 0.25.

    Raises:
        ConfigError: For an argument out of range; when training begins, for a run without exactly
            one ``EMAHook`` or for a model that is not a classifier with backbone and head.

    Example::

        custom_hooks = [dict(type='EMAHook', momentum=2e-4, update_buffers=True),
                        dict(type='MESAHook', weight=0.5)]
    """

    def __init__(self, weight: float, begin: float = 0.25):
        if not weight > 0:
            raise ConfigError(f'MESAHook: weight={weight}: give a number above 0. For training '
                              'without MESA leave the hook out')
        if not 0 <= begin < 1:
            raise ConfigError(f'MESAHook: begin={begin}: give the part of the training without '
                              'it, from 0 up to, not including, 1')
        self.weight, self.begin = weight, begin
        self._active = False
        self._logits: Optional[Tensor] = None
        self._handles: list = []

    def before_train(self, runner: Runner) -> None:
        averaging = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if len(averaging) != 1:
            raise ConfigError(f'custom_hooks: MESAHook needs one EMAHook, whose network teaches; '
                              f'the config has {len(averaging)}')
        model = unwrapped(runner.model)
        head = getattr(model, 'head', None)
        if not isinstance(head, nn.Module) or not hasattr(model, 'backbone'):
            raise ConfigError(f'custom_hooks: MESAHook is for classifiers of mmpretrain, with a '
                              f'backbone and a head; model.type is {type(model).__name__!r}')
        self._teacher = averaging[0].ema_model.module.eval()
        # Module hooks work with any classifier, with and without DistributedDataParallel.
        self._handles = [head.register_forward_hook(self._keep_logits),
                         model.register_forward_hook(self._add_loss, with_kwargs=True)]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._active = runner.iter >= self.begin * runner.max_iters

    def after_train(self, runner: Runner) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _keep_logits(self, head: nn.Module, inputs: Tuple, output: Tensor) -> None:
        if self._active and head.training:
            self._logits = output

    def _add_loss(self, model: nn.Module, args: Tuple, kwargs: Dict[str, Any],
                  output: Any) -> Any:
        logits, self._logits = self._logits, None
        if logits is None or kwargs.get('mode') != 'loss':
            return output
        images = kwargs['inputs'] if 'inputs' in kwargs else args[0]
        with torch.no_grad():
            taught = self._teacher(images, mode='tensor')
        return dict(output, loss_mesa=mesa_loss(logits, taught, self.weight))
