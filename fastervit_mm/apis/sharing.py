"""Folders for the Hugging Face Hub: weights, configuration and model card.

The format is timm's: ``config.json`` with the architecture, ``model.safetensors``, ``README.md``. A
classifier or backbone in it is a model of timm's registry; any whole network also brings its config
as text (:mod:`fastervit_mm.config_text`), by which this package's tools read the folder.
"""
import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple, Union

import timm
import torch
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from mmengine.config import Config
from torch import nn

from ..backbone import VARIANTS, FasterViT
from ..config_files import read_config, typed
from ..config_text import CONFIG_TEXT, config_to_text
from ..export.metadata import resizing, test_steps
from ..export.pictures import preprocessing
from ..models import annotation_file, dataset_configs, find_backbones, load_model, type_name
from ..version import __version__
from ..weights import read_checkpoint
from ..weights.converting import save_tensors
from ..weights.reading import DATASET_META
from .categories import metainfo

WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
_TASKS = dict(mmdet='object-detection', mmseg='image-segmentation',
              mmpretrain='image-classification')
_FEATURES = 'image-feature-extraction'
# Of weights that began with the authors', in the Hub's words.
_AUTHORS = dict(license='other', license_name='fastervit-weights',
                license_link='https://huggingface.co/ahatamiz/FasterViT')
_NOT_METRICS = ('time', 'data_time', 'step')
_TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True,
                         lstrip_blocks=True, undefined=StrictUndefined)


