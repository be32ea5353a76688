"""Predictions of a whole exported file, as OpenMMLab's."""
import copy
from typing import Any, List, Mapping

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .running import ExportedFile


@torch.no_grad()
def predict(file: ExportedFile, model: nn.Module, data: Mapping[str, Any]) -> List[Any]:
    """Run a detector's or classifier's ``test_step`` with a file.

    Args:
        file: A whole detector or classifier.
        model: The model, for its preprocessing and test settings.
        data: ``inputs``, each (C, H, W), BGR as pipelines read images, and their
            ``data_samples``.

    Returns:
        The data samples, with predictions at the size of the original images.
    """
    samples = list(data['data_samples'])
    for image, sample in zip(data['inputs'], samples):
        outputs = dict(zip(file.outputs, file(_input(file, model, image, sample))))
        if file.facts['task'] == 'classification':
            score = outputs['scores'][0]
            sample.set_pred_score(score).set_pred_label(score.argmax(dim=0, keepdim=True))
        else:
            sample.pred_instances = _instances(model, outputs, sample.metainfo)
    return samples


def raw(images: Tensor, kind: str) -> Tensor:
    """Convert BGR images (..., C, H, W) to a file's uint8 or float32."""
    if images.shape[-3] == 3:
        images = images.flip(-3)
    return images.round().clamp(0, 255).to(torch.uint8) if kind == 'uint8' else images.float()


def _input(file: ExportedFile, model: nn.Module, image: Tensor, sample: Any) -> Tensor:
    if file.facts['input'] != 'normalized':
        return raw(image, file.facts['input'])[None]
    batch = dict(inputs=[image], data_samples=[sample])
    return model.data_preprocessor(batch, False)['inputs'].cpu()


def _instances(model: nn.Module, outputs: Mapping[str, Tensor], meta: Mapping[str, Any]
               ) -> InstanceData:
    """mmdet's detections of one image, from a file's outputs."""
    from mmdet.structures.bbox import scale_boxes
    count = int(outputs['count'])
    found = InstanceData(bboxes=outputs['boxes'][0, :count], scores=outputs['scores'][0, :count],
                         labels=outputs['labels'][0, :count])
    if 'masks' not in outputs:
        found.bboxes = scale_boxes(found.bboxes, [1 / factor for factor in meta['scale_factor']])
        return found
    heads = model.roi_head.mask_head
    head = copy.copy(heads[-1] if isinstance(heads, nn.ModuleList) else heads)
    head.class_agnostic = True  # the file has chosen each box's class
    return head.predict_by_feat([outputs['masks'][0, :count, None]], [found], [meta],
                                model.test_cfg.rcnn, rescale=True, activate_map=True)[0]
