"""Checks of single settings: registered classes, numbers in range."""
import difflib
import math
from typing import Any, Dict, Iterator, List, Optional, Tuple

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    Registry,
)

from ..config_files import ConfigError
from ..models import class_of, dataset_configs

# Parts of a model that are always built from the registry of models.
_PARTS = ('backbone', 'neck', 'decode_head', 'auxiliary_head', 'head', 'rpn_head', 'roi_head',
          'bbox_head', 'mask_head', 'panoptic_head', 'panoptic_fusion_head', 'data_preprocessor')
Named = Tuple[str, Dict, Registry]


def check_parts(cfg: Config, training: bool, split: str = 'test') -> None:
    """Check that a config has all parts.

    Args:
        cfg: A config.
        training: Whether it will be trained; else tested.
        split: The tested split.

    Raises:
        ConfigError: Naming a part that is missing or not a dict.
    """
    needed = ['model', *(('train_dataloader', 'train_cfg', 'optim_wrapper') if training else
                         (f'{split}_dataloader', f'{split}_evaluator', f'{split}_cfg'))]
    name = f'{cfg.filename}: ' if cfg.filename else ''
    absent = [part for part in needed if cfg.get(part) is None]
    if absent:
        raise ConfigError(f'{name}the config has no {", ".join(absent)}; give a config of a '
                          'detector, segmentor or classifier, or one that inherits from it')
    for part in needed:
        if not isinstance(cfg[part], (dict, list) if 'evaluator' in part else dict):
            raise ConfigError(f'{name}{part}={cfg[part]!r:.60}: give a dict')


def wrong_settings(cfg: Config, loaders: List[str], training: bool) -> Iterator[str]:
    """Find unregistered classes and numbers out of range.

    Args:
        cfg: A config that has passed :func:`check_parts`.
        loaders: Names of the data loaders that will be used.
        training: Whether the config will be trained.
    """
    for place, settings, registry in _named(cfg, loaders, training):
        kind = settings.get('type')
        try:
            known = kind is None or class_of(settings, cfg, registry) is not None
        except Exception:  # noqa: BLE001  scope not installed: building reports it
            continue
        if not known:
            near = _near(str(kind), registry)
            yield (f'{place}.type={kind!r}: no such class is registered'
                   + (f'; similar: {", ".join(near)}' if near else '')
                   + '. To use your own class, name its module in custom_imports')
    for loader in loaders:
        settings = cfg.get(loader) or {}
        yield from _wrong_number(f'{loader}.batch_size', settings.get('batch_size'), 1, whole=True)
        yield from _wrong_number(f'{loader}.num_workers', settings.get('num_workers'), 0,
                                 whole=True)
        if not settings.get('num_workers'):
            for name in ('persistent_workers', 'prefetch_factor', 'timeout',
                         'multiprocessing_context'):
                if settings.get(name):
                    yield (f'{loader}.{name}={settings[name]!r}: needs workers, but '
                           f'{loader}.num_workers is 0. Set {loader}.num_workers=2 or leave {name} '
                           'out')
    if training:
        for name in ('max_epochs', 'max_iters', 'val_interval'):
            number = cfg.train_cfg.get(name)
            if isinstance(number, float) and number.is_integer():  # as mmengine takes it
                number = int(number)
            yield from _wrong_number(f'train_cfg.{name}', number, 1, whole=True)
        optimizer = cfg.optim_wrapper.get('optimizer')
        if isinstance(optimizer, dict):
            for name in ('lr', 'weight_decay'):
                yield from _wrong_number(f'optim_wrapper.optimizer.{name}', optimizer.get(name), 0)


def metric_configs(cfg: Config, name: str) -> Iterator[Tuple[str, Dict]]:
    """List the metrics of an evaluator in any form.

    Args:
        cfg: A config.
        name: Such as ``'val_evaluator'``; it may be absent.

    Yields:
        Its dotted name in the config, and its settings.
    """
    place, metrics = name, cfg.get(name) or []
    if isinstance(metrics, dict) and 'metrics' in metrics:
        place, metrics = f'{name}.metrics', metrics['metrics']
    if not isinstance(metrics, (list, tuple)):
        yield place, metrics
        return
    yield from ((f'{place}.{i}', metric) for i, metric in enumerate(metrics)
                if isinstance(metric, dict))


def _wrong_number(place: str, value: Any, least: int, whole: bool = False) -> Iterator[str]:
    kind = int if whole else (int, float)
    if value is not None and not (isinstance(value, kind) and not isinstance(value, bool)
                                  and least <= value < math.inf):
        yield f'{place}={value!r}: give a {"whole " * whole}number of at least {least}'


def _named(cfg: Config, loaders: List[str], training: bool) -> Iterator[Named]:
    """Dotted name, settings and registry of parts, where known."""
    found: List[Tuple[str, Any, Registry]] = [('model', cfg.model, MODELS)]
    found += [(f'model.{name}', cfg.model.get(name), MODELS) for name in _PARTS]
    for loader in loaders:
        found.append((f'{loader}.sampler', (cfg.get(loader) or {}).get('sampler'), DATA_SAMPLERS))
        for place, dataset in dataset_configs(cfg, loader):
            found += [(place, dataset, DATASETS),
                      (f'{place}.pipeline', dataset.get('pipeline'), TRANSFORMS)]
        if loader != 'train_dataloader':
            found += [(place, metric, METRICS) for place, metric in metric_configs(
                cfg, loader.replace('dataloader', 'evaluator'))]
    if training:
        found += [('optim_wrapper', dict({'type': 'OptimWrapper'}, **cfg.optim_wrapper),
                   OPTIM_WRAPPERS),
                  ('optim_wrapper.optimizer', cfg.optim_wrapper.get('optimizer'), OPTIMIZERS),
                  ('param_scheduler', cfg.get('param_scheduler'), PARAM_SCHEDULERS)]
    found.append(('custom_hooks', cfg.get('custom_hooks'), HOOKS))
    for place, settings, registry in found:
        for name, one in ([(f'{place}.{i}', one) for i, one in enumerate(settings)]
                          if isinstance(settings, (list, tuple)) else [(place, settings)]):
            if isinstance(one, dict):
                yield name, one, registry


def _near(name: str, registry: Optional[Registry]) -> List[str]:
    """Find similar names in a registry and those below it."""
    known: List[str] = []
    waiting = [registry]
    while waiting:
        one = waiting.pop()
        known += one.module_dict
        waiting += one.children.values()
    return list(dict.fromkeys(difflib.get_close_matches(name, known, n=3)))
