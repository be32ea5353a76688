"""mmengine's runner for the tools."""
from typing import Optional, Union

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from ..config_files import ConfigError
from ..models import dataset_configs
from ..operators import say_which_serve
from ..weights import CheckpointError
from ..weights.reading import strict_loaders
from .checkpoints import newest_checkpoint, save_whole
from .console import quiet, quiet_children, quiet_libraries
from .distributed import DistributedRunner
from .enlarging import readable
from .notices import shield_workers
from .onednn import use_onednn


class QuietRunner(DistributedRunner):
    """mmengine's runner with atomic checkpoints and a quiet console.

    It resumes from the newest whole checkpoint, reads by
    :func:`~fastervit_mm.weights.reading.strict_loaders`, draws readable overlays, and leaves
    messages that need no action to the log file.

    Attributes:
        saved_at: Iterations in the last checkpoint that can be resumed from; None without one.
        start_from: Checkpoint to load if none can be resumed from.
    """
    saved_at: Optional[int] = None
    start_from: Optional[str] = None

    def __init__(self, *args, **kwargs):
        with quiet_libraries(), strict_loaders():
            super().__init__(*args, **kwargs)

    def _log_env(self, env_cfg: dict) -> None:
        with quiet_children():  # mmengine asks for gcc's version, where there may be no gcc
            super()._log_env(env_cfg)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        quiet(logger)
        return logger

    def build_visualizer(self, visualizer: Union[Visualizer, dict, None] = None) -> Visualizer:
        if isinstance(visualizer, dict):
            # mmengine keeps one visualizer of each name, with the folder of its first run: so the
            # config's name is not used.
            visualizer = dict(readable(visualizer), name=self.experiment_name)
        return super().build_visualizer(visualizer)

    @staticmethod
    def build_dataloader(dataloader: Union[DataLoader, dict], *args, **kwargs) -> DataLoader:
        try:
            loader = Runner.build_dataloader(dataloader, *args, **kwargs)
        except ValueError as error:
            if 'need at least one array' not in str(error):  # numpy's, in BaseDataset
                raise
            data = ', '.join(f'data_root={one.get("data_root")!r}, ann_file={one.get("ann_file")!r}'
                             for _, one in dataset_configs(dict(loader=dataloader), 'loader'))
            raise ConfigError(f'{data}: the dataset finds no usable image. Check its '
                              'ann_file, data_prefix, img_suffix and filter_cfg') from None
        shield_workers(loader)
        return loader

    def train(self) -> nn.Module:
        with quiet_libraries(), strict_loaders():
            return super().train()

    def test(self) -> dict:
        with quiet_libraries(), strict_loaders():
            return super().test()

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        if not is_main_process():
            return
        save = super().save_checkpoint
        if '://' in str(out_dir):
            save(out_dir, filename, *args, **kwargs)
        else:
            save_whole(lambda name: save(out_dir, name, *args, **kwargs), out_dir, filename,
                       self.work_dir)
        if kwargs.get('save_optimizer', True):
            self.saved_at = (kwargs.get('meta') or {}).get('iter')

    def load_or_resume(self) -> None:
        if self._resume and self._load_from is None and not self._has_loaded:
            self._load_from = _newest_for_all(self.work_dir)
            if self._load_from is None:
                self.logger.info(f'No checkpoint in {self.work_dir} to resume from: training '
                                 'starts at the beginning')
                self._resume, self._load_from = False, self.start_from
        super().load_or_resume()


def _newest_for_all(work_dir: str) -> Optional[str]:
    """Newest whole checkpoint, found by the main process for all."""
    found = [None]
    if is_main_process():
        try:
            path = newest_checkpoint(work_dir)
            found = [path and str(path)]
        except CheckpointError as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], CheckpointError):
        raise found[0]
    return found[0]


def build_runner(cfg: Config) -> Runner:
    """Build a config's runner, with oneDNN on CPUs."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else QuietRunner.from_cfg(cfg)
    use_onednn(runner.model)
    say_which_serve(runner.logger)
    return runner
