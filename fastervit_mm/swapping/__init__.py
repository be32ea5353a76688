"""FasterViT in place of a config's backbone."""
import os
import textwrap
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from ..backbone.variants import VARIANTS, Variant, resolve_variant
from ..config_files import ConfigError, find_config, read_config
from ..engine.console import quiet_libraries
from ..models import type_name
from .maps import backbone_maps, fastervit_maps
from .readers import swap_readers
from .training import swap_optimizer
from .writing import written

# Normalisation of the published weights' training, ImageNet's usual values.
NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                     bgr_to_rgb=True)
# Backbones whose heads take no other.
_WHOLE = ('BiSeNetV1', 'BiSeNetV2', 'CGNet', 'DDRNet', 'DetectoRS_ResNet', 'DetectoRS_ResNeXt',
          'ERFNet', 'FastSCNN', 'HourglassNet', 'ICNet', 'PIDNet', 'STDCContextPathNet',
          'TridentResNet', 'UNet', 'VPD')
_GONE = object()
_ORDER = ('custom_imports', 'model', 'load_from', 'optim_wrapper', 'param_scheduler',
          'auto_scale_lr', 'sync_bn')


@dataclass
class Swapped:
    """A config with FasterViT in place.

    Attributes:
        text: Text of the new config.
        changes: Its changes, one sentence each.
    """
    text: str
    changes: List[str]


def swap_backbone(config: Union[str, os.PathLike], arch: Union[str, dict] = '2',
                  out: Union[str, os.PathLike] = 'swapped.py') -> Swapped:
    """Inherit a config with FasterViT in place of its backbone.

    The old backbone is built and run, on the meta device if possible, to find its maps' widths and
    strides. FasterViT's stages of the same strides replace its maps (of a dilated ResNet, the
    stages in the same order), and neck and heads get the new widths. Maps that nothing reads are
    left out: their output norms would get no gradient, which distributed training refuses. The neck
    then has to give maps of the same widths and strides as before.

    Args:
        config: A path, a name such as ``'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'`` for a
            config of an installed package, or one of this package's own
            (:func:`fastervit_mm.get_config`).
        arch: A published variant, which starts from its ImageNet weights, or a dict as for
            :class:`fastervit_mm.FasterViT`, from scratch. Default ``'2'``.
        out: Where the text will be saved; nothing is written. If ``config`` is a path, it is
            inherited relative to it.

    Raises:
        FileNotFoundError: For a config that does not exist.
        ConfigError: For a config that cannot be read, or that FasterViT does not fit; the message
            says why.
        ValueError: For an unknown ``arch``.
    """
    variant = resolve_variant(arch)
    cfg = read_config(config)
    if Config._is_lazy_import(cfg.filename):
        text = f'{Path(cfg.filename).stem}_text.py'
        raise ConfigError(
            f'{cfg.filename}: a config in Python\'s own import syntax, which no _base_ can name. '
            'Give it as text, which this writes: python -c "from mmengine.config import Config; '
            f'Config.fromfile({cfg.filename!r}).dump({text!r})"')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    old, new = cfg.to_dict(), cfg.to_dict()
    place = next((place for place in ('model', 'model.detector')  # the second is a tracker's
                  if 'type' in (_at(old, place).get('backbone') or {})), None)
    if place is None:
        raise ConfigError(f'{cfg.filename}: has no model.backbone to replace')
    kind, why = type_name(_at(old, place)['backbone']), {}
    stages = _swap_model(cfg, new, place, variant, arch, why)
    names = _parameters(cfg, new['model'])
    prefix = f'{place}.backbone.'.removeprefix('model.')
    half = 'bfloat16' if isinstance(arch, str) and (arch in '56' or '21k' in arch) else ''
    others = (None if isinstance(names, str) else
              [name for name in names if not name.startswith(prefix)])
    new.update(swap_optimizer(cfg, others, half, why))
    new['custom_imports'] = _imports(cfg)
    new.setdefault('sync_bn', 'torch')
    changes = _changes(old, new, (f'{place}.backbone', 'optim_wrapper'))
    said = _sentences(changes, place, kind, arch, stages, why)
    if isinstance(names, str):
        said.append(f'not checked: the config\'s own model cannot be built here either ({names})')
    return Swapped(_text(config, cfg, Path(out), kind, arch, changes, said), said)


