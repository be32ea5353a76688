"""FSDP2: sharded training and checkpoints.

For variants 5 and 6: parameters, gradients and optimizer are divided among the GPUs.
"""
import os
import shutil
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

import torch
import torch.distributed as torch_dist
from mmengine.device import get_device
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.model import convert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import apply_to
from safetensors.torch import save_file
from torch import nn

from ..backbone.attention import Block
from ..backbone.swin_hat import SwinBlock
from ..config_files import ConfigError, typed
from ..weights import CheckpointError
from ..weights.reading import SAFETENSORS, read_checkpoint
from .checkpoints import PART, check_readable, files_of, remove, whole_file
from .runner import QuietRunner

_SHARD = {'shard', 'shape'}  # the entries of a divided tensor in a checkpoint


@RUNNERS.register_module()
class ShardedRunner(QuietRunner):
    """Runner that shards distributed training by PyTorch's ``fully_shard``.

    Each attention block of FasterViT is a unit, gathered when it computes; the rest of the model is
    another. Results equal those of :class:`QuietRunner` with DDP. Tests are not sharded: the
    network fits on one GPU.

    A checkpoint is a folder with a file of each process. It resumes with the same number of
    processes; :func:`gather_checkpoint` makes one file of it, for tests and for other numbers of
    processes. Files of unsharded trainings can be loaded and resumed from.
    """
    mesh = None  # of the processes, once the model is sharded

    def wrap_model(self, model_wrapper_cfg: Optional[dict], model: nn.Module) -> nn.Module:
        if not self.distributed:
            return super().wrap_model(model_wrapper_cfg, model)
        model = self.prepare_norms(model)
        if self.cfg.get('sync_bn') is not None:
            model = convert_sync_batchnorm(model, self.cfg.sync_bn)
        return model.to(get_device())

    def train(self) -> nn.Module:
        if self.distributed:
            self._shard()
            self.register_hook(_ShardsHook(), 'LOWEST')
            # Processes run in step, so each has to validate on equally many images; metrics ignore
            # the surplus.
            sampler = (self._val_dataloader or {}).get('sampler', {})
            if isinstance(sampler, dict) and 'round_up' in sampler:
                sampler['round_up'] = True
        return super().train()

    def _shard(self) -> None:
        try:
            from torch.distributed.fsdp import fully_shard
        except ImportError as error:
            raise ConfigError(f'runner_type={type(self).__name__!r} needs PyTorch 2.6 or newer; '
                              f'this is {torch.__version__}') from error
        super()._init_model_weights()  # before tensors are divided
        # Channels-last weights of convolutions cannot be divided.
        model = self.model.to(memory_format=torch.contiguous_format)
        self.mesh = torch_dist.init_device_mesh(get_device(), (self.world_size,))
        for module in list(model.modules()):
            if isinstance(module, (Block, SwinBlock)):
                fully_shard(module, mesh=self.mesh)
        fully_shard(model, mesh=self.mesh)

    def _init_model_weights(self) -> None:
        if not self.distributed:
            super()._init_model_weights()

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        if not self.distributed:
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        path, failed = Path(out_dir) / filename, None
        part = path.with_name(path.name + PART)
        if self.rank == 0:
            shutil.rmtree(part, ignore_errors=True)
        torch_dist.barrier()
        try:
            part.mkdir(parents=True, exist_ok=True)
            with whole_file(part / f'rank{self.rank}.pth') as file:
                # mmengine's own would save only in the first process.
                Runner.save_checkpoint.__wrapped__(self, str(part), file.name, *args, **kwargs)
                check_readable(file, path)
        except (OSError, CheckpointError) as error:
            failed = f'{getattr(error, "strerror", None) or error} (process {self.rank})'
        failures = [failure for failure in all_gather_object(failed) if failure]
        if self.rank == 0:
            if failures:
                shutil.rmtree(part, ignore_errors=True)
            else:
                remove(path)
                os.replace(part, path)
        torch_dist.barrier()
        if failures:
            raise OSError(f'The checkpoint {path} could not be saved: {failures[0]}')
        if kwargs.get('save_optimizer', True):
            self.saved_at = (kwargs.get('meta') or {}).get('iter')

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        if os.path.isdir(filename):
            count = len(files_of(filename))
            if self.mesh is None or count != self.world_size:
                raise CheckpointError(
                    f'checkpoint={str(filename)!r}: the shards of {count} processes. Make one file '
                    f'of them: {typed("gather_checkpoint.py")} {filename} OUT.pth --all')
            filename = os.path.join(filename, f'rank{self.rank}.pth')
        return super().load_checkpoint(filename, *args, **kwargs)


