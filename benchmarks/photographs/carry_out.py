"""Training and testing a run by the package's own tools."""
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from threading import Lock
from typing import Any, Dict, Iterable, Optional

from mmengine.config import Config

from fastervit_mm.engine.curves import read_run

from .parts import CONFIG, PRETRAINED, TASKS, Run

ROOT = Path(__file__).resolve().parents[2]
_SIZES = ('scale', 'crop_size', 'size', 'scale_factor')


class Laboratory:
    """Folders and options of a campaign.

    Args:
        data: Folder of the datasets.
        work_dir: Folder for configs, logs and checkpoints.
        amp: ``--amp`` of trainings and tests; None for float32.
        scale: Factor on the sides of images. Default 1.
        images: Use that many images of each split, for two epochs or iterations; None for
            all. Default None.
        processes: Processes of a training, which share its batch. Default 1.
    """

    def __init__(self, data: Path, work_dir: Path, amp: Optional[str] = None, scale: float = 1.,
                 images: Optional[int] = None, processes: int = 1):
        self.data, self.work_dir = data.absolute(), work_dir.absolute()
        self.scale, self.images = scale, images
        self._amp = ['--amp', amp] if amp else []
        self._processes = processes
        self._lock = Lock()

    def carry_out(self, run: Run) -> Dict[str, Any]:
        """Train, or go on with a training, and test; return the figures.

        Without a test split the figures are the last validation's. The minutes are of training
        alone, from the mean time of an iteration.
        """
        folder = self.work_dir / run.name
        with self._lock:  # two runs may need a dataset's config at once
            config = self.write_config(run)
        launcher = ('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node',
                    self._processes) if self._processes > 1 else ()
        self._tool('train.py', folder / 'train.log', config, '--work-dir', folder, '--resume',
                   *self._amp, *(('--launcher', 'pytorch') if launcher else ()), launcher=launcher)
        checkpoint = self.checkpoint(run)
        curves = read_run(folder)
        seconds, curve = curves['time'], curves[TASKS[run.task].metric]
        validated = dict(curve)
        metrics = self._test(run, checkpoint) if _has_test(run) else {
            name: values[-1][1] for name, values in curves.items()
            if dict(values).keys() == validated.keys()}
        return dict(metrics=metrics,
                    metrics_tta=self._test(run, checkpoint, '--tta') if run.tta else None,
                    curve=curve, checkpoint=checkpoint.name, minutes=round(
                        mean(time for _, time in seconds) * seconds[-1][0] / 60, 1))

    def write_config(self, run: Run) -> Path:
        """Write a run's config and return its path."""
        cfg = Config.fromfile(self._base(run.task))
        cfg.merge_from_dict({'randomness.seed': run.seed, **run.options})
        if run.start:
            cfg.model.backbone.init_cfg = dict(type='Pretrained', **self._start(run.start))
        dataset = TASKS[run.task]
        for split in ('train', 'val', 'test') if not dataset.new_config else ():
            cfg[f'{split}_dataloader'].dataset.data_root = str(self.data / dataset.folder)
        if self.scale != 1:
            _scale(cfg, self.scale)
        if self.images:
            _shorten(cfg, self.images)
        cfg.train_dataloader.batch_size //= self._processes
        target = self.work_dir / f'{run.name}.py'
        cfg.dump(target)
        return target

    def checkpoint(self, run: Run) -> Path:
        """The checkpoint of a run that is tested."""
        folder = self.work_dir / run.name
        if _has_test(run) and not self.images:
            return max(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        return self._last(run.name)

    def _base(self, task: str) -> Path:
        dataset = TASKS[task]
        if not dataset.new_config:
            return CONFIG
        target = self.work_dir / f'{task}.py'
        if not target.is_file():
            kind, *options = dataset.new_config
            self._tool('new_config.py', self.work_dir / f'{task}.log', kind, target, '--data',
                       self.data / dataset.folder, *options)
        return target

    def _start(self, name: str) -> Dict[str, str]:
        if name == 'pretrain' and not (self.work_dir / name).is_dir():
            return dict(checkpoint=str(PRETRAINED))
        return dict(checkpoint=str(self._last(name)), prefix='backbone.')

    def _last(self, name: str) -> Path:
        return Path((self.work_dir / name / 'last_checkpoint').read_text().strip())

    def _test(self, run: Run, checkpoint: Path, *options: str) -> Dict[str, float]:
        folder = self.work_dir / run.name
        out = folder / f'tested{"".join(options)}'
        self._tool('test.py', folder / 'test.log', self.work_dir / f'{run.name}.py', checkpoint,
                   '--work-dir', out, '--split', run.split, *options, *self._amp)
        return json.loads(max(out.glob('*/*.json')).read_text())

    def _tool(self, name: str, log: Path, *arguments: object,
              launcher: Iterable[object] = ()) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a') as file:
            done = subprocess.run(
                [sys.executable, '-W', 'ignore',
                 *map(str, [*launcher, ROOT / 'tools' / name, *arguments])],
                stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f'tools/{name} ended with status {done.returncode}: {log}')


def _has_test(run: Run) -> bool:
    return TASKS[run.task].best and run.split == 'test'


def _scale(node: Any, factor: float) -> None:
    """Multiply all sides of images in a config, in place."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key in _SIZES and isinstance(value, (int, float)):
            node[key] = type(value)(value * factor)
        elif key in _SIZES and isinstance(value, (tuple, list)):
            node[key] = tuple(int(side * factor) for side in value)
        elif isinstance(value, (dict, list)):
            _scale(value, factor)


def _shorten(cfg: Config, images: int) -> None:
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.indices = images
    cfg.train_dataloader.batch_size = min(cfg.train_dataloader.batch_size, images // 2)
    unit = 'max_epochs' if 'max_epochs' in cfg.train_cfg else 'max_iters'
    cfg.merge_from_dict({f'train_cfg.{unit}': 2, 'train_cfg.val_interval': 2,
                         'default_hooks.checkpoint.interval': 1})
