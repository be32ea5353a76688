"""Cost of the recipes: parameters, multiply-adds, activations of a training step.

Activations are what the loss of two images keeps for its backward pass, in float32, of each storage
once and without parameters. The forward pass is real, but each kept tensor is dropped at once, so a
CPU with the memory of a prediction counts what would fill a GPU. Attention counts as a GPU's fused
kernel keeps it. Not counted: weights, gradients and AdamW's two moments, 16 bytes a parameter; what
kernels use in between.
"""
import argparse
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, Tuple
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from benchmarks.reports import origin, save
from fastervit_mm import complexity, get_config
from fastervit_mm.models import build_model

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / 'benchmarks/recipes.json'
COCO, ADE20K, CITYSCAPES = (800, 1344), (512, 2048), (1024, 2048)
CROP, LARGE_JITTER, SQUARE = (512, 512), (1024, 1024), (640, 640)
# Height and width of the largest image in testing, and of the largest in training.
RECIPES = {
    'mmdet/faster_rcnn_fvit_0': (COCO, COCO),
    'mmdet/mask_rcnn_fvit_0_1x': (COCO, COCO),
    'mmdet/mask_rcnn_fvit_0_3x': (COCO, COCO),
    'mmdet/cascade_fvit_as_mambavision': (COCO, COCO),
    'mmdet/retinanet_fvit_0': (COCO, COCO),
    'mmdet/atss_fvit_0': (COCO, COCO),
    'mmdet/rtmdet_fvit_0': (SQUARE, SQUARE),
    'mmdet/mask2former_fvit_0_instance': (COCO, LARGE_JITTER),
    'mmdet/mask2former_fvit_0_panoptic': (COCO, LARGE_JITTER),
    'mmseg/mask2former_fvit_0_semantic': (ADE20K, CROP),
    'mmseg/semantic_fpn_fvit_0': (ADE20K, CROP),
    'mmseg/segformer_fvit_0': (ADE20K, CROP),
    'mmseg/upernet_fvit_as_mambavision': (ADE20K, CROP),
    'mmseg/upernet_fvit_0_cityscapes': (CITYSCAPES, (512, 1024)),
}
_BATCH = 2
# Objects in an image; as many as a RoI head samples, since proposals of random weights find none.
_OBJECTS, _POSITIVES = 20, 128


def activations(model: nn.Module, loss: Callable[[], object]) -> int:
    """Count the bytes that a loss keeps for its backward pass.

    Args:
        model: Its parameters and buffers are not counted.
        loss: Computes the loss, once. The backward pass is not possible.
    """
    kept: Dict[StorageWeakRef, int] = {}

    def keep(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        kept.setdefault(StorageWeakRef(storage), storage.nbytes())

    for tensor in (*model.parameters(), *model.buffers()):
        kept[StorageWeakRef(tensor.untyped_storage())] = 0
    with saved_tensors_hooks(keep, _unpack), _fused_attention(keep):
        loss()
    return sum(kept.values())


@contextmanager
def _fused_attention(keep: Callable[[Tensor], None]) -> Iterator[None]:
    """Keep attention's inputs and output, and not its logits, which CPUs keep."""
    attention = F.scaled_dot_product_attention

    def attend(*inputs: Tensor, attn_mask: Tensor, **settings: object) -> Tensor:
        with saved_tensors_hooks(lambda tensor: None, _unpack):
            output = attention(*inputs, attn_mask=attn_mask, **settings)
        for tensor in (*inputs, attn_mask, output):
            keep(tensor)
        return output

    with patch.object(F, 'scaled_dot_product_attention', attend):
        yield


def _unpack(nothing: None) -> Tensor:
    raise RuntimeError('activations were counted and dropped, so there is no backward pass')


def batch(model: nn.Module, size: Tuple[int, int]) -> dict:
    """Random images and truth, as a pipeline packs them.

    Args:
        model: A detector of COCO's classes or a segmentor.
        size: Height and width.
    """
    if not hasattr(model, 'decode_head'):
        from mmdet.structures.mask import BitmapMasks
        from mmdet.testing import demo_mm_inputs
        panoptic = hasattr(model, 'panoptic_head')
        objects = _OBJECTS if panoptic else _POSITIVES
        data = demo_mm_inputs(_BATCH, (3, *size), [objects] * _BATCH, 80, with_semantic=panoptic)
        if panoptic or model.with_mask:
            for sample in data['data_samples']:
                sample.gt_instances.masks = BitmapMasks(np.ones((objects, *size), np.uint8), *size)
        return data
    from mmseg.structures import SegDataSample
    classes = model.decode_head.num_classes
    return dict(
        inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(_BATCH)],
        data_samples=[SegDataSample(
            metainfo=dict(img_shape=size, ori_shape=size),
            gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, *size))))
            for _ in range(_BATCH)])


def cost(name: str) -> dict:
    """Figures of one recipe."""
    tested, trained = RECIPES[name]
    cfg = get_config(name)
    total = complexity.analyse(cfg.filename, tested).total
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg).train()
    data = model.data_preprocessor(batch(model, trained), training=True)
    return dict(parameters=total.parameters, multiply_adds=total.multiply_adds, tested=tested,
                activations=activations(model, lambda: model(**data, mode='loss')),
                trained=trained)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--recipes', nargs='+', default=list(RECIPES), choices=RECIPES,
                        metavar='NAME', help='such as mmdet/atss_fvit_0 (default: all)')
    parser.add_argument('--out', type=Path, default=OUT, help='(default: %(default)s)')
    args = parser.parse_args()
    rows = {}
    for name in args.recipes:
        rows[name] = cost(name)
        print(f'{name}: {rows[name]}', flush=True)
        save(dict(origin(), rows=rows), args.out)


if __name__ == '__main__':
    main()
