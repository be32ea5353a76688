"""Checks of a config before anything is built."""
import os
import tempfile
from typing import Dict, Iterator, List, Optional

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS

from ..backbone import FasterViT
from ..config_files import ConfigError, typed
from ..datasets.class_order import numbered_by_file
from ..models import annotation_file, class_of, dataset_configs, type_name
from ..weights import CheckpointError, read_checkpoint, resolve, tensors_of
from .class_checks import heads, reordered_checkpoint, wrong_classes
from .distributed import first_neck, without_gradient
from .metric_checks import holds, missing_file, occurrences, read_json, wrong_metrics
from .settings import check_parts, wrong_settings

# Environment variables with the number of processes; the process group does not exist yet.
_WORLD_SIZE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
# Datasets of tools/prepare_data.py.
_PREPARED = dict(CocoDataset='coco', ADE20KDataset='ade20k', ImageNet='imagenet',
                 ImageNetFolders=None)


def check_config(cfg: Config, training: bool, split: str = 'test') -> List[str]:
    """Check a config for mistakes that would show hours later.

    It checks names of classes and ranges of numbers, folders and annotation files, the annotations'
    classes against those of the heads, the metrics of evaluators and hooks, the backbone's widths
    against the layers that read its maps, checkpoints, and the work directory.

    Args:
        cfg: A config of mmdet, mmseg or mmpretrain.
        training: Whether the config will be trained; else tested.
        split: The tested split: ``'test'`` for ``test_dataloader``, and so on. Default ``'test'``.

    Returns:
        Warnings about settings that are possible but seldom intended.

    Raises:
        ConfigError: With every mistake found, in one message.
        CheckpointError: For a ``load_from`` that cannot be read or, when resuming, lacks the
            training state.
    """
    check_parts(cfg, training, split)
    loaders = [f'{s}_dataloader' for s in (('train', 'val') if training else (split,))]
    problems: List[str] = []
    for what, check in (
            ('work_dir', unwritable('work_dir', cfg.get('work_dir'))),
            ('a setting', wrong_settings(cfg, loaders, training)),
            *((loader, _wrong_data(cfg, loader)) for loader in loaders),
            ('model', wrong_classes(cfg, loaders, training)),
            *((loader.replace('dataloader', 'evaluator'), wrong_metrics(cfg, loader, training))
              for loader in loaders),
            ('model', _wrong_widths(cfg, training)),
            ('checkpoint', _unusable_checkpoints(cfg, training, loaders[0]))):
        problems += _guarded(what, check)
    if problems:
        name = f'{cfg.filename}: ' if cfg.filename else ''
        listed = (f' {problems[0]}' if len(problems) == 1 else '\n' + '\n'.join(
            f'  {i}. {problem}' for i, problem in enumerate(problems, 1)))
        raise ConfigError(f'{name}this config cannot run as it is:{listed}')
    return list(_guarded('auto_scale_lr', _unscaled_lr(cfg))) if training else []


def _guarded(what: str, check: Iterator[str]) -> Iterator[str]:
    """Report a crashing check as a finding."""
    try:
        yield from check
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  a setting may be anything
        yield f'{what}: of another kind than expected ({type(error).__name__}: {error})'


def _wrong_data(cfg: Config, loader: str) -> Iterator[str]:
    """Find missing paths of a loader and its evaluator."""
    for place, dataset in dataset_configs(cfg, loader):
        kind = class_of(dataset, cfg, DATASETS)
        if _is_local(dataset):
            yield from _missing_files(place, dataset, kind)
            if loader == 'train_dataloader':
                yield from _untrainable(place, dataset, kind)
    yield from missing_file(cfg, loader.replace('dataloader', 'evaluator'))


def unwritable(name: str, folder: Optional[str]) -> Iterator[str]:
    """Create a folder, and check that it is writable.

    Args:
        name: The argument that names the folder, for the message.
        folder: The folder, or None.

    Yields:
        One line if it cannot be written to.
    """
    if folder is None:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield (f'{name}={folder!r}: cannot be written to ({error.strerror}: '
               f'{os.path.abspath(folder)}). Give another --{name.replace("_", "-")}')