class _ShardsHook(Hook):
    """Save and load each process's shards of divided tensors."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        from torch.distributed.tensor import DTensor

        def own_part(tensor: DTensor) -> Dict[str, Any]:
            return dict(shard=tensor.to_local().cpu().clone(), shape=tuple(tensor.shape))

        checkpoint.update(apply_to(dict(checkpoint), lambda x: isinstance(x, DTensor), own_part))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        from torch.distributed.tensor import DTensor, Shard, distribute_tensor

        def divided(value: Any) -> Any:
            if _is_shard(value):
                shape = torch.empty(value['shape'], device='meta')
                return DTensor.from_local(value['shard'].to(get_device()), runner.mesh, [Shard(0)],
                                          shape=shape.shape, stride=shape.stride())
            return distribute_tensor(value.to(get_device()).contiguous(), runner.mesh, [Shard(0)],
                                     src_data_rank=None)  # every process has it

        weights = checkpoint.get('state_dict', checkpoint)
        own = runner.model.state_dict()
        for name, value in weights.items():
            if isinstance(own.get(name.removeprefix('module.')), DTensor):
                weights[name] = divided(value)
        for kinds in checkpoint.get('optimizer', {}).get('state', {}).values():
            for kind, value in kinds.items():
                if _is_shard(value) or isinstance(value, torch.Tensor) and value.dim():
                    kinds[kind] = divided(value)


def gather_checkpoint(folder: str, out: str, everything: bool = False) -> None:
    """Make one file of a sharded checkpoint.

    It is as an unsharded training would have saved it. Running statistics of BatchNorm that is not
    SyncBN are the first process's, as with DDP.

    Args:
        folder: Checkpoint of :class:`ShardedRunner`.
        out: The file; a safetensors file if its name ends in ``.safetensors``.
        everything: Also keep optimizer and schedules, to resume from. Default only the weights.

    Raises:
        CheckpointError: For a folder that lacks some of these files.
        ValueError: For ``everything`` with a safetensors file, which holds only tensors.
    """
    safe = out.endswith(SAFETENSORS)
    if safe and everything:
        raise ValueError(f'out={out!r}: a safetensors file holds only weights; for optimizer and '
                         'schedules too, give a name that ends in .pth')
    files = files_of(folder)
    if [path.name for path in files] != [f'rank{i}.pth' for i in range(len(files))] or not files:
        raise CheckpointError(f'checkpoint={folder!r}: not a folder with rank0.pth and so on, as '
                              'a sharded training saves')
    parts = [read_checkpoint(str(path), mapped=True) for path in files]
    if not everything:
        parts = [{k: part[k] for k in ('meta', 'state_dict')} for part in parts]
    whole = _gathered(parts)
    with whole_file(Path(out)) as file:
        if safe:
            save_file({name: tensor.clone(memory_format=torch.contiguous_format)
                       for name, tensor in whole['state_dict'].items()}, file,
                      metadata=dict(format='pt'))
        else:
            torch.save(whole, file)


def _gathered(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if _is_shard(first):
        whole = torch.cat([part['shard'] for part in parts])
        if whole.shape != tuple(first['shape']):
            raise CheckpointError(f'a tensor of {tuple(first["shape"])} has {tuple(whole.shape)} '
                                  'in its files: some are missing')
        return whole
    if isinstance(first, Mapping):
        return type(first)((key, _gathered([part[key] for part in parts])) for key in first)
    if isinstance(first, (list, tuple)):
        return type(first)(map(_gathered, zip(*parts)))
    return first


def _is_shard(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == _SHARD
