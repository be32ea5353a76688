"""Heads as modules that can be exported.

No size in their graphs depends on pixel values. A head's module is built from the whole model,
``Module(model)``, which raises ``ExportError`` for settings that it does not serve. It has

- ``forward(maps, size) -> outputs``: the neck's maps, each (B, C, h, w), and (height, width) of the
  images without padding, as symbolic integers; a tuple of tensors;
- ``names``: the outputs' names. A detector's are ``boxes``, ``scores``, ``labels``, ``count`` and
  perhaps ``masks``, as :func:`boxes.detections` gives them;
- ``task``: ``'detection'``, ``'segmentation'`` or ``'classification'``;
- ``test_cfg``, of a detector: the settings whose ``score_thr``, ``max_per_img`` and
  ``mask_thr_binary`` hold for the detections;
- ``smallest``, if it is not 32: the smallest side of an image, in pixels.
"""
from importlib import import_module

import torch
from torch import nn

from ..errors import ExportError

# mmdet's heads by name, since a class that inherits may compute something else.
_DETECTORS = {
    'StandardRoIHead': 'two_stage.TwoStage',
    'CascadeRoIHead': 'two_stage.TwoStage',
    'RetinaHead': 'one_stage.OneStage',
    'RetinaSepBNHead': 'one_stage.OneStage',
    'ATSSHead': 'one_stage.OneStage',
    'GFLHead': 'one_stage.OneStage',
    'FCOSHead': 'one_stage.OneStage',
    'RTMDetHead': 'one_stage.OneStage',
    'RTMDetSepBNHead': 'one_stage.OneStage',
    'DINOHead': 'detr.Detr',
    'OfficialDINOHead': 'detr.Detr',
    'DeformableDETRHead': 'detr.Detr',
}


def whole(model: nn.Module, labels: bool = False) -> nn.Module:
    """Build the exportable module of a model's heads.

    Args:
        model: A detector of mmdet, a segmentor of mmseg or a classifier of mmpretrain.
        labels: For a segmentor, labels instead of logits. Default False.

    Raises:
        ExportError: For a model whose heads cannot be exported.
    """
    if hasattr(model, 'encode_decode'):
        if type(model.decode_head).__name__ == 'Mask2FormerHead':
            from .mask2former import Mask2Former as Segmentor
        else:
            from .segmentor import Segmentor
        return Segmentor(model, labels)
    if labels:
        raise ExportError('labels=True: only a whole segmentor gives labels, and this is a '
                          f'{type(model).__name__}; leave labels out')
    if hasattr(model, 'head'):
        from .classifier import Classifier
        return Classifier(model)
    head = getattr(model, 'roi_head', getattr(model, 'bbox_head', model))
    name = type(head).__name__
    if name not in _DETECTORS:
        raise not_served(name)
    _check_torchvision()
    module, kind = _DETECTORS[name].split('.')
    return getattr(import_module(f'.{module}', __name__), kind)(model)


def _check_torchvision() -> None:
    try:
        from torchvision.extension import _has_ops
        works = _has_ops()
    except (ImportError, RuntimeError):  # RuntimeError: operators for another torch
        works = False
    if not works:
        raise ExportError('a whole detector needs torchvision\'s operators, which do not load '
                          f'beside torch {torch.__version__}. Do: pip install --upgrade '
                          '--force-reinstall torch torchvision, both from the same index')


def not_served(what: str) -> ExportError:
    """Error for a part of a model that cannot be exported."""
    return ExportError(f'{what} cannot be exported; served are {", ".join(_DETECTORS)}. Export '
                       "--part features, and run the heads after them")
