"""One door to models: build one, load it whole, find the FasterViT, its pipeline and its data sets.

A config is one of mmdet, mmseg or mmpretrain. None of these is imported before a config needs it.
"""
import copy
from typing import Any, Dict, Iterator, List, Mapping, Tuple, Union

from mmengine.config import Config
from mmengine.model import BaseTTAModel, is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from torch import nn

from .backbone import FasterViT
from .weights import CheckpointError


def build_model(cfg: Config) -> nn.Module:
    """A config's model for one process, its weights as construction leaves them.

    SyncBN becomes BatchNorm, and a ``data_preprocessor`` beside the model goes into it, as
    mmengine's runner does both.

    Args:
        cfg: A config; it is not changed.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    settings = copy.deepcopy(cfg.model)  # some models write into theirs
    if cfg.get('data_preprocessor') is not None:  # mmpretrain's habit
        settings.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    return revert_sync_batchnorm(MODELS.build(settings))


def load_model(cfg: Config, checkpoint: str, device: str = 'cpu') -> nn.Module:
    """A config's model with a checkpoint's weights, in evaluation mode.

    Args:
        cfg: A config; it is not changed.
        checkpoint: Path, URL or ``fastervit://`` name. It must fill the whole model.
        device: Where the model goes. Default the CPU.

    Raises:
        FileNotFoundError: For a path where no file is.
        CheckpointError: For a checkpoint that cannot be read safely or does not fill the model.
    """
    model = build_model(cfg)
    content = load_checkpoint(model, checkpoint, map_location='cpu', logger='silent')
    check_complete(model, content, checkpoint)
    return model.to(device).eval()


def check_complete(model: nn.Module, content: Mapping[str, Any], checkpoint: str) -> None:
    """Raise where a checkpoint does not fill a model.

    mmengine loads with ``strict=False``: with a checkpoint of another variant it warns and goes on
    with a network that is half random.

    Args:
        model: The model; its wrappers (DDP, test-time augmentation) are looked through.
        content: What was read from the file.
        checkpoint: The file's name, for the message.

    Raises:
        CheckpointError: Where tensors are missing or have another shape.
    """
    own = unwrapped(model).state_dict()
    tensors = {key.removeprefix('module.'): value
               for key, value in content.get('state_dict', content).items()}
    missing = [k for k in own if k not in tensors and not k.endswith('num_batches_tracked')]
    mismatched = [f'{k} ({tuple(tensors[k].shape)} in the file, {tuple(own[k].shape)} in the '
                  'model)' for k in own if k in tensors and tensors[k].shape != own[k].shape]
    unexpected = [k for k in tensors if k not in own]
    if missing or mismatched:
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: does not fit the model of this config: '
            f'{len(missing)} of {len(own)} tensors are missing {missing[:3]}, '
            f'{len(mismatched)} have another shape {mismatched[:3]}, {len(unexpected)} of the '
            f'file have no place {unexpected[:3]}. Give the config that the checkpoint was '
            'trained with; it lies beside it in the work directory')


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside wrappers for distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def find_backbones(model: nn.Module, name: str = 'model') -> List[FasterViT]:
    """Every FasterViT that a model holds, itself included.

    Args:
        model: A detector, segmentor, classifier or backbone.
        name: What the message calls it.

    Raises:
        ValueError: Where there is none.
    """
    found = [module for module in model.modules() if isinstance(module, FasterViT)]
    if not found:
        raise ValueError(f'{name}: {type(model).__name__} holds no FasterViT')
    return found


def switch_to_deploy(model: nn.Module) -> nn.Module:
    """Fold every FasterViT in a model, in place (:meth:`fastervit_mm.FasterViT.switch_to_deploy`).

    The model is put into evaluation mode. Returns it.

    Raises:
        ValueError: Where there is no FasterViT.
    """
    for backbone in find_backbones(model.eval(), 'deploy=True'):
        backbone.switch_to_deploy()
    return model


def dataset_configs(cfg: Config, loader: str) -> Iterator[Tuple[str, Dict]]:
    """Every data set of a loader, out of its wrappers (repeated, concatenated and others).

    Args:
        cfg: A config.
        loader: Such as ``'train_dataloader'``; one that is not there has none.

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
            found += inner
        else:
            yield place, dataset


def dataset_config(cfg: Config, loader: str = 'test_dataloader') -> Dict:
    """The first data set of a loader, out of its wrappers.

    Raises:
        ValueError: For a config that has none.
    """
    for _, dataset in dataset_configs(cfg, loader):
        return dataset
    raise ValueError(f'{loader}: this config has none with a dataset in it')


def image_pipeline(cfg: Config, loader: str = 'test_dataloader') -> List[Dict]:
    """The steps that turn an image into a model's input, without those that load annotations.

    Args:
        cfg: A config.
        loader: Whose data set says it. Default the test loader.

    Returns:
        Copies of the steps' settings.

    Raises:
        ValueError: For a config without that loader.
    """
    return [copy.deepcopy(step) for step in dataset_config(cfg, loader).pipeline
            if 'Annotations' not in _type_name(step)]


def _type_name(step: Mapping[str, Any]) -> str:
    kind: Union[str, type] = step['type']
    return kind if isinstance(kind, str) else kind.__name__
