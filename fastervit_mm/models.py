"""Building and loading models; finding backbones and datasets.

Configs are mmdet's, mmseg's or mmpretrain's. Each library is imported only when a config needs it.
"""
import copy
import logging
import os
from contextlib import suppress
from inspect import signature
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, Registry, init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from .backbone import StagedBackbone
from .datasets.class_order import declared_classes, label_order, numbered_by_file
from .registry import SCOPE
from .weights import read_checkpoint, tensors_of
from .weights.whole import check_complete, rename_published
from .weights.whole import unwrapped as unwrapped


def build_model(cfg: Config) -> nn.Module:
    """Build a config's model for one process.

    Its weights are those of construction: ``init_weights`` is not called. SyncBN becomes BatchNorm,
    and a ``data_preprocessor`` beside the model goes into the model, as in mmengine's runner.

    Args:
        cfg: A config; it is not changed.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    settings = copy.deepcopy(cfg.model)  # some models write into theirs
    if cfg.get('data_preprocessor') is not None:  # mmpretrain's habit
        settings.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    return revert_sync_batchnorm(MODELS.build(settings))


def load_model(cfg: Config, checkpoint: str, device: str = 'cpu') -> nn.Module:
    """Build a config's trained model, in evaluation mode.

    Args:
        cfg: A config; it is not changed.
        checkpoint: Path, URL or ``fastervit://`` name. It must fill the whole model.
        device: Where the model goes. Default the CPU.

    Returns:
        The model. Its ``dataset_meta`` has the checkpoint's classes and colours, as in mmdet and
        mmseg; the classes in the order of the network's outputs.

    Raises:
        FileNotFoundError: For a path that does not exist.
        CheckpointError: For a checkpoint that cannot be read safely or does not fill the model.
    """
    content = read_checkpoint(checkpoint, mapped=True)
    tensors_of(content, checkpoint)  # before seconds of building
    model = build_model(cfg)
    content = rename_published(content, model, checkpoint)
    check_complete(model, content, checkpoint)
    load_state_dict(model, content.get('state_dict', content), logger='silent')
    model.dataset_meta = _as_numbered(learned_meta(content), cfg)
    return model.to(device).eval()


def learned_meta(content: Mapping[str, Any]) -> dict:
    """Metainfo of training data in a checkpoint, such as classes.

    Before mmengine, the libraries called them ``CLASSES`` and ``PALETTE``.

    Args:
        content: What was read from the file.
    """
    meta = content.get('meta') or {}
    meta = meta.get('dataset_meta') or {k: meta[k] for k in ('CLASSES', 'PALETTE') if k in meta}
    return {key.lower(): value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in meta.items()}


def _as_numbered(meta: dict, cfg: Config) -> dict:
    """Metainfo with the classes in the order of the labels.

    mmdet saves the config's list, but numbers labels as the annotation file lists its categories.
    """
    _, dataset = next(dataset_configs(cfg, 'train_dataloader'), ('', {}))
    kind, file = class_of(dataset, cfg, DATASETS), annotation_file(dataset)
    classes = tuple(meta.get('classes') or ())
    if not numbered_by_file(kind) or not os.path.isfile(file):
        return meta
    with suppress(OSError, ValueError):  # the checks before a training say what is wrong
        order = label_order(classes, file)
        if (order != classes and set(order) == set(classes)
                and classes == declared_classes(dataset, kind)):
            print_log(f'The checkpoint names its classes {list(classes)}, but {file}, on which it '
                      f'was trained, numbers them {list(order)}: this order is used', 'current',
                      logging.WARNING)
            meta['classes'] = order
    return meta


def find_backbones(model: nn.Module, name: str = 'model') -> List[StagedBackbone]:
    """Every FasterViT in a model, itself included.

    Args:
        model: A detector, segmentor, classifier or backbone.
        name: What an error message calls the model.

    Raises:
        ValueError: For a model without a FasterViT.
    """
    found = [module for module in model.modules() if isinstance(module, StagedBackbone)]
    if not found:
        raise ValueError(f'{name}: {type(model).__name__} holds no FasterViT')
    return found


def channels_taken(model: nn.Module) -> Optional[int]:
    """Channels of the images for a model's first FasterViT; None without one."""
    return next((m.in_channels for m in model.modules() if isinstance(m, StagedBackbone)), None)


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Fold every FasterViT in a model, in place.

    See :meth:`fastervit_mm.FasterViT.switch_to_deploy`. The model is put into evaluation mode.

    Returns:
        The model.

    Raises:
        ValueError: For a model without a FasterViT.
    """
    for backbone in find_backbones(model.eval(), 'deploy=True'):
        backbone.switch_to_deploy()
    return model


def dataset_configs(cfg: Config, loader: str) -> Iterator[Tuple[str, Dict]]:
    """A loader's datasets in order, without wrappers such as RepeatDataset.

    Args:
        cfg: A config.
        loader: Such as ``'train_dataloader'``; a loader that the config lacks gives nothing.

    Yields:
        Its dotted name in the config, and its settings.
    """
    found = [(f'{loader}.dataset', (cfg.get(loader) or {}).get('dataset'))]
    while found:
        place, dataset = found.pop(0)
        if not isinstance(dataset, dict):
            continue
        inner = [(f'{place}.dataset', dataset.get('dataset'))] + [
            (f'{place}.datasets.{i}', d) for i, d in enumerate(dataset.get('datasets') or [])]
        if any(isinstance(d, dict) for _, d in inner):
            found = inner + found
        else:
            yield place, dataset


def dataset_config(cfg: Config, loader: str = 'test_dataloader') -> Dict:
    """The first dataset of a loader, without wrappers.

    Raises:
        ValueError: For a config without one.
    """
    for _, dataset in dataset_configs(cfg, loader):
        return dataset
    raise ValueError(f'config={cfg.filename}: no {loader} with a dataset, which says how images '
                     'are prepared')


def annotation_file(dataset: Mapping[str, Any]) -> str:
    """The path of a dataset's annotation file, by its settings."""
    return os.path.join(dataset.get('data_root') or '', str(dataset.get('ann_file') or ''))


