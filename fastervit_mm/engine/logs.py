"""Logging: optional TensorBoard, iterations of metrics, CPU memory."""
from pathlib import Path
from typing import Optional, Tuple

from mmengine.logging import print_log
from mmengine.registry import LOG_PROCESSORS, VISBACKENDS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, LogProcessor, Runner
from mmengine.visualization import TensorboardVisBackend


class _NoWriter:
    """Accepts every call that a SummaryWriter accepts, and does nothing."""

    def __getattr__(self, name: str):
        if name.startswith('_'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@VISBACKENDS.register_module()
class OptionalTensorboardVisBackend(TensorboardVisBackend):
    """mmengine's ``TensorboardVisBackend``, optional.

    Without TensorBoard it logs a line, where mmengine's ends the run. Metrics, like losses, have
    the iteration as their step, even where mmengine counts epochs (:class:`MemoryLogProcessor`).

    Args:
        save_dir: Folder of the event files; mmengine gives ``work_dir/timestamp/vis_data``.
    """

    def _init_env(self) -> None:
        try:
            super()._init_env()
        except ImportError:
            self._tensorboard = _NoWriter()
            print_log('TensorBoard is not installed, so no event files are written; pip '
                      'install tensorboard', logger='current')

    def add_scalars(self, scalar_dict: dict, step: int = 0, *args, **kwargs) -> None:
        """Write scalars at their ``iter`` or, without one, at ``step``."""
        super().add_scalars(scalar_dict, scalar_dict.get('iter', step), *args, **kwargs)


def peak_resident_memory() -> Optional[int]:
    """Peak resident memory in MB; None on systems except Linux."""
    # resource.getrusage() may report the parent process's figure.
    status = Path('/proc/self/status')
    if not status.is_file():
        return None
    kilobytes = [line.split()[1] for line in status.read_text().splitlines()
                 if line.startswith('VmHWM:')]
    return int(kilobytes[0]) // 1024 if kilobytes else None


@LOG_PROCESSORS.register_module()
class MemoryLogProcessor(LogProcessor):
    """mmengine's ``LogProcessor`` with CPU memory and iterations of metrics.

    mmengine logs ``memory``, the peak allocation in MB, only on a GPU. On a CPU, ``memory`` is here
    the peak resident memory of the process in MB, without the data loaders' workers. Only on Linux.

    A validation's metrics come with ``iter``, the number of iterations trained before it, and,
    where training counts epochs, ``epoch``; mmengine writes only one of the two, as ``step``.
    """

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> Tuple[dict, str]:
        """Add the memory to an iteration's scalars and line."""
        scalars, line = super().get_log_after_iter(runner, batch_idx, mode)
        if 'memory' not in scalars and (memory := peak_resident_memory()) is not None:
            scalars['memory'] = memory
            line = f'{line.rstrip()}  memory: {memory}'
        return scalars, line

    def get_log_after_epoch(self, runner: Runner, batch_idx: int, mode: str, *args,
                            **kwargs) -> Tuple[dict, str]:
        """Add iteration and epoch to a validation's scalars."""
        scalars, line = super().get_log_after_epoch(runner, batch_idx, mode, *args, **kwargs)
        # Without a training loop, runner.iter would build one.
        if mode == 'val' and isinstance(runner._train_loop, BaseLoop):
            scalars['iter'] = runner.iter
            if isinstance(runner._train_loop, EpochBasedTrainLoop):
                scalars['epoch'] = runner.epoch
        return scalars, line
