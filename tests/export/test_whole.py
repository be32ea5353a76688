"""Whole detectors and classifiers in a file, beside mmdet and mmpretrain.

One ONNX file is written, of a Cascade Mask R-CNN with a class's own boxes; other networks are compared
as the module that would be captured, or in a ``.pt2`` file.
"""
import copy
import json
import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config

from fastervit_mm import export
from fastervit_mm.engine import launch
from fastervit_mm.export.heads import boxes as ops
from fastervit_mm.export.heads import whole
from fastervit_mm.export.matching import differences
from fastervit_mm.export.metadata import metadata
from fastervit_mm.export.onnx_graph import data_dependent_shapes, forbidden_ops, operators
from fastervit_mm.export.parts import choose_part
from fastervit_mm.export.pictures import Pictures, preprocessing
from fastervit_mm.export.predicting import predict
from fastervit_mm.export.swaps import prepared
from fastervit_mm.models import build_model
from tests.conftest import CLASSIFIER, needs_torch
from tests.export.networks import (
    CHANNELS,
    DETECTOR,
    SEGMENTOR,
    config,
    detector,
    network,
    options,
    saved,
)
from tests.running import run_tool
from tests.samples import draw_shapes

writes = needs_torch(2, 8, 'export for all sizes')
# One image and several; square and not; multiples of 32 and not; the smallest, whose levels have
# fewer anchors than nms_pre.
SIZES = [(1, 160, 160), (3, 97, 150), (1, 32, 32), (2, 64, 448)]
LIMITS = {'model.test_cfg.rpn.nms_pre': 40, 'model.test_cfg.rpn.max_per_img': 30,
          'model.test_cfg.rcnn.max_per_img': 20}
FLAT = np.full((3, 64, 96), 90, np.uint8)


class Eager(export.ExportedFile):
    """What a file holds, before it is captured."""

    def __init__(self, model, part='whole', **settings):
        self._session, self.path = None, 'eager'
        self._module = prepared(model, part, **settings)
        self._module.name_outputs(0)
        self.facts = metadata(model, self._module, part, True)


def exact(model, file, sizes=SIZES):
    """Every detection has its partner, boxes within 1e-3 pixels; how many there are."""
    checks = export.check(model, file, sizes)
    for check in checks:
        assert check.holds
        if not check.output.startswith('masks'):
            assert check.error * max(check.size) < 1e-3, check
    return [c.shape[0] for c in checks if c.output.startswith('boxes')]


def batch(*images):
    shape = images[0].shape[1:]
    return dict(inputs=[torch.as_tensor(image) for image in images], data_samples=[
        DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1., 1.)))
        for _ in images])


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)


def best_scores(model, image):
    """All of mmdet's scores for an image, whatever the threshold."""
    model = copy.deepcopy(model)
    model.test_cfg.rcnn.score_thr = 0.
    return model.test_step(batch(image))[0].pred_instances.scores


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    draw_shapes(folder / 'shapes', train=4, val=4)
    return folder


@pytest.fixture(scope='module')
def settings(folder):
    """Of a detector that finds nothing in a flat image, and more than it keeps in noise."""
    data = {'test_dataloader.dataset.data_root': f'{folder}/shapes/',
            'test_dataloader.dataset.indices': 4,
            'test_dataloader.dataset.ann_file': 'annotations/instances_val.json',
            'test_evaluator.ann_file': f'{folder}/shapes/annotations/instances_val.json'}
    model = detector(config(DETECTOR, folder, **LIMITS, **data))
    threshold = best_scores(model, FLAT).max().item() * 1.001
    return options(DETECTOR, **LIMITS, **data, **{
        'model.test_cfg.rcnn.score_thr': threshold, 'work_dir': str(folder / 'run')})


@pytest.fixture(scope='module')
def cascade(settings):
    return detector(launch.load_config(DETECTOR['config'], cfg_options=settings))