def label_offset(cfg: Config) -> int:
    """The first class's number in label maps: 1 with mmseg's ``reduce_zero_label``, else 0."""
    _, dataset = next(dataset_configs(cfg, 'test_dataloader'), ('', {}))
    kind = class_of(dataset, cfg, DATASETS)
    default = kind and signature(kind).parameters.get('reduce_zero_label')
    return int(bool(dataset.get('reduce_zero_label', default and default.default)))


def image_folders(cfg: Config, loader: str = 'test_dataloader') -> List[str]:
    """Image folders of a loader's datasets, from their settings."""
    folders = []
    for _, dataset in dataset_configs(cfg, loader):
        prefix = dataset.get('data_prefix') or ''
        if isinstance(prefix, dict):
            prefix = prefix.get('img') or prefix.get('img_path')
        if prefix:
            folders.append(os.path.join(dataset.get('data_root') or '', prefix))
    return folders


def type_name(settings: Mapping[str, Any]) -> str:
    """Name of the class in ``type``, without scope and modules."""
    kind: Union[str, type] = settings['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def class_of(settings: Mapping[str, Any], cfg: Config, registry: Registry) -> Optional[type]:
    """Registered class that ``type`` names; None if there is none.

    Args:
        settings: Settings of a model, a dataset or a part of one.
        cfg: The config, for its default scope.
        registry: mmengine's root registry of such classes, such as ``DATASETS``.
    """
    kind = settings.get('type')
    if not isinstance(kind, str):
        return kind
    scope = settings.get('_scope_', SCOPE)
    scope = cfg.get('default_scope', 'mmengine') if scope == SCOPE else scope
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(kind)