def share(config: Union[str, os.PathLike], checkpoint: str, folder: Union[str, os.PathLike],
          backbone: bool = False, license: Optional[str] = None,
          metrics: Union[str, os.PathLike, None] = None, trained_by: Optional[str] = None,
          written_by: str = 'fastervit_mm.apis.sharing.share') -> str:
    """Write a folder that the Hugging Face Hub takes.

    Args:
        config: As in :func:`~fastervit_mm.config_files.read_config`.
        checkpoint: Path, URL or ``fastervit://`` name. It must fill the whole model.
        folder: The folder, which must not exist yet.
        backbone: Only the FasterViT, as timm's without classifier. Default False.
        license: The Hub's name of a licence, such as ``'apache-2.0'``. Default that of the authors'
            weights for a network that began with them.
        metrics: File of metrics that ``tools/test.py`` leaves: ``<date>_<time>.json``. No default.
        trained_by: Command of the training, for the model card. Default not recorded.
        written_by: Command that calls this, for the model card.

    Returns:
        One line: the folder, its network, and timm's name of it or why timm does not have it.

    Raises:
        FileExistsError: If the folder exists.
        CheckpointError: For a checkpoint that does not fill the model.
        ValueError: For a config that needs code of its own, for a missing licence, for a file
            without metrics, and for a backbone that timm's FasterViT cannot be.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f'OUT={str(folder)!r}: exists already; give a new name or remove it')
    cfg = read_config(config)
    scope = cfg.get('default_scope')
    if scope not in _TASKS:
        raise ValueError(f'config: default_scope={scope!r}; give one of {", ".join(_TASKS)}')
    text = '' if backbone else config_to_text(cfg)
    terms = _terms(cfg, checkpoint, license)
    figures = _figures(metrics)
    model = load_model(cfg, checkpoint)
    meta = {} if backbone else _meta(model, cfg)
    classes = meta.get('classes')
    described = dict(architecture=type_name(cfg.model), library=scope,
                     num_classes=len(classes or ()))
    tensors, reason = model.state_dict(), 'timm has classifiers and backbones alone'
    if backbone or scope == 'mmpretrain':
        try:
            twin, described = as_timm(model, cfg, backbone)
            tensors = twin.state_dict()
        except ValueError as error:
            if backbone:
                raise
            reason = str(error)
    name, timms = described['architecture'], 'pretrained_cfg' in described
    card = _card(
        name=folder.name, network=_network(model), architecture=name, timm=timms, classes=classes,
        text=text and CONFIG_TEXT, weights=WEIGHTS, description=CONFIG, terms=terms,
        metrics=figures, version=__version__, config=os.path.basename(cfg.filename),
        data=_data(cfg), progress=_progress(checkpoint), trained_by=trained_by,
        written_by=written_by, scope=scope,
        library='timm' if timms else scope,
        task=_FEATURES if backbone else _TASKS[scope])

    folder.mkdir(parents=True)
    save_tensors(tensors, str(folder / WEIGHTS),
                 **{DATASET_META: json.dumps(meta)} if meta else {})
    files = {CONFIG: json.dumps({**described, 'label_names': classes} if classes else described,
                                indent=2), CONFIG_TEXT: text, CARD: card}
    for file, content in files.items():
        if content:
            (folder / file).write_text(content.rstrip('\n') + '\n', encoding='utf-8')
    return f'{folder}: {_network(model)}, ' + (
        f'as timm\'s {name}' if timms else f'not a model of timm ({reason})')


def check_folder(folder: Union[str, os.PathLike]) -> str:
    """Load the networks of a folder for the Hub completely; say what they are.

    Args:
        folder: Written by :func:`share`, or downloaded. No code in it is run.

    Returns:
        A line for each way to use it.

    Raises:
        FileNotFoundError: For a folder without the format's files.
        CheckpointError: For weights that cannot be read safely or do not fill the network.
        ValueError: For a configuration that is not of plain values, or of another network.
    """
    weights, said = os.path.join(folder, WEIGHTS), []
    try:
        described = json.loads(Path(folder, CONFIG).read_text(encoding='utf-8'))
        name = str(described['architecture'])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{Path(folder, CONFIG)}: not in timm\'s format: {error!r}') from None
    if 'pretrained_cfg' in described:
        if not name.startswith('fastervit_'):
            raise ValueError(f'{Path(folder, CONFIG)}: architecture={name!r}: not a FasterViT')
        timm.create_model(f'local-dir:{folder}').load_pretrained(weights)
        said.append(f'{folder}: {name}; timm.create_model(\'local-dir:{folder}\', pretrained=True)')
    if 'pretrained_cfg' not in described or Path(folder, CONFIG_TEXT).is_file():
        model = load_model(read_config(folder), weights)
        said.append(f'{folder}: {_network(model)}; {typed("infer.py")} {folder} {weights} IMAGES '
                    '--out DIR')
    return '\n'.join(said)


def as_timm(model: nn.Module, cfg: Config, backbone: bool) -> Tuple[nn.Module, Dict[str, Any]]:
    """timm's model with the weights of a classifier, or of a model's backbone.

    Args:
        model: In evaluation mode.
        cfg: Its config.
        backbone: Only the backbone.

    Returns:
        The model, and its configuration, from which timm and transformers build it.

    Raises:
        ValueError: If timm's FasterViT cannot be this network: has other tensors, other outputs,
            or takes BGR.
    """
    own = find_backbones(model)[0]
    last = own.out_norms['3'] if 3 in own.out_indices else None
    if not isinstance(own, FasterViT) or not isinstance(last, nn.BatchNorm2d):
        raise ValueError(f'{type(own).__name__}: timm\'s is a FasterViT with a BatchNorm after its '
                         'last map: out_norm=\'BN\', out_indices with 3')
    settings = preprocessing(model)
    if not settings.rgb and own.in_channels == 3:
        raise ValueError('the network takes BGR, and timm prepares RGB')
    name, arguments = _timms_name(own)
    classes = 0 if backbone else getattr(model.head, 'num_classes', 0)
    twin = timm.create_model(name, num_classes=classes, **arguments).eval()
    tensors = {f'backbone.{key}': value for key, value in own.state_dict().items()
               } if backbone else model.state_dict()
    wanted = twin.state_dict()
    odd = [key for key in wanted if key not in tensors or tensors[key].shape != wanted[key].shape]
    odd += [] if backbone else [key for key in tensors if key not in wanted]
    if odd:
        raise ValueError(f'timm\'s FasterViT and this network differ in {odd[:3]}')
    twin.load_state_dict({key: tensors[key] for key in wanted})
    image = torch.rand(1, own.in_channels, 96, 70)  # padded in every stage
    with torch.no_grad():
        ours, theirs = (own(image)[-1], twin.forward_features(image)) if backbone else (
            model(image, mode='tensor'), twin(image))
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(ours.abs().max())):
        raise ValueError('timm\'s FasterViT has other outputs: it knows no pad_conv_stages, and '
                         'one pooling and one linear layer after the backbone')
    channels = own.in_channels
    given = {key: twin.pretrained_cfg[key] for key in (
        'crop_pct', 'crop_mode', 'interpolation', 'first_conv', 'classifier')}
    return twin, dict(
        architecture=name, num_classes=classes, num_features=twin.num_features, global_pool='avg',
        model_args=arguments, pretrained_cfg={
            **given, 'custom_load': False, 'fixed_input_size': False, 'num_classes': classes,
            'input_size': (channels, *twin.pretrained_cfg['input_size'][1:]),
            'mean': [round(value / 255, 6) for value in settings.mean or [0.] * channels],
            'std': [round(value / 255, 6) for value in settings.std or [1.] * channels],
            **({} if backbone else timm_sizes(cfg, channels))})


def _timms_name(backbone: FasterViT) -> Tuple[str, Dict[str, Any]]:
    """A backbone's name in timm's registry, and arguments for what differs from it."""
    own, channels = backbone.variant, backbone.in_channels
    arguments: Dict[str, Any] = dict(in_chans=channels) if channels != 3 else {}
    for name, published in VARIANTS.items():
        if replace(own, drop_path_rate=published.drop_path_rate) == published:
            return f'fastervit_{name.replace("-", "_")}', arguments
    return 'fastervit_0', dict(arguments, arch=asdict(own))


def timm_sizes(cfg: Config, channels: int) -> Dict[str, Any]:
    """timm's words for the test pipeline's resizing and centre crop.

    Raises:
        ValueError: For a pipeline that timm's cannot equal.
    """
    steps = resizing(test_steps(cfg)) or {}
    crop, scale = (value if isinstance(value, (tuple, list)) else (value, value)
                   for value in (steps.get('crop_size'), steps.get('scale')))
    edge = steps.get('edge')
    if scale[0] is None or steps.get('keep_ratio') or edge and (
            edge != 'short' or crop[0] is None):
        raise ValueError('timm resizes the short edge and crops at the centre, or resizes both '
                         'sides; the test pipeline does not')
    height, width = scale[::-1] if crop[0] is None else crop
    # timm takes the floor of size / crop_pct, which must not fall short of the scale.
    return dict(input_size=(channels, height, width),
                interpolation=steps.get('interpolation', 'bilinear'),
                crop_pct=math.floor(1e6 * height / scale[-1]) / 1e6,
                crop_mode='center' if edge else 'squash')


def _terms(cfg: Config, checkpoint: str, license: Optional[str]) -> Dict[str, Optional[str]]:
    """Licence and origin, in the Hub's words."""
    derived = any(mark in f'{checkpoint} {cfg.to_dict()}'
                  for mark in ('fastervit://', 'ahatamiz/FasterViT'))
    if license is None and not derived:
        raise ValueError('license=None: give the weights\' licence, such as apache-2.0 or '
                         'cc-by-nc-4.0 (--license)')
    terms = dict(license=license) if license else _AUTHORS
    return dict(terms, base_model='ahatamiz/FasterViT' if derived else None)