def _is_local(dataset: Dict) -> bool:
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    return backend == 'local' and '://' not in str(dataset.get('data_root'))


def _paths(dataset: Dict) -> Dict[str, str]:
    """List a dataset's files and folders by their arguments."""
    prefix = dataset.get('data_prefix')
    paths = {f'data_prefix.{k}': v for k, v in (prefix if isinstance(prefix, dict) else {}).items()
             if isinstance(v, str)}
    if dataset.get('ann_file'):
        paths['ann_file'] = dataset['ann_file']
    return {k: os.path.join(dataset.get('data_root') or '', v) for k, v in paths.items()}


def _missing_files(place: str, dataset: Dict, kind: Optional[type]) -> Iterator[str]:
    root = dataset.get('data_root')
    known = next((_PREPARED[c.__name__] for c in getattr(kind, '__mro__', ())
                  if c.__name__ in _PREPARED and not dataset.get('metainfo')), None)
    remedy = (f'"{typed("prepare_data.py")} {known} --root {root}" says what to download and '
              'where it goes; ' if known and root else '') + (
        f'if the data are elsewhere, set {place}.data_root')
    if root and not os.path.isdir(root):
        yield f'{place}.data_root={root!r}: no such folder ({os.path.abspath(root)}). {remedy}'
        return
    for name, path in _paths(dataset).items():
        if not os.path.exists(path):
            yield f'{place}.{name}: {os.path.abspath(path)} does not exist. {remedy}'


def _untrainable(place: str, dataset: Dict, kind: Optional[type]) -> Iterator[str]:
    """Find files with only crowds or without masks.

    A file is parsed only if a search of its text makes that likely.
    """
    file = annotation_file(dataset)
    if not (numbered_by_file(kind) and os.path.isfile(file)):
        return
    crowds = not holds(file, rb'"iscrowd"\s*:\s*[0f]') and holds(file, rb'"iscrowd"\s*:\s*[1t]')
    masks = any(step.get('with_mask') and type_name(step) != 'LoadPanopticAnnotations'
                for step in dataset.get('pipeline') or ()) and (
        holds(file, rb'"segmentation"\s*:\s*(\[\s*\]|n)')
        or occurrences(file, b'"segmentation"') < occurrences(file, b'"bbox"'))
    annotations = read_json(file).get('annotations') or () if crowds or masks else ()
    bare = [a['id'] for a in annotations if masks and not a.get('segmentation') and not (
        a.get('ignore') or a.get('area', 1) <= 0 or min(a['bbox'][2:]) < 1)]
    if bare:
        yield (f'{place}.ann_file={file!r}: {len(bare)} of {len(annotations)} annotations have no '
               f'segmentation, such as that with id {bare[0]!r}, and the pipeline loads masks. '
               'Give each its segmentation, or train without masks (with_mask=False, no mask head)')
    if annotations and all(annotation.get('iscrowd') for annotation in annotations):
        yield (f'{place}.ann_file={file!r}: all {len(annotations)} annotations have iscrowd=1, '
               'which marks what training ignores. Set iscrowd to 0 in each that is one object')


def _wrong_widths(cfg: Config, training: bool) -> Iterator[str]:
    """Find layers whose ``in_channels`` differ from the backbone's widths."""
    backbone = cfg.model.get('backbone') or {}
    kind = class_of(backbone, cfg, MODELS) if backbone else None
    if not (isinstance(kind, type) and issubclass(kind, FasterViT)):
        return
    settings = {k: v for k, v in backbone.items() if k not in ('type', 'init_cfg', '_scope_')}
    try:
        with torch.device('meta'):  # takes no memory
            network = kind(**settings)
    except (ValueError, TypeError) as error:  # the message names the argument
        yield f'model.backbone: {error}'
        return
    widths = network.out_channels
    if training:
        yield from without_gradient(cfg, network)
    neck = first_neck(cfg)
    for place, reader in [neck] if neck[1] else heads(cfg.model, 'model'):
        has, index = reader.get('in_channels'), reader.get('in_index')
        if has is None or (index is None and isinstance(has, int) and 'head' not in place):
            continue
        if isinstance(has, (list, tuple)):
            has = list(has)
            index = range(len(widths)) if index is None else index
        try:
            right = ([widths[i] for i in index] if isinstance(has, list)
                     else widths[-1 if index is None else index])
        except IndexError:
            yield (f'{place}.in_index={index}: the backbone gives {len(widths)} maps; add stages '
                   'to model.backbone.out_indices or name fewer')
            continue
        if has != right:
            yield (f'{place}.in_channels={has}, but the backbone (arch={backbone.get("arch")!r}) '
                   f'gives {right}. Set {place}.in_channels={right}')