def write(config: Union[str, os.PathLike], out: Union[str, os.PathLike],
          arch: Union[str, dict] = '2', force: bool = False) -> Swapped:
    """Write the config of :func:`swap_backbone`.

    Args:
        config, arch: As in :func:`swap_backbone`.
        out: The file.
        force: Replace a file that exists. Default False.

    Raises:
        FileExistsError: For a file that exists.
        ValueError: For a name that does not end in .py, and as in :func:`swap_backbone`.
    """
    out = Path(out)
    if out.suffix != '.py':
        raise ValueError(f'out={str(out)!r}: a config is a Python file; give a name that ends in '
                         '.py')
    if out.exists() and not force:
        raise FileExistsError(f'out={str(out)!r}: exists already; --force replaces it')
    with quiet_libraries():
        swapped = swap_backbone(config, arch, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(swapped.text)
    return swapped


def _at(settings: Dict, place: str) -> Dict:
    """Settings at a dotted name, or an empty dict."""
    for part in place.split('.'):
        settings = settings.get(part) or {}
    return settings


def _swap_model(cfg: Config, new: Dict, place: str, variant: Variant, arch: Union[str, dict],
                why: Dict[str, str]) -> Tuple[int, ...]:
    """Change the model's settings; return FasterViT's stages."""
    holder = _at(new, place)
    old = holder['backbone']
    if type_name(old) in _WHOLE:
        raise ConfigError(f'{cfg.filename}: {place}.backbone: {type_name(old)} is not a network of '
                          'stages, and its heads take no other backbone. Take a config with a '
                          'ResNet, a Swin or the like')
    reasons: Dict[str, str] = {}
    try:
        stages = swap_readers(holder, backbone_maps(old), fastervit_maps(
            [variant.stage_dim(i) for i in range(4)]), reasons)
    except ConfigError as error:
        raise ConfigError(f'{cfg.filename}: {error}') from error
    why.update({f'{place}.{name}': reason for name, reason in reasons.items()})
    backbone = holder['backbone'] = dict(type='FasterViT', arch=arch)
    if stages != (0, 1, 2, 3):
        backbone['out_indices'] = stages
    if old.get('with_cp'):
        backbone['with_cp'] = True
    if isinstance(arch, str):
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=(
            f'fastervit://{arch}' + ('' if '21k' in arch else '-224-1k')))
    for name, node in ((f'{place}.pretrained', holder), (f'{place}.init_cfg', holder),
                       ('load_from', new)):
        key = name.rpartition('.')[2]
        if node.get(key):
            node[key] = None
            why[name] = 'weights of another network'
    for name, preprocessor in _preprocessors(new['model'], 'model'):
        preprocessor.update(deepcopy(NORMALISATION))
        why[name] = 'as the published weights were trained'
    return stages


