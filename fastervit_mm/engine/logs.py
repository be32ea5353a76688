"""What a run writes down beside mmengine's own: TensorBoard's files, memory on a CPU."""
from pathlib import Path
from typing import Optional, Tuple

from mmengine.logging import print_log
from mmengine.registry import LOG_PROCESSORS, VISBACKENDS
from mmengine.runner import LogProcessor, Runner
from mmengine.visualization import TensorboardVisBackend


class _NoWriter:
    """Takes whatever a SummaryWriter takes."""

    def __getattr__(self, name: str):
        if name.startswith('_'):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@VISBACKENDS.register_module()
class OptionalTensorboardVisBackend(TensorboardVisBackend):
    """mmengine's ``TensorboardVisBackend``; one line in the log where TensorBoard is missing.

    mmengine's would end the run.

    Args:
        save_dir: Folder of the event files; mmengine gives ``work_dir/timestamp/vis_data``.
    """

    def _init_env(self) -> None:
        try:
            super()._init_env()
        except ImportError:
            self._tensorboard = _NoWriter()
            print_log('TensorBoard is not installed and gets no event files; pip install '
                      'tensorboard', logger='current')


def peak_resident_memory() -> Optional[int]:
    """MB of memory that this process held at its height; None where the system does not say."""
    # Of resource.getrusage() the figure may be that of the process which started this one.
    status = Path('/proc/self/status')
    if not status.is_file():
        return None
    kilobytes = [line.split()[1] for line in status.read_text().splitlines()
                 if line.startswith('VmHWM:')]
    return int(kilobytes[0]) // 1024 if kilobytes else None


@LOG_PROCESSORS.register_module()
class MemoryLogProcessor(LogProcessor):
    """mmengine's ``LogProcessor`` with the memory of a run on a CPU.

    On a GPU mmengine says ``memory``, the most that was allocated there. On a CPU it says nothing;
    here it is the most that the process held, in MB as well. Workers of data loaders come on top.
    Linux alone tells it.
    """

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> Tuple[dict, str]:
        """The scalars and the line of an iteration, as ``LogProcessor``'s."""
        scalars, line = super().get_log_after_iter(runner, batch_idx, mode)
        if 'memory' not in scalars and (memory := peak_resident_memory()) is not None:
            scalars['memory'] = memory
            line = f'{line.rstrip()}  memory: {memory}'
        return scalars, line