def _figures(metrics: Union[str, os.PathLike, None]) -> Dict[str, float]:
    """Metrics in a file of tools/test.py, of its last line."""
    if metrics is None:
        return {}
    try:
        found = json.loads(Path(metrics).read_text(encoding='utf-8').strip().rpartition('\n')[2])
        figures = {key: value for key, value in found.items()
                   if isinstance(value, (int, float)) and key not in _NOT_METRICS}
    except (ValueError, AttributeError):
        figures = {}
    if not figures:
        raise ValueError(f'metrics={os.fspath(metrics)!r}: has no metrics; give the file that '
                         'tools/test.py leaves, <work dir>/<date>_<time>/<date>_<time>.json')
    return figures


def _meta(model: nn.Module, cfg: Config) -> Dict[str, list]:
    """Classes and palette, of the checkpoint or else of the dataset."""
    meta = model.dataset_meta or metainfo(cfg)
    return {key: list(meta[key]) for key in ('classes', 'palette')
            if isinstance(meta.get(key), (list, tuple))}


def _network(model: nn.Module) -> str:
    own = find_backbones(model)[0]
    arch = getattr(own, 'arch', None)
    name = type(own).__name__ + (f'-{arch}' if isinstance(arch, (str, int)) else '')
    return name if model is own else f'{type(model).__name__} with {name}'


def _data(cfg: Config) -> Dict[str, Sequence[str]]:
    """Datasets of training and test, by their settings."""
    return {split: [' '.join([type_name(dataset), annotation_file(dataset)]).strip()
                    for _, dataset in dataset_configs(cfg, f'{split}_dataloader')]
            for split in ('train', 'test')}


def _progress(checkpoint: str) -> Mapping[str, Any]:
    """What a checkpoint of mmengine says about its training."""
    meta = read_checkpoint(checkpoint, mapped=True).get('meta') or {}
    return {key: meta[key] for key in ('epoch', 'iter', 'seed', 'time')
            if meta.get(key) is not None}


def _card(**facts: Any) -> str:
    """Model card: the Hub's metadata and a text for people."""
    data = (facts['data']['test'] or ['unknown'])[0].partition(' ')[0].removesuffix('Dataset')
    card = ModelCardData(
        **facts['terms'], library_name=facts['library'], pipeline_tag=facts['task'],
        model_name=facts['name'], tags=['fastervit', 'fastervit_mm'],
        eval_results=[EvalResult(facts['task'], data.lower(), data, name, value)
                      for name, value in facts['metrics'].items()] or None)
    return f'---\n{card.to_yaml()}\n---\n' + _TEMPLATES.get_template('card.md.jinja').render(facts)

