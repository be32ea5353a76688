"""Untrained networks of the shapes configs' size, for the classes of COCO and ADE20K."""
from pathlib import Path
from typing import Tuple

import torch
from mmengine.config import Config

from fastervit_mm.config_files import config_path
from fastervit_mm.models import build_model
from tests.conftest import stir


def detector(folder: Path, tiny_coco: Path) -> Tuple[str, str]:
    """Config and checkpoint of Cascade Mask R-CNN over COCO's classes."""
    cfg = Config.fromfile(config_path('mmdet/cascade_fvit_shapes'))
    for head in (*cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head):
        head.num_classes = 80
    cfg.model.test_cfg.rcnn.update(score_thr=0.012, max_per_img=6)  # of an untrained network
    dataset = cfg.test_dataloader.dataset
    dataset.pop('metainfo')  # the shapes' classes
    dataset.update(type='CocoDataset', data_root=f'{tiny_coco}/',
                   ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/'))
    cfg.test_evaluator.ann_file = f'{tiny_coco}/annotations/instances_val2017.json'
    from mmdet.datasets import CocoDataset
    return _saved(cfg, folder, CocoDataset.METAINFO)


def segmentor(folder: Path, tiny_ade20k: Path) -> Tuple[str, str]:
    """Config and checkpoint of UperNet over ADE20K's classes, labels numbered from 1."""
    cfg = Config.fromfile(config_path('mmseg/upernet_fvit_shapes'))
    for head in (cfg.model.decode_head, cfg.model.auxiliary_head):
        head.update(num_classes=150, loss_decode=dict(class_weight=None))
    dataset = cfg.test_dataloader.dataset
    dataset.pop('metainfo')  # the shapes' classes
    dataset.update(type='ADE20KDataset', data_root=str(tiny_ade20k), reduce_zero_label=True,
                   img_suffix='.jpg', data_prefix=dict(img_path='images/validation',
                                                       seg_map_path='annotations/validation'))
    dataset.pipeline[1].reduce_zero_label = True
    cfg.visualizer = dict(type='SegLocalVisualizer', name='visualizer')
    from mmseg.datasets import ADE20KDataset
    return _saved(cfg, folder, ADE20KDataset.METAINFO)


def _saved(cfg: Config, folder: Path, meta: dict) -> Tuple[str, str]:
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    stir(model)
    config, checkpoint = folder / f'{cfg.default_scope}.py', folder / f'{cfg.default_scope}.pth'
    cfg.dump(config)
    torch.save(dict(meta=dict(dataset_meta=dict(meta)), state_dict=model.state_dict()), checkpoint)
    return str(config), str(checkpoint)
