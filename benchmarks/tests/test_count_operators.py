"""Count of configs that reach mmcv's operators."""
from pathlib import Path

import mmdet
import pytest

from tests.conftest import load_program

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'


@pytest.mark.parametrize('config,expected', [
    ('detr/detr_r50_8xb2-150e_coco.py', set()),
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', {'nms', 'roi_align'}),
    ('foveabox/fovea_r50_fpn_4xb4-1x_coco.py', {'nms', 'sigmoid_focal_loss'}),
    ('foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco.py',
     {'nms', 'sigmoid_focal_loss', 'deform_conv'}),
    ('dino/dino-4scale_r50_8xb2-12e_coco.py', {'ms_deform_attn', 'sigmoid_focal_loss'}),
    ('faster_rcnn/faster-rcnn_r50_fpn_soft-nms_1x_coco.py', {'nms', 'softnms', 'roi_align'}),
])
def test_the_operators_a_config_reaches_are_counted(config, expected):
    program = load_program('benchmarks/count_operators.py')
    found = program.operators_of('mmdet', CONFIGS / config)
    assert {name.partition('_forward')[0] for name in found if 'backward' not in name} == expected