def _preprocessors(node: Any, place: str) -> Iterator[Tuple[str, Dict]]:
    """All preprocessors of images, nested ones too."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if isinstance(value, dict):
            inner = f'{place}.{key}'
            if key == 'data_preprocessor' and 'data_preprocessor' not in value:
                yield inner, value
            elif key in ('data_preprocessor', 'detector'):
                yield from _preprocessors(value, inner)


def _parameters(cfg: Config, model: Dict) -> Union[List[str], str]:
    """Names of parameters, or why even the old model fails.

    Raises:
        ConfigError: For a model that can be built, but not with FasterViT.
    """
    try:
        return _built(model)
    except Exception as error:  # foreign code may raise anything
        try:
            _built(cfg.model.to_dict())
        except Exception as own:
            return f'{type(own).__name__}: {" ".join(str(own).split())}'
        raise ConfigError(f'{cfg.filename}: {type_name(model)} cannot be built with FasterViT '
                          f'({type(error).__name__}: {error})') from error


def _built(model: Dict) -> List[str]:
    """Names of the parameters of a model."""
    model = deepcopy(model)
    if 'teacher_ckpt' in model:  # else it would be loaded
        model['teacher_ckpt'] = None
    for device in ('meta', 'cpu'):
        try:
            with torch.device(device):
                built = MODELS.build(Config(dict(model=deepcopy(model))).model)
        except Exception:
            if device == 'cpu':
                raise
        else:
            break
    return [name for name, _ in built.named_parameters()]


def _imports(cfg: Config) -> Dict[str, Any]:
    given = (cfg.get('custom_imports') or {}).get('imports') or []
    given = [given] if isinstance(given, str) else list(given)
    ours = ['fastervit_mm', 'fastervit_mm.engine']
    return dict(imports=[*given, *(name for name in ours if name not in given)],
                allow_failed_imports=False)


def _changes(old: Any, new: Any, whole: Tuple[str, ...], place: str = '') -> Dict[str, Tuple]:
    """(before, after) of each changed setting, by dotted name."""
    if place in whole or not (isinstance(old, dict) and isinstance(new, dict)):
        return {} if old == new else {place: (old, new)}
    found: Dict[str, Tuple] = {}
    for key in new:
        found.update(_changes(old.get(key, _GONE), new[key], whole,
                              f'{place}.{key}' if place else key))
    return found


def _sentences(changes: Dict[str, Tuple], place: str, kind: str, arch: Union[str, dict],
               stages: Tuple[int, ...], why: Dict[str, str]) -> List[str]:
    said = [f'{place}.backbone: {_called(arch)} for {kind}; its stage{"s" * (len(stages) > 1)} '
            f'{_list(stages)}, of stride{"s" * (len(stages) > 1)} '
            f'{_list(4 * 2**i for i in stages)}'
            + (f' ({why[f"{place}.backbone"]})' if f'{place}.backbone' in why else '')
            + ('. Its weights are not for commercial use' if isinstance(arch, str) else
               '. It starts from scratch')]
    for name, (before, after) in changes.items():
        reason = why.get(name) or why.get(name.rpartition('.')[0])
        reason = f' ({reason})' if reason else ''
        if name == 'optim_wrapper':
            optimizer = after['optimizer']
            said.append(f'optim_wrapper: AdamW, lr={optimizer["lr"]:g}, weight decay '
                        f'{optimizer.get("weight_decay", 0.01):g}{reason}')
        elif name == 'sync_bn':
            said.append('sync_bn: BatchNorms of the whole model are synchronised in distributed '
                        'training, since batches on a GPU are small')
        elif name != f'{place}.backbone' and not name.startswith('custom_imports'):
            said += _pairs(name, before, after, reason, why)
    return said


def _pairs(name: str, before: Any, after: Any, reason: str, why: Dict[str, str]) -> List[str]:
    """Sentences for a changed setting, one for each list item."""
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)) and any(
            isinstance(item, dict) for item in before) and len(before) == len(after):
        return [sentence for i, (b, a) in enumerate(zip(before, after))
                for inner, pair in _changes(b, a, (), f'{name}.{i}').items()
                for sentence in _pairs(inner, *pair, f' ({why[inner]})' if inner in why else reason,
                                       why)]
    if before is _GONE:
        return [f'{name}: {after!r}{reason}']
    shown = type_name(before) if isinstance(before, dict) and 'type' in before else repr(before)
    return [f'{name}: {shown} -> {after!r}{reason}']


def _text(config: Union[str, os.PathLike], cfg: Config, out: Path, kind: str,
          arch: Union[str, dict], changes: Dict[str, Tuple], said: List[str]) -> str:
    lines = [f'{os.fspath(config)} with {_called(arch)} in place of its {kind}. Written by '
             'tools/swap_backbone.py; every line may be changed. What it changes:']
    lines += [f'- {sentence}' for sentence in said]
    comment = '\n'.join(textwrap.fill(
        line, 100, initial_indent='# ', break_long_words=False, break_on_hyphens=False,
        subsequent_indent='#   ' if line.startswith('- ') else '# ') for line in lines)
    settings: Dict[str, Any] = {}
    for name, (before, after) in changes.items():
        *parts, last = name.split('.')
        node = settings
        for part in parts:
            node = node.setdefault(part, {})
        whole = isinstance(after, dict) and before is not _GONE  # replaces the base's
        node[last] = dict(_delete_=True, **after) if whole else after
    own = '\n'.join(written(settings[name], f'{name} = ') for name in _ORDER if name in settings)
    return f'{comment}\n_base_ = {_base(config, cfg, out)!r}\n{own}\n'


def _base(config: Union[str, os.PathLike], cfg: Config, out: Path) -> str:
    """Name of the inherited config."""
    name = os.fspath(config)
    if '::' in name:
        return name if name.endswith('.py') else f'{name}.py'
    if not os.path.isfile(name):  # this package's name
        path = Path(find_config(name))
        return f'fastervit_mm::{path.parent.name}/{path.name}'
    return os.path.relpath(cfg.filename, out.absolute().parent)


def _called(arch: Union[str, dict]) -> str:
    return f'FasterViT-{arch}' if isinstance(arch, str) else 'a FasterViT of your own'


def _list(items) -> str:
    items = [str(item) for item in items]
    return ', '.join(items[:-1]) + (' and ' if items[1:] else '') + items[-1]


__all__ = ['NORMALISATION', 'VARIANTS', 'Swapped', 'swap_backbone', 'write']