def _unusable_checkpoints(cfg: Config, training: bool, loader: str) -> Iterator[str]:
    named = {'load_from': cfg.get('load_from')}
    if training:  # a test fills the whole model from its checkpoint
        for place, node in (('model', cfg.model), ('model.backbone', cfg.model.get('backbone'))):
            init = (node or {}).get('init_cfg') or {}
            for i, one in enumerate(init if isinstance(init, list) else [init]):
                if 'type' in one and type_name(one) in ('Pretrained', 'PretrainedInit'):
                    where = f'{place}.init_cfg' + (f'.{i}' if isinstance(init, list) else '')
                    named[f'{where}.checkpoint'] = one.get('checkpoint')
    for name, checkpoint in named.items():
        if not checkpoint:
            continue
        shard = os.path.join(str(checkpoint), 'rank0.pth')
        if cfg.get('runner_type') == 'ShardedRunner' and os.path.isfile(shard):
            checkpoint = shard
        try:
            if '://' in resolve(str(checkpoint)):
                continue
            content = read_checkpoint(checkpoint, mapped=True)
            tensors_of(content, checkpoint)
            absent = [k for k in ('meta', 'message_hub') if k not in content]
            if name == 'load_from' and cfg.get('resume') and absent:
                raise CheckpointError(
                    f'checkpoint={checkpoint!r}: has no training state to resume '
                    f'(no {", no ".join(absent)}). To start from its weights, leave --resume out: '
                    f'--cfg-options load_from={checkpoint}')
            if name == 'load_from' and (cfg.get('resume') or not training):
                yield from reordered_checkpoint(cfg, loader, content)
        except FileNotFoundError as error:
            reason = str(error).removeprefix(f'checkpoint={checkpoint!r}: ')
            yield (f'{name}={checkpoint!r}: {reason}. Give a file, a URL or a published name such '
                   'as fastervit://2-224-1k' + (
                       '; with init_cfg=None training starts from scratch'
                       if 'init_cfg' in name else ''))
        except (CheckpointError, ValueError, OSError) as error:
            if name == 'load_from' and isinstance(error, CheckpointError):
                raise  # from the command line, not the config
            reason = str(error).removeprefix(f'checkpoint={checkpoint!r}: ')
            yield f'{name}={checkpoint!r}: {reason}'


def _unscaled_lr(cfg: Config) -> Iterator[str]:
    scaling = cfg.get('auto_scale_lr') or {}
    each = (cfg.get('train_dataloader') or {}).get('batch_size')
    lr = cfg.get('optim_wrapper', {}).get('optimizer', {}).get('lr')
    base = scaling.get('base_batch_size')
    if not (each and lr and base) or scaling.get('enable'):
        return
    world = int(os.environ.get(_WORLD_SIZE.get(cfg.get('launcher', 'none'), ''), 1))
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    batch = each * world * steps
    if batch != base:
        terms = f'{each} x {world} processes' + (f' x {steps} accumulated' if steps > 1 else '')
        # mmengine's own scaling ignores accumulation.
        automatic = '--auto-scale-lr, or ' if steps == 1 else ''
        yield (f'The batch is {batch} ({terms}), and the learning rate {lr:g} was chosen for '
               f'{base}. In proportion it would be {lr * batch / base:g}: {automatic}--cfg-options '
               f'optim_wrapper.optimizer.lr={lr * batch / base:g}')
