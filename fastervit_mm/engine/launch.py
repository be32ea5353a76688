"""Training and testing of OpenMMLab configs, for the tools."""
import os
from copy import deepcopy
from pathlib import Path
from typing import Dict, List, Optional, Union

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import METRICS
from mmengine.runner import Runner
from torch import nn

from ..compat import TORCH
from ..config_files import ConfigError, read_config
from ..models import dataset_configs, type_name, unwrapped
from .checkpoints import files_of
from .checks import check_config, unwritable
from .memory import keep_freed_memory
from .precision import choose_for_testing, choose_for_training, has_amp_device, test_in
from .resuming import make_resumable
from .runner import build_runner
from .settings import check_parts, metric_configs

# mmengine's hooks by those that survive a stop.
_REPLACED = dict(CheckpointHook='WholeCheckpointHook',
                 EarlyStoppingHook='ResumableEarlyStoppingHook')


def load_config(config: Union[str, os.PathLike, Config], launcher: str = 'none',
                work_dir: Optional[str] = None, cfg_options: Optional[dict] = None) -> Config:
    """Load a config and apply the command line's settings.

    Args:
        config: Path of the config, a name that :func:`fastervit_mm.get_config` knows, or a config,
            which is copied.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        work_dir: Folder for the run's logs and checkpoints. Default the config's own, else
            ``./work_dirs/`` and the config's name.
        cfg_options: Settings that replace the config's, by dotted name.

    Raises:
        FileNotFoundError: For a config, or one of its bases, that does not exist.
        ConfigError: For a config with an error in its code, or for settings that do not fit it.
    """
    cfg = deepcopy(config) if isinstance(config, Config) else read_config(config)
    cfg.launcher = launcher
    if cfg_options is not None:
        try:
            cfg.merge_from_dict(cfg_options)
        except (KeyError, TypeError) as error:
            raise ConfigError(f'{cfg.filename}: --cfg-options: {error.args[0]}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(cfg.filename or 'config').stem)
    return cfg


def compile_features(model: nn.Module) -> None:
    """Compile backbone and neck in place, for any size.

    Heads are left out: compiling a whole mmdet detector fails in its heads' Python. Names
    in checkpoints do not change.

    Args:
        model: A detector, segmentor or classifier.

    Raises:
        ValueError: With torch before 2.6, whose compiler cannot follow this backbone.
    """
    _check_compiler()
    model = unwrapped(model)
    for part in ('backbone', 'neck'):
        if getattr(model, part, None) is not None:
            getattr(model, part).compile(dynamic=True)


def _check_compiler() -> None:
    if TORCH < (2, 6):
        raise ValueError('--compile (compiled=True) needs torch 2.6 or newer for images of any '
                         f'size; this is torch {torch.__version__}. Leave it out')


def train(cfg: Config, amp: Union[bool, str] = False, auto_scale_lr: bool = False,
          resume: Union[str, None] = None, compiled: bool = False) -> Runner:
    """Train a model as a config says.

    Args:
        cfg: From :func:`load_config`.
        amp: Mixed precision, even if the config does not ask for it: True, ``'bf16'`` or
            ``'fp16'`` (:func:`~fastervit_mm.engine.precision.choose_for_training`). Default False.
        auto_scale_lr: Multiply the learning rate by the batch size over
            ``auto_scale_lr.base_batch_size``. Default False.
        resume: ``'auto'`` to continue from the newest whole checkpoint in the work directory, or
            to start where there is none; or the path of a checkpoint. Default None, a new run.
        compiled: Compile backbone and neck (:func:`compile_features`). Default False.

    Returns:
        The runner, after training.

    Raises:
        CheckpointError: If there are checkpoints to resume from and none is whole.
        ConfigError: For a config that cannot be trained as it is, before anything is built.
        FileNotFoundError: For a checkpoint to resume from that does not exist.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is saved.
        LossError: For a loss that is not finite.
        OSError: For a checkpoint that cannot be saved.
        SystemExit: With status 75 after SIGTERM or SIGUSR1, once a checkpoint is saved.
        ValueError: For an argument that the config or the machine does not support.
    """
    if compiled:
        _check_compiler()
    check_parts(cfg, training=True)
    choose_for_training(cfg, amp)
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError('auto_scale_lr=True: the config has no auto_scale_lr.base_batch_size; '
                             'add auto_scale_lr=dict(base_batch_size=16), where 16 is the batch '
                             'size that its learning rate was chosen for')
        cfg.auto_scale_lr.enable = True
    start_from = cfg.get('load_from')  # used if there is nothing to resume from
    if resume == 'auto':
        cfg.resume, cfg.load_from = True, None
    elif resume is not None:
        if not (os.path.isfile(resume) or files_of(resume)) and '://' not in resume:
            raise FileNotFoundError(f'resume={resume!r}: no such checkpoint '
                                    f'({os.path.abspath(resume)})')
        cfg.resume, cfg.load_from = True, resume
    add_for_training(cfg)
    warnings = check_config(cfg, training=True)
    runner = build_runner(cfg)
    runner.start_from = start_from
    for warning in warnings:
        runner.logger.warning(warning)
    if compiled:
        compile_features(runner.model)
    runner.train()
    return runner


def test(cfg: Config, checkpoint: str, out: Optional[str] = None, show: bool = False,
         show_dir: Optional[str] = None, wait_time: float = 2, tta: bool = False,
         deploy: bool = False, compiled: bool = False, split: str = 'test',
         amp: Union[bool, str] = False) -> dict:
    """Evaluate a checkpoint as a config says.

    Args:
        cfg: From :func:`load_config`.
        checkpoint: Path, URL or ``fastervit://`` name. It must fill the whole model.
        out: For detectors a ``.pkl`` file, for segmentors a folder of label maps (PNG, numbered as
            the dataset's own).
        show: Show each prediction in a window. Default False.
        show_dir: Folder for figures of the predictions and any ground truth.
        wait_time: Seconds between two figures of ``show``. Default 2.
        tta: Test-time augmentation: the config's own or, for detectors, a flip. Default False.
        deploy: Fold the backbone (:meth:`fastervit_mm.FasterViT.switch_to_deploy`). Default False.
        compiled: Compile backbone and neck (:func:`compile_features`). Default False.
        split: ``'val'`` for the config's ``val_dataloader``, ``val_evaluator`` and ``val_cfg``, or
            another name such as ``'imagenet_a'``. Default ``'test'``.
        amp: Mixed precision: True, ``'bf16'`` or ``'fp16'``. Default False, float32.

    Returns:
        The metrics.

    Raises:
        CheckpointError: For a checkpoint that does not fill the model.
        ConfigError: For a config that cannot be tested as it is, before anything is built.
        ValueError: For an argument that the config does not support.
    """
    if compiled:
        _check_compiler()
    if not has_amp_device():
        keep_freed_memory()
    dtype = choose_for_testing(cfg, amp)
    cfg.load_from = checkpoint
    _add_hooks(cfg, 'PublishedNamesHook', 'CompleteCheckpointHook', 'BoxesHook')
    if deploy:
        cfg.custom_hooks.append(dict(type='DeployHook', dtype=dtype and str(dtype)[6:]))
    _check_split(cfg, split)
    check_config(cfg, training=False, split=split)
    _test_on(cfg, split)
    if show or show_dir:
        _draw(cfg, show, show_dir, wait_time)
    segments = cfg.get('default_scope') == 'mmseg'
    if out is not None:
        _check_out(out, segments)
        if segments:
            cfg.custom_hooks.append(dict(type='LabelMapsHook', out_dir=out))
    if tta:
        _augment(cfg, segments)
    runner = build_runner(cfg)
    if out is not None and not segments:
        runner.test_evaluator.metrics.append(METRICS.build(dict(
            type='DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'DumpResults',
            out_file_path=out)))
    if compiled:
        compile_features(runner.model)
    if dtype is not None:
        test_in(runner.model, dtype)
    return runner.test()


def _add_hooks(cfg: Config, *names: str) -> None:
    hooks = list(cfg.get('custom_hooks') or [])
    there = [type_name(hook) for hook in hooks if isinstance(hook, dict)]
    cfg.custom_hooks = hooks + [dict(type=name) for name in names if name not in there]


def add_for_training(cfg: Config) -> None:
    """Add hooks, atomic checkpoints and resumable loops to a config."""
    _add_hooks(cfg, 'PublishedNamesHook', 'BoxesHook', 'FiniteLossHook', 'MissedValidationHook',
               'NoticeHook', 'PlainValuesHook')
    if not has_amp_device() and not (cfg.get('randomness') or {}).get('deterministic'):
        _add_hooks(cfg, 'ThreadsHook')
    make_resumable(cfg)
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = ConfigDict()
    cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    for hook in (*cfg.default_hooks.values(), *cfg.custom_hooks):
        if isinstance(hook, dict) and 'type' in hook and type_name(hook) in _REPLACED:
            hook['type'] = _REPLACED[type_name(hook)]


def _check_split(cfg: Config, split: str) -> None:
    splits = [name.removesuffix('_evaluator') for name in cfg if name.endswith('_evaluator')]
    known = list(dict.fromkeys(['test', 'val', *splits]))
    if split not in known:
        raise ValueError(f'split={split!r}: give one of {", ".join(known)}')
    absent = [name for name in (f'{split}_dataloader', f'{split}_evaluator', f'{split}_cfg')
              if cfg.get(name) is None]
    if absent:
        raise ValueError(f'split={split!r}: the config has no {", ".join(absent)}')


def _test_on(cfg: Config, split: str) -> None:
    """Use a split's settings as the runner's test settings."""
    if split == 'test':
        return
    for name in ('dataloader', 'evaluator'):
        cfg[f'test_{name}'] = deepcopy(cfg[f'{split}_{name}'])
    loop = (cfg.get('test_cfg') or {}).get('type', 'TestLoop')
    cfg.test_cfg = dict(deepcopy(cfg[f'{split}_cfg']), type=loop)  # a ValLoop would run other hooks
    cfg.tested_split = split


def _draw(cfg: Config, show: bool, show_dir: Optional[str], wait_time: float) -> None:
    if not cfg.get('visualizer'):
        raise ValueError('show, show_dir: the config has no visualizer; add the one in the '
                         'default_runtime base of mmdet, mmseg or mmpretrain')
    if show_dir:
        _check_writable('show_dir', show_dir)
    own = (cfg.get('default_hooks') or {}).get('visualization') or {}
    cfg.custom_hooks.append(dict(type='OverlaysHook', out_dir=show_dir, show=show,
                                 wait_time=wait_time, score_thr=own.get('score_thr', 0.3)))


def _check_out(out: str, segments: bool) -> None:
    if segments and os.path.splitext(out)[1]:
        raise ValueError(f'out={out!r}: a segmentor writes one label map for each image; give a '
                         'folder')
    if not segments and not out.endswith(('.pkl', '.pickle')):
        raise ValueError(f'out={out!r}: a detector\'s predictions go to one file; give a name '
                         'that ends in .pkl')
    _check_writable('out', out if segments else os.path.dirname(out) or '.')


def _check_writable(name: str, folder: str) -> None:
    for problem in unwritable(name, folder):  # before the first image, not after the last
        raise ConfigError(problem)


def _augment(cfg: Config, segments: bool) -> None:
    if segments and not ('tta_model' in cfg and 'tta_pipeline' in cfg):
        raise ValueError('tta=True: the config has no tta_model and tta_pipeline; take '
                         'those of mmseg\'s installed bases')
    if 'tta_model' not in cfg:
        if cfg.get('default_scope') != 'mmdet':
            raise ValueError('tta=True: the config has no tta_model')
        _leave_masks_out(cfg)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(
            nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for _, dataset in dataset_configs(cfg, 'test_dataloader'):
        dataset['pipeline'] = deepcopy(cfg.get('tta_pipeline')) or _flipped(dataset['pipeline'])


def _flipped(pipeline: List[Dict]) -> List[Dict]:
    """Add each image's flipped copy to a detector's test pipeline."""
    *steps, packing = deepcopy(pipeline)
    # The merge needs these to undo each flip.
    packing['meta_keys'] = (*packing.get('meta_keys', (
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
        'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1., 0.)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [packing]])]


def _leave_masks_out(cfg: Config) -> None:
    """Remove mask head and segm metric: mmdet merges only boxes.

    In mmdet 3.3 a mask head fails on a flipped image (a negative step on a tensor), and a
    CocoMetric that expects masks fails after the last image.
    """
    head = cfg.model.get('roi_head', {})
    if head.pop('mask_head', None) is not None:
        head.pop('mask_roi_extractor', None)
        print_log('Test-time augmentation merges boxes, not masks: the mask head is left out '
                  'and segm is not evaluated', logger='current')
    for _, metric in metric_configs(cfg, 'test_evaluator'):
        if isinstance(metric.get('metric'), (list, tuple)):
            metric['metric'] = [m for m in metric['metric'] if m != 'segm']
