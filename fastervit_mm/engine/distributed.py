"""Distributed training on CPUs (gloo); mmengine 0.10.7 needs a GPU."""
import atexit
import os
import sys
from contextlib import contextmanager
from typing import Iterator, Optional, Set, Tuple

import torch
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..backbone import FasterViT
from .precision import has_amp_device


class DistributedRunner(Runner):
    """mmengine's runner, with launchers that work on CPUs too.

    On CPUs the back-end is gloo whatever ``dist_cfg.backend`` says, and SyncBN, which PyTorch has
    only for GPUs, becomes BatchNorm, with separate statistics in each process.
    """

    def setup_env(self, env_cfg: dict) -> None:
        if not self._on_cpus():
            super().setup_env(env_cfg)
            return
        with _launching_without_gpu():
            super().setup_env(dict(env_cfg, dist_cfg=dict(env_cfg.get('dist_cfg') or {},
                                                          backend='gloo')))

    def wrap_model(self, model_wrapper_cfg: Optional[dict], model: nn.Module) -> nn.Module:
        model = self.prepare_norms(model)
        if self._on_cpus():
            wrapper = model_wrapper_cfg or dict(
                type='MMDistributedDataParallel', broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False))
            kind = MODEL_WRAPPERS.get(wrapper.get('type', 'MMDistributedDataParallel'))
            if issubclass(kind, DistributedDataParallel):
                wrapper = dict(wrapper, device_ids=None)  # mmengine would pass a GPU's number
            model_wrapper_cfg = wrapper
        return super().wrap_model(model_wrapper_cfg, model)

    def prepare_norms(self, model: nn.Module) -> nn.Module:
        """Replace SyncBN by BatchNorm on CPUs."""
        if self._on_cpus():
            self.cfg.sync_bn = None
            return revert_sync_batchnorm(model)
        return model

    def _on_cpus(self) -> bool:
        return self.distributed and not has_amp_device()


def without_gradient(cfg: Config, backbone: FasterViT) -> Iterator[str]:
    """Find output norms without a gradient, which stop DDP.

    Args:
        cfg: A config.
        backbone: Its backbone, on any device.

    Yields:
        One line if some maps are unread; none outside DDP.
    """
    wrapper = cfg.get('model_wrapper_cfg') or cfg
    if (cfg.get('launcher', 'none') == 'none' or cfg.get('runner_type') == 'ShardedRunner'
            or wrapper.get('find_unused_parameters')):
        return
    indices, widths = backbone.out_indices, backbone.out_channels
    read = _read_maps(cfg, len(indices))
    unread = [i for i in range(len(indices)) if i not in read and any(
        p.requires_grad for p in backbone.out_norms[str(indices[i])].parameters())]
    if not read or not unread:
        return
    left = [i for i in range(len(indices)) if i not in unread]
    remedy = f'model.backbone.out_indices={tuple(indices[i] for i in left)}'
    place, neck = first_neck(cfg)
    if neck:
        remedy += f', {place}.in_channels={[widths[i] for i in left]}, {place}.start_level=0'
        remedy += f', {place}.end_level=-1' * (neck.get('end_level', -1) >= 0)
    else:
        remedy += ', and renumber each head\'s in_index among those'
    yield (f'model.backbone.out_indices={indices}: nothing reads the map of stage '
           f'{", ".join(str(indices[i]) for i in unread)}, so its output norm has no gradient, '
           f'and training in several processes stops in its second step. Set {remedy}')


def first_neck(cfg: Config) -> Tuple[str, Optional[dict]]:
    """Dotted name and settings of a config's first neck."""
    neck = cfg.model.get('neck')
    return ('model.neck.0', neck[0]) if isinstance(neck, list) else ('model.neck', neck)


def _read_maps(cfg: Config, count: int) -> Set[int]:
    """Indices of maps that neck or heads read, if known."""
    _, neck = first_neck(cfg)
    if neck:
        last = neck.get('end_level', -1)
        return set(range(neck.get('start_level', 0), (last if last >= 0 else count - 1) + 1))
    read: Set[int] = set()
    for name in ('decode_head', 'auxiliary_head'):  # mmseg's
        heads = cfg.model.get(name) or []
        for head in heads if isinstance(heads, list) else [heads]:
            index = head.get('in_index', -1 if isinstance(head.get('in_channels'), int) else
                             range(count))
            read |= {i % count for i in ([index] if isinstance(index, int) else index)}
    return read


@contextmanager
def _launching_without_gpu() -> Iterator[None]:
    """Let mmengine's launchers, which choose GPUs, run without any."""
    choose = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = choose


@contextmanager
def exit_without_gloo_teardown() -> Iterator[None]:
    """Exit without destructors after a block that used gloo.

    When Python exits, gloo's destructors abort a finished process (``terminate called without an
    active exception``) or deadlock with one of its threads (PyTorch 2.13). Wrap the whole program
    in it.
    """
    error = None
    try:
        yield
    except BaseException as raised:
        error = raised
    if not (torch_dist.is_initialized() and torch_dist.get_backend() == 'gloo'):
        if error is not None:
            raise error
        return
    status = int(error is not None)
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
    if status == 0:
        torch_dist.barrier()  # waits until the others have received everything
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
